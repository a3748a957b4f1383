package embedded

import (
	"testing"

	"github.com/hashicorp/raft"
)

// A leader makes a server a voter and dies before the third one heard of it: those two are a
// majority and must find a leader, although one has a shorter log and the other is no voter for it.
func TestAVoterThatOthersHaveNotHeardOfIsElected(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	leader := c.leader()
	newcomer := c.follower(leader)
	uninformed := 3 - leader - newcomer
	r := c.nodes[leader].store.raft
	id := c.nodes[newcomer].store.folder.id
	voters := func(i int) int {
		n := 0
		for _, s := range c.nodes[i].store.configuration().Servers {
			if s.Suffrage == raft.Voter {
				n++
			}
		}
		return n
	}
	if err := r.DemoteVoter(id, 0, patience).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both know that the newcomer has no vote", func() bool { return voters(uninformed) == 2 && voters(newcomer) == 2 })
	c.net.setCut(c.nodes[leader].cfg.SelfAddr, c.nodes[uninformed].cfg.SelfAddr, true)
	if err := r.AddVoter(id, raft.ServerAddress(c.nodes[newcomer].cfg.SelfAddr), 0, patience).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the newcomer knows that it has a vote", func() bool { return voters(newcomer) == 3 })
	if got := voters(uninformed); got != 2 {
		t.Fatalf("the one that was cut off knows %d voters, want 2", got)
	}
	c.kill(leader)
	c.put(c.nodes[uninformed].store, "k", "1", "")
	if got := voters(uninformed); got != 3 {
		t.Errorf("after the election it knows %d voters, want 3", got)
	}
}

func TestStrangersAreIntroduced(t *testing.T) {
	known := raft.Configuration{Servers: []raft.Server{
		{ID: "a", Suffrage: raft.Nonvoter}, {ID: "b", Suffrage: raft.Voter}, {ID: "c", Suffrage: raft.Voter},
	}}
	for _, tt := range []struct {
		from, as string
		known    raft.Configuration
	}{
		{"c", "c", known},
		{"a", "b", known},
		{"stranger", "b", known},
		{"stranger", "stranger", raft.Configuration{}},
	} {
		header := raft.RPCHeader{ID: []byte(tt.from), Addr: []byte("there")}
		vote, ask := &raft.RequestVoteRequest{RPCHeader: header}, &raft.RequestPreVoteRequest{RPCHeader: header}
		introduce(vote, func() raft.Configuration { return tt.known })
		introduce(ask, func() raft.Configuration { return tt.known })
		if string(vote.ID) != tt.as || string(ask.ID) != tt.as || string(vote.Addr) != "there" {
			t.Errorf("%s passed as %s and %s (at %s), want %s", tt.from, vote.ID, ask.ID, vote.Addr, tt.as)
		}
	}
	entries := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ID: []byte("stranger")}}
	introduce(entries, func() raft.Configuration { return known })
	if string(entries.ID) != "stranger" {
		t.Error("a leader's name was changed")
	}
}
