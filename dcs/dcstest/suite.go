package dcstest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// Env is a backend under test: one store, reached in several ways.
type Env struct {
	// Stores are two or more clients of one store, of every kind there is. They stay
	// open for the whole suite; the factory closes them.
	Stores []dcs.Store
	// Open makes one more client, which the suite closes.
	Open func(t *testing.T) dcs.Store
	// TTL is the shortest lease that the backend grants reliably.
	TTL time.Duration
	// Slack is how much later than its TTL a lease may end.
	Slack time.Duration
	// ChosenIDs says that Grant takes the caller's id.
	ChosenIDs bool
}

// patience bounds every wait for something that must happen.
const patience = 20 * time.Second

// Run runs the suite on the store that newEnv makes. The sentences are tested side
// by side, each on keys of its own.
func Run(t *testing.T, newEnv func(t *testing.T) Env) {
	env := newEnv(t)
	tests := []struct {
		name string
		run  func(*suite)
	}{
		{"view: linearizable reads see every write completed before", (*suite).linearizableView},
		{"view: local reads say how old they are", (*suite).localView},
		{"view: keys are sorted, values are whole", (*suite).wholeView},
		{"watch: a whole view at once, then one after every change", (*suite).watchChanges},
		{"watch: a slow reader misses intermediate views, never the latest", (*suite).watchSlowly},
		{"watch: revisions never go backwards", (*suite).watchForwards},
		{"watch: ends with its context", (*suite).watchEnds},
		{"commit: each guard", (*suite).guards},
		{"commit: all writes at one revision, or nothing", (*suite).allOrNothing},
		{"commit: created and version", (*suite).versions},
		{"commit: deleting an absent key is no error", (*suite).deleteAbsent},
		{"commit: what can't be done is broken", (*suite).invalid},
		{"commit: one of many wins", (*suite).oneWinner},
		{"commit: no increment is lost", (*suite).counter},
		{"lease: ends on time, not before", (*suite).expiry},
		{"lease: renewing keeps it, and lists its keys", (*suite).renew},
		{"lease: a write with a lease that is gone is refused", (*suite).leaseGone},
		{"lease: attaching and detaching", (*suite).attach},
		{"lease: revoking deletes its keys at once", (*suite).revoke},
		{"lease: ids", (*suite).ids},
		{"calls obey their context", (*suite).contexts},
		{"close: leases and keys stay, calls fail", (*suite).closing},
		{"history: linearizable", (*suite).history},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			tc.run(&suite{T: t, Env: env, ctx: ctx, prefix: prefixOf(tc.name)})
		})
	}
}

// suite is one running sentence.
type suite struct {
	*testing.T
	Env
	ctx    context.Context
	prefix string
}

func prefixOf(name string) string {
	return "conformance/" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return '-'
	}, name)
}

func (s *suite) key(name string) string { return s.prefix + "/" + name }

func (s *suite) store(i int) dcs.Store { return s.Stores[i%len(s.Stores)] }

// retry repeats a call that the store says didn't happen. Every other answer is the caller's.
func retry[T any](s *suite, call func() (T, error)) (T, error) {
	for {
		out, err := call()
		if !errors.Is(err, dcs.ErrUnavailable) || s.ctx.Err() != nil {
			return out, err
		}
	}
}

func (s *suite) commit(store dcs.Store, t dcs.Txn) (events.Revision, error) {
	return retry(s, func() (events.Revision, error) { return store.Commit(s.ctx, t) })
}

func (s *suite) put(store dcs.Store, key, value string, lease events.LeaseID) events.Revision {
	s.Helper()
	rev, err := s.commit(store, dcs.Txn{Writes: []dcs.Write{{Key: s.key(key), Value: []byte(value), Lease: lease}}})
	if err != nil {
		s.Fatalf("put %s: %v", key, err)
	}
	return rev
}

func (s *suite) view(store dcs.Store) dcs.View {
	s.Helper()
	v, err := retry(s, func() (dcs.View, error) { return store.View(s.ctx, dcs.Linearizable) })
	if err != nil {
		s.Fatalf("view: %v", err)
	}
	return v
}

// value reads a key linearizably; "-" when there is none.
func (s *suite) value(store dcs.Store, key string) string {
	s.Helper()
	return valueIn(s.view(store), s.key(key))
}

func valueIn(v dcs.View, key string) string {
	kv, ok := v.Get(key)
	if !ok {
		return "-"
	}
	return string(kv.Value)
}

func (s *suite) grant(store dcs.Store, id string, ttl time.Duration) dcs.Lease {
	s.Helper()
	l, err := retry(s, func() (dcs.Lease, error) { return store.Grant(s.ctx, events.LeaseID(id), ttl) })
	if err != nil {
		s.Fatalf("grant: %v", err)
	}
	return l
}

func (s *suite) mustBe(err error, class error, what string) {
	s.Helper()
	if !errors.Is(err, class) {
		s.Fatalf("%s: got %v, want %v", what, err, class)
	}
}

// await reads views from a watch until one satisfies, and fails when none does.
func (s *suite) await(watch <-chan dcs.View, what string, satisfies func(dcs.View) bool) dcs.View {
	s.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case v, ok := <-watch:
			if !ok {
				s.Fatalf("the watch ended while waiting for %s", what)
			}
			if satisfies(v) {
				return v
			}
		case <-timer.C:
			s.Fatalf("no view with %s within %v", what, patience)
		}
	}
}

func (s *suite) watch(ctx context.Context, store dcs.Store) <-chan dcs.View {
	s.Helper()
	w, err := store.Watch(ctx)
	if err != nil {
		s.Fatalf("watch: %v", err)
	}
	return w
}
