package embedded

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// herald tells the other servers of every change of the content, while this node leads,
// that it is committed. Raft would tell them with the next entry or with its idle
// repetition (Timings.Commit), and each change would be seen elsewhere that much later:
// failover would wait for that.
//
// What is sent is a request of the log without entries, as any leader may send at any time
// (Raft, §5.3: a follower that has the named entry advances its commit index). Nothing is
// written for it anywhere. Raft itself doesn't hear of it, and doesn't have to: it knows
// about entries by its own requests.
type herald struct {
	store *Store

	mu   sync.Mutex // guards busy
	busy map[raft.ServerID]bool
}

// The pauses after a follower said that it doesn't have the entry yet, which is on its way.
const (
	firstRetry = 2 * time.Millisecond
	lastRetry  = 50 * time.Millisecond
)

// run announces changes until ctx ends.
func (h *herald) run(ctx context.Context) {
	var done uint64
	for {
		changed := h.store.replica.changed.wait()
		if at := h.store.replica.newest(); at.index > done && h.store.current() != nil {
			done = at.index
			for _, server := range h.store.configuration().Servers {
				if server.ID != h.store.folder.id {
					h.tell(ctx, server)
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// tell starts telling a server of the newest change, unless that is under way: who tells
// then goes on with newer ones.
func (h *herald) tell(ctx context.Context, server raft.Server) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy[server.ID] {
		return
	}
	h.busy[server.ID] = h.store.futures.Start(func() {
		var told uint64
		for h.another(ctx, server.ID, told) {
			told = h.announce(ctx, server)
		}
	})
}

// another says whether there is something newer to tell than what was told; if there isn't,
// it ends the telling.
func (h *herald) another(ctx context.Context, id raft.ServerID, told uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.store.replica.newest().index > told && h.store.current() != nil && ctx.Err() == nil {
		return true
	}
	delete(h.busy, id)
	return false
}

// announce tells a server of the newest change and returns its index. A server that lacks
// the entry is told again until it has it, or until the idle repetition will tell it anyway;
// one that can't be reached is told by raft when it can.
func (h *herald) announce(ctx context.Context, server raft.Server) uint64 {
	s := h.store
	began, retry := time.Now(), firstRetry
	for {
		office, at := s.current(), s.replica.newest()
		if office == nil {
			return at.index
		}
		accepted, err := s.transport.announce(server, office.term, at)
		if accepted || err != nil || time.Since(began) > s.cfg.Timings.Commit || !pause(ctx, retry) {
			return at.index
		}
		retry = min(2*retry, lastRetry)
	}
}

// position is a place in the log.
type position struct{ index, term uint64 }

// announce says to a server that the log is committed up to a place, in the name of the
// leader of the term, and returns whether it has the log that far.
func (t *transport) announce(server raft.Server, term uint64, at position) (accepted bool, err error) {
	if t.silent() {
		return false, errStandsStill
	}
	self := t.EncodePeer(t.self, raft.ServerAddress(t.layer.addr))
	args := raft.AppendEntriesRequest{
		RPCHeader:    raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.self), Addr: self},
		Term:         term,
		PrevLogEntry: at.index, PrevLogTerm: at.term, LeaderCommitIndex: at.index,
	}
	var resp raft.AppendEntriesResponse
	sent := time.Now()
	if err := t.NetworkTransport.AppendEntries(server.ID, server.Address, &args, &resp); err != nil {
		return false, err
	}
	if resp.Success {
		t.pacing.accepted(server.ID, term, sent)
	}
	return resp.Success, nil
}
