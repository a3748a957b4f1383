package embedded

import (
	"context"
	"fmt"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded/kv"
	"github.com/pgregent/regent/events"
)

// View implements dcs.Store. A linearizable view is an entry of the log, because
// every cheaper proof of leadership rests on answers that may have been waiting in a
// buffer while this process was frozen (safety rule S24).
func (s *Store) View(ctx context.Context, c dcs.Consistency) (dcs.View, error) {
	if c == dcs.Local {
		if err := s.alive(ctx); err != nil {
			return dcs.View{}, fmt.Errorf("view: %w", err)
		}
		if s.participating() {
			return s.localView(), nil
		}
		return s.outside.localView(ctx)
	}
	asked := s.cfg.now()
	r, err := s.propose(ctx, kv.Command{V: kv.Version, Op: kv.OpRead})
	if err != nil {
		return dcs.View{}, err
	}
	return viewOf(r, asked, s.cfg.now()), nil
}

func viewOf(r kv.Result, asked, now events.Instant) dcs.View {
	return dcs.View{Revision: r.Revision, KVs: r.Content, Age: now.Sub(asked), At: now}
}

// localView is this node's copy, and how long ago it was known to be all there is.
func (s *Store) localView() dcs.View {
	// The age is taken first: content can only be newer than it claims.
	now := s.cfg.now()
	since, ok := s.knownSince()
	v := s.replica.content()
	v.At, v.Age = now, -1
	if ok {
		v.Age = max(0, now.Sub(since))
	}
	return v
}

// knownSince is when this node was last known to hold every committed entry: as the
// leader, when its newest committed entry was proposed; as a follower, when the
// leader last said how far the log is committed, and that much is applied here.
func (s *Store) knownSince() (events.Instant, bool) {
	at, ok := s.transport.heard.since(s.applied())
	if quorum := events.Instant(s.quorumAt.Load()); quorum > at {
		at, ok = quorum, true
	}
	return at, ok
}

// applied is the last entry that this node's copy holds.
func (s *Store) applied() uint64 { return s.replica.queued.bound(s.raft.AppliedIndex()) }

// Watch implements dcs.Store.
func (s *Store) Watch(ctx context.Context) (<-chan dcs.View, error) {
	out := make(chan dcs.View)
	started := s.futures.Start(func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.life, cancel)()
		s.feed(ctx, out)
	})
	if !started {
		return nil, fmt.Errorf("watch: %w: the store is closed", dcs.ErrUnavailable)
	}
	return out, nil
}

// feed sends views from elsewhere while this node has no copy of its own.
func (s *Store) feed(ctx context.Context, out chan<- dcs.View) {
	var sent events.Revision
	for ctx.Err() == nil {
		inside := s.participating()
		side := s.side.Load()
		phase, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(side.over, cancel)
		switch {
		case inside != side.inside: // it has just changed
		case inside:
			sent = s.feedLocal(phase, sent, out)
		default:
			sent = s.outside.feed(phase, sent, out)
			<-phase.Done() // it returns at once when there is nobody else
		}
		stop()
		cancel()
	}
}

// freshCheck is how often a watch looks whether a first contact with the leader made
// the age of its view known. After that there is nothing to poll for.
const freshCheck = 50 * time.Millisecond

// feedLocal sends this node's view at once and after every change, and once more when
// its age becomes known. It sends nothing older than the revision from, and returns the
// last revision that it sent.
func (s *Store) feedLocal(ctx context.Context, from events.Revision, out chan<- dcs.View) events.Revision {
	sent := from
	first, known := true, false
	for {
		changed := s.replica.changed.wait()
		v := s.localView()
		send := out
		if v.Revision < from || (!first && v.Revision == sent && (known || v.Age < 0)) {
			send = nil
		}
		var poll <-chan time.Time
		if !known {
			poll = time.After(freshCheck)
		}
		select {
		case send <- v:
			first, sent, known = false, v.Revision, known || v.Age >= 0
		case <-changed:
		case <-poll:
		case <-ctx.Done():
			return sent
		}
	}
}
