package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
)

// A raft folder that was put back from a backup, or a disk that lost what it said it had
// written, is worse than an empty one: it has the server's id, and has forgotten votes it
// gave and entries it confirmed. It could vote a second time in a term, or elect somebody
// without an entry that it had confirmed.
//
// So every node remembers what the others have shown it since it started: terms they were
// in, and how much of a term's log they had stored. A server that starts asks them before
// it takes part. What none of them remembers, because they started since or don't answer,
// isn't noticed: see DESIGN.md.

// promise is what a server is known to have stored: that it was in Term and, if Index
// isn't 0, that it had the log of Term's leader up to there.
type promise struct {
	ID    raft.ServerID `json:"id"`
	Term  uint64        `json:"term"`
	Index uint64        `json:"index,omitempty"`
}

// broken reports whether a folder whose newest term and entry are has's contradicts p.
// In one term a server's copy of the leader's log never shrinks.
func (p promise) broken(has promise) bool {
	return has.Term < p.Term || (has.Term == p.Term && has.Index < p.Index)
}

// promises of the other servers.
type promises struct {
	mu   sync.Mutex // guards seen
	seen map[raft.ServerID]promise
}

func (m *promises) note(p promise) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.seen[p.ID]; p.ID != "" && (p.Term > old.Term || (p.Term == old.Term && p.Index > old.Index)) {
		if m.seen == nil {
			m.seen = map[raft.ServerID]promise{}
		}
		m.seen[p.ID] = p
	}
}

func (m *promises) of(id raft.ServerID) promise {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen[id]
}

// overhear notes what a request of another server shows of it. A server that asks for
// votes may lose entries later in the same term, so only its term counts; and one that
// asks whether it should ask isn't in that term yet.
func (m *promises) overhear(command any) {
	switch req := command.(type) {
	case *raft.AppendEntriesRequest:
		m.note(promise{raft.ServerID(req.ID), req.Term, stored(req)})
	case *raft.RequestVoteRequest:
		m.note(promise{ID: raft.ServerID(req.ID), Term: req.Term})
	}
}

// stored is the last entry that whoever sends or accepts the request has.
func stored(req *raft.AppendEntriesRequest) uint64 {
	return req.PrevLogEntry + uint64(len(req.Entries))
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest,
	resp *raft.RequestVoteResponse,
) error {
	err := t.NetworkTransport.RequestVote(id, target, args, resp)
	if err == nil && resp.Granted {
		t.promises.note(promise{ID: id, Term: args.Term})
	}
	return err
}

// promised is the newest term and entry in the folder.
func (f *folder) promised() (promise, error) {
	p := promise{ID: f.id}
	term, err := f.logs.GetUint64([]byte(termKey))
	if err != nil && err.Error() != "not found" { // raft knows it by its text, too
		return p, fmt.Errorf("raft folder: read the term: %w: %w", dcs.ErrBroken, err)
	}
	last, err := f.logs.LastIndex()
	if err != nil {
		return p, fmt.Errorf("raft folder: read the log: %w: %w", dcs.ErrBroken, err)
	}
	snaps, err := f.snaps.List()
	if err != nil {
		return p, fmt.Errorf("raft folder: list snapshots: %w: %w", dcs.ErrBroken, err)
	}
	p.Term, p.Index = term, last
	if len(snaps) > 0 {
		p.Index = max(p.Index, snaps[0].Index)
	}
	return p, nil
}

// askPromises bounds the question before a start. The leader remembers most, so its
// answer is waited for; with a silent partner and no leader the start takes that long.
const askPromises = 300 * time.Millisecond

var errOldFolder = errors.New("the raft folder is older than what this server has told others: it was put back from a backup, " +
	"or its disk lost what it had confirmed. With it this node could vote twice. Move the folder away, start, and replace the " +
	"member (regent raft member remove, regent raft member add)")

// keepsPromises refuses a folder that has forgotten what another node remembers.
func (s *Store) keepsPromises(ctx context.Context) error {
	if s.folder.fresh {
		return nil
	}
	has, err := s.folder.promised()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askPromises)
	defer cancel()
	partners := s.cfg.partners()
	answers := make(chan *hello, len(partners))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, addr := range partners {
		wg.Go(func() {
			answer, _, err := s.peers.call(ctx, addr, request{Verb: verbHello, Promise: &has})
			if err != nil {
				answer.Hello = nil
			}
			answers <- answer.Hello
		})
	}
	for range partners {
		h := <-answers
		if h == nil {
			continue
		}
		if err := s.folder.contradicted(h); err != nil {
			return fmt.Errorf("raft folder %s: %w", s.cfg.DataDir, err)
		}
		switch {
		case h.Promised != nil && h.Promised.broken(has):
			return fmt.Errorf("raft folder %s: %w: %w (it ends at entry %d of term %d, %s remembers entry %d of term %d)",
				s.cfg.DataDir, dcs.ErrBroken, errOldFolder, has.Index, has.Term, h.Addr, h.Promised.Index, h.Promised.Term)
		case h.Leader == h.ID:
			return nil
		}
	}
	return nil
}
