package embedded

import (
	"slices"

	"github.com/hashicorp/raft"
)

// Who asks for a vote is judged by its log alone, as in Ongaro's dissertation (section 4.1): the
// candidate counts votes by its own newest configuration, and the voter's doesn't matter.
//
// raft asks more: it refuses a candidate that isn't a voter in the *receiver's* configuration. If a
// leader makes a server a voter and dies before all others heard of it, that can stand for ever: the
// new voter has the longest log and is refused as a stranger by the one that didn't hear, which is
// refused by the new voter for its shorter log. Two of three voters are alive, and nobody leads.
//
// What raft's question protects from, removed servers that disturb, is prevented otherwise: a node
// that hears a leader refuses every candidate, and asking for votes is preceded by asking whether to.

// introduce lets a candidate that this node doesn't know as a voter pass raft's question, under the
// name of a voter that it knows. The name serves for nothing else there: votes are remembered by address.
func introduce(command any, configuration func() raft.Configuration) {
	var header *raft.RPCHeader
	switch req := command.(type) {
	case *raft.RequestVoteRequest:
		header = &req.RPCHeader
	case *raft.RequestPreVoteRequest:
		header = &req.RPCHeader
	default:
		return
	}
	known := configuration()
	isVoter := func(s raft.Server) bool { return s.Suffrage == raft.Voter }
	if slices.ContainsFunc(known.Servers, func(s raft.Server) bool { return isVoter(s) && string(s.ID) == string(header.ID) }) {
		return
	}
	if i := slices.IndexFunc(known.Servers, isVoter); i >= 0 {
		header.ID = []byte(known.Servers[i].ID)
	}
}
