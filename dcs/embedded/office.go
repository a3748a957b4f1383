package embedded

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs/embedded/kv"
	"github.com/pgregent/regent/events"
)

// office is one leadership of this node: the term, and where its clock begins. The
// two belong together and are replaced together (safety rule S13): a stamp counts
// from origin and is worth something in term only.
type office struct {
	term   uint64
	origin events.Instant
	// between is how long before origin this node had last applied an entry. That was after
	// the newest stamp was taken, wherever that was, so leases that are as old may be
	// shortened by it.
	between time.Duration
	// tenure is which gain of leadership it was taken in.
	tenure uint64
}

// offices follows raft's leadership and takes office when it is gained.
type offices struct {
	store *Store
	// gained and lost come from raft, which waits until they are read.
	notices chan bool
	// news wakes the loop.
	news chan struct{}
}

// current is the office this node is in, nil if it isn't the leader or not yet ready.
func (s *Store) current() *office {
	o := s.office.Load()
	if o == nil || o.tenure != s.tenure.Load() || s.raft.State() != raft.Leader {
		return nil
	}
	return o
}

// follow reads raft's notices without delay, because raft waits for it.
func (o *offices) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case leader := <-o.notices:
			o.store.tenure.Add(1)
			if !leader {
				o.store.office.Store(nil)
			}
			o.store.pace(leader)
			select {
			case o.news <- struct{}{}:
			default:
			}
			o.store.standing.notify()
		}
	}
}

// leaderPace is how many times longer the heartbeat time-out is on the leader than on
// followers. raft sends heartbeats at a tenth of the *leader's* time-out, and they are
// most of what an idle store costs; followers judge its silence by their own. So a
// follower still gets at least two heartbeats in its time-out.
const leaderPace = 2

// pace sets the time-out that suits this node's role.
func (s *Store) pace(leader bool) {
	rc := s.raft.ReloadableConfig()
	rc.HeartbeatTimeout, rc.ElectionTimeout = s.cfg.Timings.Heartbeat, s.cfg.Timings.Election
	if leader {
		rc.HeartbeatTimeout *= leaderPace
		rc.ElectionTimeout = max(rc.ElectionTimeout, rc.HeartbeatTimeout) // raft insists
	}
	if err := s.raft.ReloadConfig(rc); err != nil {
		s.log.Warn("raft keeps its heartbeat", "err", err)
	}
}

// run takes office whenever leadership is gained, and then keeps the clock going: it
// proposes a tick when the next lease ends, and only then, so that an idle cluster
// with no lease about to end writes nothing.
func (o *offices) run(ctx context.Context) {
	s := o.store
	for ctx.Err() == nil {
		deadlines := s.replica.deadlines.wait()
		if s.raft.State() == raft.Leader && s.current() == nil {
			if !o.take(ctx) {
				pause(ctx, 20*time.Millisecond)
			}
			continue
		}
		timer, due := o.untilTick()
		if due {
			o.tick(ctx)
			continue
		}
		select {
		case <-ctx.Done():
		case <-o.news:
		case <-deadlines:
		case <-timer:
		}
	}
}

// take waits until everything of earlier terms is applied here, and takes the
// clock's origin after that.
func (o *offices) take(ctx context.Context) bool {
	s := o.store
	tenure, term := s.tenure.Load(), s.raft.CurrentTerm()
	asked := s.cfg.now()
	err := s.wait(ctx, func() raft.Future { return s.raft.Barrier(time.Second) })
	if err != nil || s.raft.CurrentTerm() != term || s.raft.State() != raft.Leader {
		return false
	}
	s.noteQuorum(asked)
	applied, origin := s.replica.lastApplied(), s.cfg.now()
	if applied == 0 {
		applied = origin // nothing ever was
	}
	s.office.Store(&office{term: term, origin: origin, between: origin.Sub(applied), tenure: tenure})
	s.log.Info("this node leads the embedded store", "term", term)
	s.standing.notify()
	// A first entry moves the machine into this term, and ends what ended meanwhile.
	o.tick(ctx)
	return true
}

// untilTick returns a timer for the end of the next lease, or due when it is past.
func (o *offices) untilTick() (timer <-chan time.Time, due bool) {
	s := o.store
	office := s.current()
	if office == nil {
		return nil, false
	}
	term, at, ok := s.replica.nextDeadline()
	if !ok {
		return nil, false
	}
	if term != office.term {
		return nil, true // the first tick of this term was lost
	}
	left := at - s.cfg.now().Sub(office.origin)
	if left <= 0 {
		return nil, true
	}
	return time.After(left), false
}

func (o *offices) tick(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, _, err := o.store.applyHere(ctx, kv.Command{V: kv.Version, Op: kv.OpTick})
	if err != nil {
		pause(ctx, 20*time.Millisecond)
	}
}

// wait waits for one of raft's futures, but no longer than ctx. Raft's own time-outs
// bound only how long a call queues: an entry of a leader that was cut off ends when
// the leader notices.
func (s *Store) wait(ctx context.Context, start func() raft.Future) error {
	done := make(chan error, 1)
	if !s.futures.Start(func() { done <- start().Error() }) {
		return errClosed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errClosed = errors.New("the store is closed")

// certainlyNot reports whether raft's error means that an entry isn't in the log
// and never will be.
func certainlyNot(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrEnqueueTimeout) ||
		errors.Is(err, raft.ErrLeadershipTransferInProgress) || errors.Is(err, errClosed)
}
