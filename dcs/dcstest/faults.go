package dcstest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// short is the deadline of calls that are expected to get no answer.
const short = 250 * time.Millisecond

func (s *suite) leaderKilled() {
	s.put(s.store(0), "before", "1", "")
	s.insist(s.store(0), "k", "0")
	leader := s.leader()
	in, out := s.sides(leader)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	watches := make([]<-chan dcs.View, len(out))
	conditions := make([]func(dcs.View) bool, len(out))
	for i, store := range out {
		watches[i], conditions[i] = s.watch(ctx, store), s.is("k", "1")
	}
	heal := s.inflict(KillServer, leader)
	defer heal()
	began := time.Now()
	s.insist(out[0], "k", "1")
	took := time.Since(began)
	if took > s.Failover {
		s.Errorf("writable again %v after the leader was killed, the bound is %v", took, s.Failover)
	}
	for i, w := range watches {
		s.await(w, "what was written after the leader was killed", conditions[i])
		if s.value(out[i], "before") != "1" || s.value(out[i], "k") != "1" {
			s.Error("a write that was acknowledged is lost")
		}
	}
	heal()
	s.recovered("k", "1")
	s.note = fmt.Sprintf("writable again after %v (bound %v); %d clients outlived it, %d went with it",
		took.Round(time.Millisecond), s.Failover, len(out), len(in))
}

// leasesOutliveLeaders: one lease is left alone, another renewed as often as it goes,
// while the leader is killed. Whatever view anyone gets, it holds the keys for as
// long as the holder's arithmetic says (safety rule S6).
func (s *suite) leasesOutliveLeaders() {
	// What a leader knew of the time may get lost with it. The longer it was in office the
	// more that is, and here it has to be more than the bound.
	s.wait(s.LateAfterFault + s.TTL)
	leader := s.leader()
	_, out := s.sides(leader)
	ttl := 3 * s.TTL
	left := s.hold(out[0], "left", ttl)
	kept := s.hold(out[len(out)-1], "kept", ttl)
	began := time.Now()
	s.wait(ttl / 4)
	heal := s.inflict(KillServer, leader)
	defer heal()
	var back time.Time // when a majority answered again
	for i := 0; ; i++ {
		if back.IsZero() || time.Until(kept.until) < 2*ttl/3 {
			s.keep(kept)
		}
		var v dcs.View
		err := s.within(s.Failover/4, func(ctx context.Context) (err error) {
			v, err = out[i%len(out)].View(ctx, dcs.Linearizable)
			return err
		})
		if err == nil && time.Since(began) > ttl/4 && back.IsZero() {
			back = time.Now()
		}
		if err == nil {
			left.seenIn(s, v)
			kept.seenIn(s, v)
		}
		due := left.until
		if back.After(due) {
			due = back
		}
		if left.gone {
			s.note = fmt.Sprintf("a lease was seen to end %v after its TTL (bound %v)",
				time.Since(left.until).Round(time.Millisecond), s.LateAfterFault)
			break
		}
		if !back.IsZero() && time.Since(due) > s.LateAfterFault {
			s.Errorf("a lease of %v still lives %v after its TTL", ttl, time.Since(left.until))
			break
		}
		if time.Since(began) > s.Patience+ttl {
			s.Fatalf("no majority within %v", s.Patience)
		}
		s.wait(s.TTL / 40)
	}
	heal()
	s.insist(s.store(0), "after", "1")
	s.recovered("after", "1")
}

// holding is a lease with one key, and until when its holder may believe in it.
type holding struct {
	id    events.LeaseID
	store dcs.Store
	key   string
	ttl   time.Duration
	until time.Time
	gone  bool
}

// hold grants a lease and puts a key under it.
func (s *suite) hold(store dcs.Store, key string, ttl time.Duration) *holding {
	s.Helper()
	l, sent, _ := s.leased(store, "lease-"+key, ttl, key)
	return &holding{store: store, key: s.key(key), id: l.ID, ttl: l.TTL, until: sent.Add(l.TTL)}
}

// keep renews. A refusal before the belief has ended is a broken promise.
func (s *suite) keep(h *holding) {
	sent := time.Now()
	err := s.within(short, func(ctx context.Context) error {
		_, err := h.store.Renew(ctx, h.id)
		return err
	})
	switch {
	case err == nil && h.gone:
		s.Errorf("a lease was renewed after its key had been seen to be gone")
	case err == nil:
		h.until = sent.Add(h.ttl)
	case errors.Is(err, dcs.ErrRefused) && time.Now().Before(h.until):
		s.Errorf("a renewal was refused %v before the end of the holder's belief", time.Until(h.until))
	}
}

// seenIn looks for the key in a view that has just arrived.
func (h *holding) seenIn(s *suite, v dcs.View) {
	kv, ok := v.Get(h.key)
	switch {
	case (!ok || kv.Lease != h.id) && time.Now().Before(h.until):
		s.Errorf("%s is gone %v before the end of its holder's belief", h.key, time.Until(h.until))
		h.gone = true
	case !ok:
		h.gone = true
	case h.gone:
		s.Errorf("%s came back after it was gone", h.key)
	}
}

// minority: first the leader is cut off, then one that isn't. Those inside get no answer or
// a true one; those outside go on; afterwards all see the same.
func (s *suite) minority() {
	for round := range 2 {
		victim := s.leader()
		if round == 1 {
			victim = (victim + 1) % s.Faults.Servers()
		}
		old, fresh := fmt.Sprint(round, "-old"), fmt.Sprint(round, "-new")
		s.insist(s.store(0), "k", old)
		s.recovered("k", old)
		in, out := s.sides(victim)
		ctx, cancel := context.WithCancel(s.ctx)
		watches := make([]<-chan dcs.View, len(in))
		conditions := make([]func(dcs.View) bool, len(in))
		for i, store := range in {
			watches[i], conditions[i] = s.watch(ctx, store), s.is("k", fresh)
		}
		heal := s.inflict(IsolateServer, victim)
		began := time.Now()
		s.insist(out[0], "k", fresh)
		if took := time.Since(began); took > s.Failover {
			s.Errorf("writable again after %v, the bound is %v", took, s.Failover)
		}
		written := time.Now()
		held := s.hold(out[0], fmt.Sprint("held-", round), 20*s.TTL)
		s.showsNothingStale(in, old, fresh, held.id, written)
		heal()
		for i, w := range watches {
			s.await(w, "what was written while this client was cut off", conditions[i])
		}
		s.recovered("k", fresh)
		if err := s.commitRevoke(held.id); err != nil {
			s.Errorf("revoke: %v", err)
		}
		cancel()
		s.note = fmt.Sprintf("%d clients were cut off, %d were not", len(in), len(out))
	}
}

func (s *suite) commitRevoke(id events.LeaseID) error {
	_, err := retry(s, func() (struct{}, error) { return struct{}{}, s.store(0).Revoke(s.ctx, id) })
	return err
}

// showsNothingStale asks clients that are cut off, while a key has become fresh elsewhere.
func (s *suite) showsNothingStale(in []dcs.Store, old, fresh string, held events.LeaseID, written time.Time) {
	s.Helper()
	for i, store := range in {
		ctx, cancel := context.WithTimeout(s.ctx, short)
		if v, err := store.View(ctx, dcs.Linearizable); err == nil && valueIn(v, s.key("k")) != fresh {
			s.Errorf("client %d, cut off, reads %s, which has long been %s", i, valueIn(v, s.key("k")), fresh)
		}
		cancel()
		s.wait(time.Until(written.Add(s.Transit + short)))
		began := time.Now()
		local, err := store.View(s.ctx, dcs.Local)
		if err == nil && valueIn(local, s.key("k")) != fresh && local.Age >= 0 && began.Add(-local.Age-s.Transit).After(written) {
			s.Errorf("client %d, cut off: a local view claims to be %v old and lacks what was written %v ago",
				i, local.Age, began.Sub(written))
		}
		err = s.within(short, func(ctx context.Context) error {
			_, err := store.Commit(ctx, dcs.Txn{
				Guards: []dcs.Guard{dcs.ValueIs(s.key("k"), old)},
				Writes: []dcs.Write{dcs.Put(s.key("k"), []byte("from the minority"))},
			})
			return err
		})
		if err == nil {
			s.Errorf("client %d, cut off, swapped a value that was no longer there", i)
		}
		err = s.within(short, func(ctx context.Context) error {
			_, err := store.Renew(ctx, held)
			return err
		})
		if errors.Is(err, dcs.ErrRefused) {
			s.Errorf("client %d, cut off, was refused a lease that it can't know of: %v", i, err)
		}
	}
}

// noMajority: all servers but one are cut off, for longer than a lease.
func (s *suite) noMajority() {
	s.insist(s.store(0), "k", "old")
	s.recovered("k", "old")
	held := s.hold(s.store(0), "held", 2*s.TTL)
	var heals []func()
	for server := range s.Faults.Servers() - 1 {
		heals = append(heals, s.inflict(IsolateServer, server))
		defer heals[server]()
	}
	var wg sync.WaitGroup
	for i, store := range s.Stores {
		wg.Go(func() { s.claimsNothing(i, store, held.id) })
	}
	wg.Wait()
	s.wait(time.Until(held.until))
	for _, heal := range heals {
		heal()
	}
	healed := time.Now()
	s.insist(s.store(0), "after", "1")
	s.recovered("after", "1")
	if v := s.value(s.store(0), "k"); v != "old" && v != "perhaps" {
		s.Errorf("k is %s", v)
	}
	for !held.gone {
		v := s.view(s.store(0))
		held.seenIn(s, v)
		if since := time.Since(healed); !held.gone && since > s.LateAfterFault+s.Failover {
			s.Fatalf("a lease that ended in the dark still lives, %v after there was a majority again", since)
		}
		s.wait(s.TTL / 40)
	}
}

// claimsNothing: without a majority no call succeeds, and none is answered "no".
func (s *suite) claimsNothing(i int, store dcs.Store, held events.LeaseID) {
	write := dcs.Txn{
		Guards: []dcs.Guard{dcs.ValueIs(s.key("k"), "old")},
		Writes: []dcs.Write{dcs.Put(s.key("k"), []byte("perhaps"))},
	}
	calls := map[string]func(ctx context.Context) error{
		"commit": func(ctx context.Context) error { _, err := store.Commit(ctx, write); return err },
		"view":   func(ctx context.Context) error { _, err := store.View(ctx, dcs.Linearizable); return err },
		"grant":  func(ctx context.Context) error { _, err := store.Grant(ctx, "", s.TTL); return err },
		"renew":  func(ctx context.Context) error { _, err := store.Renew(ctx, held); return err },
		"revoke": func(ctx context.Context) error { return store.Revoke(ctx, "nobody's") },
	}
	for name, call := range calls {
		err := s.within(short, call)
		if class := dcs.ClassOf(err); err == nil || (class != events.Unavailable && class != events.Unknown) {
			s.Errorf("client %d, without a majority: %s: %v", i, name, err)
		}
	}
}

// thawed: the leader stands still for longer than a lease. What its clients asked for
// meanwhile is waiting for it when it wakes up; it must know, or say nothing (S24).
func (s *suite) thawed() {
	s.insist(s.store(0), "k", "old")
	s.recovered("k", "old")
	leader := s.leader()
	in, out := s.sides(leader)
	if len(in) == 0 {
		in = out
	}
	held := s.hold(in[0], "held", 2*s.TTL)
	heal := s.inflict(PauseServer, leader)
	defer heal()
	s.insist(out[0], "k", "new")
	var answers sync.WaitGroup
	for i, store := range in {
		answers.Go(func() { s.oldClaims(i, store, held.id) })
	}
	for end := time.Now().Add(s.Patience); !held.gone; s.wait(s.TTL / 20) {
		v, err := retry(s, func() (dcs.View, error) { return out[0].View(s.ctx, dcs.Linearizable) })
		if err == nil {
			held.seenIn(s, v)
		}
		if time.Now().After(end) {
			s.Fatal("the lease of whom nobody can renew never ends")
		}
	}
	err := s.within(s.Failover, func(ctx context.Context) error {
		_, err := out[0].Commit(ctx, dcs.Txn{
			Guards: []dcs.Guard{{Key: s.key("held"), Absent: true}},
			Writes: []dcs.Write{dcs.Put(s.key("held"), []byte("taken over"))},
		})
		return err
	})
	if err != nil {
		s.Errorf("taking over: %v", err)
	}
	heal()
	answers.Wait()
	s.recovered("held", "taken over")
	s.recovered("k", "new")
}

// oldClaims asks what was right before the leader stood still, with time enough to get
// the answer of the thawed one.
func (s *suite) oldClaims(i int, store dcs.Store, held events.LeaseID) {
	var asked sync.WaitGroup
	long := 2*s.TTL + s.LateAfterFault + 2*s.Failover
	asked.Go(func() {
		_ = s.within(long, func(ctx context.Context) error {
			v, err := store.View(ctx, dcs.Linearizable)
			if err == nil && valueIn(v, s.key("k")) != "new" {
				s.Errorf("client %d reads %s from the thawed server", i, valueIn(v, s.key("k")))
			}
			return err
		})
	})
	asked.Go(func() {
		err := s.within(long, func(ctx context.Context) error {
			_, err := store.Commit(ctx, dcs.Txn{
				Guards: []dcs.Guard{dcs.ValueIs(s.key("k"), "old")},
				Writes: []dcs.Write{dcs.Put(s.key("k"), []byte("thawed"))},
			})
			return err
		})
		if err == nil {
			s.Errorf("client %d swapped a value that was no longer there", i)
		}
	})
	asked.Wait()
}
