package embedded

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// pacing makes heartbeats fill silences only. Any request of the log that a voter
// accepted tells it as much as a heartbeat does, and raft knows that for its own lease;
// yet raft sends heartbeats beside them, at random moments that are half as far apart
// as they may be. They are most of what an idle store costs. So a heartbeat waits here
// until the voter has heard nothing for a whole interval: the longest silence is what it
// was, and there are fewer than half as many requests.
type pacing struct {
	every time.Duration

	mu    sync.Mutex // guards heard
	heard map[raft.ServerID]hearing
}

// hearing is when a voter last accepted a request of this node, and in which term.
type hearing struct {
	term uint64
	at   time.Time
}

// accepted notes that the voter accepted a request that was sent at a moment. The moment
// of sending, because the voter's patience may begin then.
func (p *pacing) accepted(id raft.ServerID, term uint64, sent time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.heard[id]; term > h.term || (term == h.term && sent.After(h.at)) {
		if p.heard == nil {
			p.heard = map[raft.ServerID]hearing{}
		}
		p.heard[id] = hearing{term, sent}
	}
}

// left is how much longer the voter needs no heartbeat of the term.
func (p *pacing) left(id raft.ServerID, term uint64, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.heard[id]
	if h.term != term {
		return 0
	}
	return p.every - now.Sub(h.at)
}

// await returns when a heartbeat is due, or ctx ends. Nothing shortens the wait: a
// leader that is deposed sends one late heartbeat, which is refused for its term.
func (p *pacing) await(ctx context.Context, id raft.ServerID, term uint64) {
	for {
		wait := p.left(id, term, time.Now())
		if wait <= 0 || !pause(ctx, wait) {
			return
		}
	}
}
