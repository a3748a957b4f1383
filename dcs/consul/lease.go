package consul

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

const (
	// lockDelay is how long a key can't be locked after its session ended by itself. Patroni's:
	// Consul's own 15 s would only delay a fail-over.
	lockDelay = time.Millisecond
	// The ttls that Consul takes, unless its servers are set otherwise.
	shortestTTL = 10 * time.Second
	longestTTL  = 24 * time.Hour
)

// Grant implements dcs.Store: a session of half the ttl, whose id is the server's choice. The
// lease's TTL is what was registered, and at least what Consul takes.
func (s *Store) Grant(ctx context.Context, _ events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
	if ttl <= 0 {
		return dcs.Lease{}, fmt.Errorf("grant a lease of %v: %w: no time", ttl, dcs.ErrBroken)
	}
	half := min(ttl/2, longestTTL)
	id, registered, err := s.create(ctx, max(half, time.Duration(s.shortest.Load())))
	if least, tooShort := leastTTL(err); tooShort && half < least {
		s.shortest.Store(int64(least))
		id, registered, err = s.create(ctx, least)
	}
	if err != nil {
		return dcs.Lease{}, classify("grant", writes, err)
	}
	s.granted.Store(int64(registered))
	return dcs.Lease{ID: events.LeaseID(id), TTL: registered}, nil
}

// create registers a session and returns the ttl that it asked for.
func (s *Store) create(ctx context.Context, ttl time.Duration) (string, time.Duration, error) {
	if err := s.alive(ctx, "grant"); err != nil {
		return "", 0, err
	}
	ctx, cancel := s.call(ctx)
	defer cancel()
	ttl = ttl.Truncate(time.Millisecond)
	entry := &api.SessionEntry{
		Name: s.cfg.Scope + "-" + string(s.cfg.Name), TTL: ttl.String(),
		Behavior: api.SessionBehaviorDelete, LockDelay: lockDelay, NodeChecks: s.cfg.Checks,
	}
	create := s.client.Session().Create
	if len(s.cfg.Checks) == 0 {
		// Left out, Consul adds its own check of the node, and a node that restarts its
		// agent would lose its lease.
		create = s.client.Session().CreateNoChecks
	}
	id, _, err := create(entry, s.change(ctx))
	if err == nil && id == "" {
		err = errors.New("the answer holds no session")
	}
	return id, ttl, err
}

var ttlRange = regexp.MustCompile(`must be between \[([^=\]]+)=`)

// leastTTL reads from an error which ttl would have been long enough.
func leastTTL(err error) (time.Duration, bool) {
	var answer *answerError
	if !errors.As(err, &answer) || !contains(answer.text, "Invalid Session TTL") {
		return 0, false
	}
	if m := ttlRange.FindStringSubmatch(answer.text); m != nil {
		if d, err := time.ParseDuration(m[1]); err == nil {
			return d, true
		}
	}
	return shortestTTL, true
}

// Renew implements dcs.Store, in three steps, and all of them count. The barrier comes first:
// an agent that was frozen, or cut off, together with an old leader learns from it who leads.
// So the renewal reaches the one whose clock ends sessions, or one that was deposed after this
// call began, whose successor then waits for twice the ttl from its own beginning. Last it reads
// which keys the session holds (safety rules S8, S24).
func (s *Store) Renew(ctx context.Context, id events.LeaseID) (dcs.Lease, error) {
	for {
		if err := s.barrier(ctx, "renew"); err != nil {
			return dcs.Lease{}, err
		}
		ttl, known, err := s.extend(ctx, id)
		if err != nil {
			return dcs.Lease{}, err
		}
		if known {
			return s.held(ctx, id, ttl)
		}
		// A leader in its first moments may not know it yet; only a consistent answer refuses.
		alive, err := s.lives(ctx, id)
		if err != nil {
			return dcs.Lease{}, err
		}
		if !alive {
			return dcs.Lease{}, fmt.Errorf("renew %s: %w: there is no such session", id, dcs.ErrRefused)
		}
		rest(ctx, firstPause)
	}
}

// held is a lease that was just renewed, with its keys.
func (s *Store) held(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
	v, err := s.read(ctx, "renew")
	if err != nil {
		return dcs.Lease{}, unknown(err)
	}
	l := dcs.Lease{ID: id, TTL: ttl}
	for _, kv := range v.KVs {
		if kv.Lease == id {
			l.Keys = append(l.Keys, kv.Key)
		}
	}
	return l, nil
}

// lives reports whether there is a session, by a consistent read. It follows a barrier.
func (s *Store) lives(ctx context.Context, id events.LeaseID) (bool, error) {
	if !isSession(id) {
		return false, nil // nobody can have granted it
	}
	if err := s.alive(ctx, "session"); err != nil {
		return false, err
	}
	ctx, cancel := s.call(ctx)
	defer cancel()
	entry, _, err := s.client.Session().Info(string(id), s.consistent(ctx))
	if err != nil {
		return false, classify("session", reads, err)
	}
	return entry != nil, nil
}

// extend renews a session and returns its registered ttl; known is false when the server
// says that there is none.
func (s *Store) extend(ctx context.Context, id events.LeaseID) (ttl time.Duration, known bool, err error) {
	if !isSession(id) {
		return 0, false, nil
	}
	if err := s.alive(ctx, "renew"); err != nil {
		return 0, false, err
	}
	ctx, cancel := s.call(ctx)
	defer cancel()
	entry, _, err := s.client.Session().Renew(string(id), s.change(ctx))
	if err != nil {
		return 0, false, classify("renew", writes, err)
	}
	if entry == nil {
		return 0, false, nil
	}
	if entry.TTL == "" { // a session without end isn't ours, but ends not before any ttl
		return math.MaxInt64 / 4, true, nil
	}
	if ttl, err = time.ParseDuration(entry.TTL); err != nil {
		return 0, false, fmt.Errorf("renew: %w: ttl of the session: %w", dcs.ErrUnknown, err)
	}
	return ttl, true, nil
}

// unknown turns the failure of what follows a change into the outcome of both.
func unknown(err error) error {
	if errors.Is(err, dcs.ErrUnknown) || errors.Is(err, dcs.ErrBroken) {
		return err
	}
	return fmt.Errorf("%w: what followed failed: %w", dcs.ErrUnknown, untyped{err})
}

// untyped hides the class of an error.
type untyped struct{ err error }

func (u untyped) Error() string { return u.err.Error() }

// Revoke implements dcs.Store. A server that takes itself for the leader and doesn't know the
// session says that it is gone, so that a barrier and a consistent read have the last word.
func (s *Store) Revoke(ctx context.Context, id events.LeaseID) error {
	if !isSession(id) {
		return s.barrier(ctx, "revoke") // nobody can have granted it, if the store says anything
	}
	for again := false; ; again = true {
		if err := s.destroy(ctx, id); err != nil && again {
			return unknown(err) // the former try may still take effect
		} else if err != nil {
			return err
		}
		err := s.barrier(ctx, "revoke")
		alive := false
		if err == nil {
			alive, err = s.lives(ctx, id)
		}
		switch {
		case err != nil:
			return unknown(err)
		case !alive:
			return nil
		}
		rest(ctx, firstPause)
	}
}

func (s *Store) destroy(ctx context.Context, id events.LeaseID) error {
	if err := s.alive(ctx, "revoke"); err != nil {
		return err
	}
	ctx, cancel := s.call(ctx)
	defer cancel()
	_, err := s.client.Session().Destroy(string(id), s.change(ctx))
	return classify("revoke", writes, err)
}
