package dcstest

import (
	"context"
	"errors"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// retry repeats a call that the store says didn't happen. Every other answer is the caller's.
func retry[T any](s *suite, call func() (T, error)) (T, error) {
	for {
		out, err := call()
		if !errors.Is(err, dcs.ErrUnavailable) || s.ctx.Err() != nil {
			return out, err
		}
		s.wait(time.Millisecond)
	}
}

func (s *suite) commit(store dcs.Store, t dcs.Txn) (events.Revision, error) {
	return retry(s, func() (events.Revision, error) { return store.Commit(s.ctx, t) })
}

// repeat commits what may as well happen twice, until its outcome is known: on a busy machine
// leaders come and go.
func (s *suite) repeat(store dcs.Store, t dcs.Txn) (events.Revision, error) {
	for {
		rev, err := s.commit(store, t)
		if !errors.Is(err, dcs.ErrUnknown) || s.ctx.Err() != nil {
			return rev, err
		}
	}
}

func (s *suite) put(store dcs.Store, key, value string, lease events.LeaseID) events.Revision {
	s.Helper()
	rev, err := s.repeat(store, dcs.Txn{Writes: []dcs.Write{{Key: s.key(key), Value: []byte(value), Lease: lease}}})
	if err != nil {
		s.Fatalf("put %s: %v", key, err)
	}
	return rev
}

// insist puts a key in a store that suffers: in tries of their own, until one says that
// it happened. Twice is as good as once. It returns when the last try began.
func (s *suite) insist(store dcs.Store, key, value string) (began time.Time) {
	s.Helper()
	txn := dcs.Txn{Writes: []dcs.Write{dcs.Put(s.key(key), []byte(value))}}
	var err error
	for end := time.Now().Add(s.Patience); time.Now().Before(end); s.wait(5 * time.Millisecond) {
		began = time.Now()
		err = s.within(s.Failover/4, func(ctx context.Context) error {
			_, err := store.Commit(ctx, txn)
			return err
		})
		if err == nil {
			return began
		}
		if errors.Is(err, dcs.ErrRefused) || errors.Is(err, dcs.ErrBroken) {
			break
		}
	}
	s.Fatalf("put %s: %v", key, err)
	return began
}

// within makes a call under a deadline of its own.
func (s *suite) within(d time.Duration, call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, d)
	defer cancel()
	return call(ctx)
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
	timer := time.NewTimer(s.Patience)
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
			s.Fatalf("no view with %s within %v", what, s.Patience)
		}
	}
}

// ends waits for a watch to close its channel.
func (s *suite) ends(watch <-chan dcs.View, after string) {
	s.Helper()
	timer := time.NewTimer(s.Patience)
	defer timer.Stop()
	for {
		select {
		case _, open := <-watch:
			if !open {
				return
			}
		case <-timer.C:
			s.Fatalf("the watch goes on after %s", after)
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

// wait lets real time pass; leases are about nothing else.
func (s *suite) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.ctx.Done():
	case <-timer.C:
	}
}

// inflict makes a fault happen. Its heal may be called again, and is, at the end.
func (s *suite) inflict(k Kind, target int) (heal func()) {
	s.Helper()
	undo, err := s.Faults.Inflict(k, target)
	if err != nil {
		s.Fatalf("%s %d: %v", k, target, err)
	}
	healed := false
	return func() {
		if healed {
			return
		}
		healed = true
		if err := undo(); err != nil {
			s.Errorf("heal %s %d: %v", k, target, err)
		}
	}
}

func (s *suite) leader() int {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, s.Patience)
	defer cancel()
	leader, err := s.Faults.Leader(ctx)
	if err != nil {
		s.Fatalf("leader: %v", err)
	}
	return leader
}

// sides tells the clients that depend on one of the servers from those that don't.
func (s *suite) sides(servers ...int) (in, out []dcs.Store) {
	for i, store := range s.Stores {
		inside := false
		for _, server := range servers {
			inside = inside || s.Homes[i] == server
		}
		if inside {
			in = append(in, store)
		} else {
			out = append(out, store)
		}
	}
	if len(out) == 0 {
		s.Fatalf("every client depends on servers %v", servers)
	}
	return in, out
}

// recovered waits until every client reads this value of a key.
func (s *suite) recovered(key, want string) {
	s.Helper()
	for i, store := range s.Stores {
		var got string
		var err error
		for end := time.Now().Add(s.Patience); time.Now().Before(end); s.wait(5 * time.Millisecond) {
			err = s.within(s.Failover/4, func(ctx context.Context) error {
				v, err := store.View(ctx, dcs.Linearizable)
				got = valueIn(v, s.key(key))
				return err
			})
			if err == nil {
				break
			}
		}
		if err != nil || got != want {
			s.Errorf("client %d, afterwards: %s is %s, want %s (%v)", i, key, got, want, err)
		}
	}
}
