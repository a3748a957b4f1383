package embedded

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded/kv"
	"github.com/pgregent/regent/events"
)

// fate is what is known of a proposal whose answer didn't come.
type fate int

const (
	// never: it isn't in the log and never will be.
	never fate = iota
	// perhaps: it may be in the log, now or later.
	perhaps
)

// Between here and retry, an error has no class but ErrBroken: the fate says the rest.
var (
	errNotLeading = errors.New("this node isn't the leader of the store")
	errNoLeader   = errors.New("the store has no leader")
	errNoResult   = errors.New("an answer without a result")
)

// applyHere proposes a command on this node, which must be the leader. A result
// comes with a nil error; without one, fate says what may have become of it.
func (s *Store) applyHere(ctx context.Context, c kv.Command) (kv.Result, fate, error) {
	office := s.current()
	if office == nil {
		return kv.Result{}, never, errNotLeading
	}
	if s.disk.speed.standing() > 0 {
		return kv.Result{}, never, errStandsStill
	}
	asked := s.cfg.now()
	c.Term, c.Stamp = office.term, int64(asked.Sub(office.origin))
	if c.Op == kv.OpTick {
		c.Between = int64(office.between)
	}
	data, err := c.Encode()
	if err != nil {
		return kv.Result{}, never, fmt.Errorf("%w: %w", dcs.ErrBroken, err)
	}
	var future raft.ApplyFuture
	err = s.wait(ctx, func() raft.Future {
		future = s.raft.Apply(data, queueTime(ctx))
		return future
	})
	switch {
	case err == nil:
		s.noteQuorum(asked)
		result, ok := future.Response().(kv.Result)
		if !ok {
			return kv.Result{}, perhaps, errNoResult
		}
		return result, never, nil
	case certainlyNot(err):
		return kv.Result{}, never, err
	default:
		return kv.Result{}, perhaps, err
	}
}

// queueTime is how long an entry may queue before raft takes it.
func queueTime(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), time.Millisecond)
	}
	return time.Second
}

// serveProposal carries out a proposal that came from another node. One that was
// passed on once isn't passed on again.
func (s *Store) serveProposal(ctx context.Context, c kv.Command, relay bool) (kv.Result, fate, error) {
	if relay && s.participating() {
		return retry(ctx, s.life, c, s.standing, s.try)
	}
	return s.applyHere(ctx, c)
}

// propose carries a command out, on whichever node leads, and tries again within
// ctx for as long as that is safe: always after a try that certainly did nothing,
// and after an unclear one if twice is as good as once.
func (s *Store) propose(ctx context.Context, c kv.Command) (kv.Result, error) {
	return classed(c)(retry(ctx, s.life, c, s.standing, s.try))
}

// try makes one attempt, here or on the leader, or through anyone when this node is
// no voter.
func (s *Store) try(ctx context.Context, c kv.Command) (kv.Result, fate, error) {
	still := s.disk.speed.standing() > 0
	if s.current() != nil && !still {
		return s.applyHere(ctx, c)
	}
	addr, id := s.raft.LeaderWithID()
	if !s.participating() || still && id == s.folder.id {
		return s.outside.try(ctx, c)
	}
	if addr == "" || id == s.folder.id {
		return kv.Result{}, never, errNoLeader
	}
	// When raft follows another leader, waiting for this one's answer is in vain.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.onNewLeader(id, cancel)()
	return callPropose(ctx, s.peers, string(addr), request{Verb: verbPropose, Command: &c})
}

// callPropose sends a proposal to a node and sorts out its answer.
func callPropose(ctx context.Context, p *peers, addr string, req request) (kv.Result, fate, error) {
	answer, sent, err := p.call(ctx, addr, req)
	switch {
	case err != nil && sent:
		return kv.Result{}, perhaps, err
	case err != nil && settingsError(err):
		return kv.Result{}, never, fmt.Errorf("%w: %w", dcs.ErrBroken, err)
	case err != nil:
		return kv.Result{}, never, err
	}
	switch {
	case answer.Class == wireUnavailable:
		return kv.Result{}, never, fmt.Errorf("%s: %s", addr, answer.Error)
	case answer.Class == wireBroken:
		return kv.Result{}, never, fmt.Errorf("%w: %s: %s", dcs.ErrBroken, addr, answer.Error)
	case answer.Class != "":
		return kv.Result{}, perhaps, fmt.Errorf("%s: %s", addr, answer.Error)
	case answer.Result == nil:
		return kv.Result{}, perhaps, fmt.Errorf("%s: %w", addr, errNoResult)
	}
	return *answer.Result, never, nil
}

const (
	retryFirst = 10 * time.Millisecond
	retryMax   = 200 * time.Millisecond
)

// retry repeats try until it answers, the command may not be repeated, ctx ends, or
// life does. Between tries it waits for news, or a little longer each time.
func retry(ctx, life context.Context, c kv.Command, news *signal,
	try func(context.Context, kv.Command) (kv.Result, fate, error),
) (kv.Result, fate, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	known := never
	last := ctx.Err()
	for backoff := retryFirst; ctx.Err() == nil; backoff = min(2*backoff, retryMax) {
		changed := news.wait()
		result, fate, err := try(ctx, c)
		if err == nil {
			return result, never, nil
		}
		last = err
		if fate == perhaps {
			known = perhaps
		}
		if (known == perhaps && !c.Repeatable()) || (known == never && errors.Is(err, dcs.ErrBroken)) {
			break
		}
		timer := time.NewTimer(backoff)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
	if last == nil {
		last = context.Canceled // life ended before the first try
	}
	return kv.Result{}, known, last
}

// classed turns what became of a command into the contract's errors.
func classed(c kv.Command) func(kv.Result, fate, error) (kv.Result, error) {
	return func(r kv.Result, f fate, err error) (kv.Result, error) {
		switch {
		case err == nil:
			return r, resultError(c, r)
		case f == perhaps && c.Op != kv.OpRead: // a read that may have happened is a read that didn't
			// Exactly one class: whatever the last error was is only text here.
			return r, fmt.Errorf("%s: %w: %v", c.Op, dcs.ErrUnknown, err)
		case errors.Is(err, dcs.ErrBroken):
			return r, fmt.Errorf("%s: %w", c.Op, err)
		default:
			return r, fmt.Errorf("%s: %w: %w", c.Op, dcs.ErrUnavailable, err)
		}
	}
}

// resultError is the error that a result of the machine stands for.
func resultError(c kv.Command, r kv.Result) error {
	switch r.Class {
	case kv.OK:
		return nil
	case kv.Refused:
		return fmt.Errorf("%s: %w: %s", c.Op, dcs.ErrRefused, r.Why)
	default:
		return fmt.Errorf("%s: %w: %s", c.Op, dcs.ErrBroken, r.Why)
	}
}

// onNewLeader runs f once raft's leader is another than id, until stopped.
func (s *Store) onNewLeader(id raft.ServerID, f func()) (stop func()) {
	s.watchLeader.Lock()
	defer s.watchLeader.Unlock()
	s.leaderTicket++
	ticket := s.leaderTicket
	s.leaderWaits[ticket] = leaderWait{id: id, f: f}
	return func() {
		s.watchLeader.Lock()
		defer s.watchLeader.Unlock()
		delete(s.leaderWaits, ticket)
	}
}

type leaderWait struct {
	id raft.ServerID
	f  func()
}

// leaderIs is called when raft's leader changes.
func (s *Store) leaderIs(id raft.ServerID) {
	s.watchLeader.Lock()
	defer s.watchLeader.Unlock()
	for _, w := range s.leaderWaits {
		if id != "" && w.id != id {
			w.f()
		}
	}
}

// noteQuorum remembers that an entry proposed at asked was committed: the content
// held everything committed then.
func (s *Store) noteQuorum(asked events.Instant) {
	for {
		old := s.quorumAt.Load()
		if int64(asked) <= old || s.quorumAt.CompareAndSwap(old, int64(asked)) {
			return
		}
	}
}
