package embedded

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// A node is inside the cluster while the cluster's configuration names its server id.
// Outside, before it was added and after it was removed, it uses the store through the
// others. Nothing rests on a node's opinion of the side it is on but how it reaches the
// store: raft alone decides whose vote counts.

// phase is a time on one side. over ends with it, or with the store.
type phase struct {
	inside bool
	over   context.Context
	end    context.CancelFunc
}

// enter begins a phase, if the present one is on the other side.
func (s *Store) enter(inside bool) {
	s.entering.Lock()
	defer s.entering.Unlock()
	old := s.side.Load()
	if old != nil && old.inside == inside {
		return
	}
	next := &phase{inside: inside}
	next.over, next.end = context.WithCancel(s.life)
	s.side.Store(next)
	if old != nil {
		old.end()
	}
}

// participating reports whether this node is inside.
func (s *Store) participating() bool {
	if s.side.Load().inside {
		return true
	}
	if !s.named() {
		return false
	}
	if s.expelled.Load() {
		if _, leader := s.raft.LeaderWithID(); leader == "" {
			return false
		}
		s.expelled.Store(false) // a leader speaks to it, so it is a server after all
	}
	s.enter(true)
	return true
}

// named reports whether the newest configuration that reached this node names it.
func (s *Store) named() bool {
	return slices.ContainsFunc(s.configuration().Servers, func(server raft.Server) bool { return server.ID == s.folder.id })
}

// membership follows this node's way in and out of the cluster until ctx ends.
func (s *Store) membership(ctx context.Context) {
	for ctx.Err() == nil {
		s.findCluster(ctx)
		s.stay(ctx)
	}
}

// stay returns when this node was removed. It may never have been told: then it hears
// of no leader any more, and learns from a partner that the cluster does without it.
func (s *Store) stay(ctx context.Context) {
	for ctx.Err() == nil {
		standing := s.standing.wait()
		if !s.named() {
			s.leave(false)
			return
		}
		var look <-chan time.Time
		if _, leader := s.raft.LeaderWithID(); leader == "" {
			look = time.After(helloSlow)
		}
		select {
		case <-ctx.Done():
		case <-standing:
		case <-look:
			if s.missed(ctx) {
				s.leave(true)
				return
			}
		}
	}
}

// missed reports whether a partner follows a leader of servers without this one.
func (s *Store) missed(ctx context.Context) bool {
	for _, addr := range s.cfg.partners() {
		h, err := s.ask(ctx, addr)
		if err == nil && h.Leader != "" && len(h.Servers) > 0 &&
			!slices.ContainsFunc(h.Servers, func(server Server) bool { return server.ID == string(s.folder.id) }) {
			return true
		}
	}
	return false
}

func (s *Store) leave(untold bool) {
	s.expelled.Store(untold)
	s.enter(false)
	s.log.Warn("this node was removed from the store's cluster: it has no vote, and uses the store through the others. "+
		"To let it vote again, stop it, remove its raft folder, start it, and add it (regent raft member add)",
		"self", string(s.folder.id))
}
