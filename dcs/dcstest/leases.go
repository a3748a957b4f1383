package dcstest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// expiry: a lease that nobody renews ends by itself, with all its keys at once, not
// before its TTL counted from the start of the call, and at most Late after its end.
// Nothing but a renewal keeps it: the store is used all the time.
func (s *suite) expiry() {
	least, most := time.Hour, time.Duration(0)
	for i := range s.Stores {
		if s.Failed() {
			return
		}
		watcher := s.watch(s.ctx, s.store(i+1))
		// A watch may begin with a view from before the former round's keys were gone.
		mine := fmt.Sprint("round ", i)
		lease, began, granted := s.leased(s.store(i), mine, s.TTL, "leader", "member")
		written := s.view(s.store(i)).Revision
		s.await(watcher, "the end of the lease", func(v dcs.View) bool {
			leader, member := valueIn(v, s.key("leader")), valueIn(v, s.key("member"))
			if leader != member {
				s.Errorf("the keys of one lease don't end together: %s, %s", leader, member)
			}
			return leader == "-" && v.Revision >= written
		})
		if lived := time.Since(began); lived < lease.TTL {
			s.Errorf("client %d: a lease of %v ended after %v", i, lease.TTL, lived)
		}
		late := time.Since(granted) - lease.TTL
		if late > s.Late {
			s.Errorf("client %d: a lease of %v ended %v late", i, lease.TTL, late)
		}
		least, most = min(least, late), max(most, late)
		_, err := retry(s, func() (dcs.Lease, error) { return s.store(i).Renew(s.ctx, lease.ID) })
		s.mustBe(err, dcs.ErrRefused, "renewing a lease that ended")
	}
	s.note = fmt.Sprintf("a lease of %v was seen to end %v to %v after its TTL (bound %v)",
		s.TTL, least.Round(time.Millisecond), most.Round(time.Millisecond), s.Late)
}

// leased grants a lease and puts keys under it, with its name as their value. A machine
// that stood still for so long that the lease ended before it had its keys gets another
// chance. It returns when the grant was sent and when it was answered.
func (s *suite) leased(store dcs.Store, name string, ttl time.Duration, keys ...string) (l dcs.Lease, sent, granted time.Time) {
	s.Helper()
	txn := dcs.Txn{}
	for range 5 {
		var err error
		l, err = retry(s, func() (dcs.Lease, error) {
			sent = time.Now()
			return store.Grant(s.ctx, events.LeaseID(s.key(name)), ttl)
		})
		if err != nil {
			s.Fatalf("grant: %v", err)
		}
		granted = time.Now()
		if l.TTL < ttl {
			s.Errorf("asked for %v, granted %v", ttl, l.TTL)
		}
		txn.Writes = nil
		for _, key := range keys {
			txn.Writes = append(txn.Writes, dcs.Write{Key: s.key(key), Value: []byte(name), Lease: l.ID})
		}
		_, err = s.commit(store, txn)
		if err == nil {
			return l, sent, granted
		}
		if !errors.Is(err, dcs.ErrRefused) || time.Since(sent) < l.TTL {
			s.Fatalf("put under a lease of %v that was asked for %v ago: %v", l.TTL, time.Since(sent), err)
		}
	}
	s.Fatalf("five times this machine was too busy to use a lease of %v in time", ttl)
	return l, sent, granted
}

// edge: renewals around the moment when the lease ends. What is answered must be what
// happened: done, and the holder may believe for another TTL from before the call;
// refused, and the keys are gone, and not before their time.
func (s *suite) edge() {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards the two below
		kept int
		gone int
	)
	for i := range 9 {
		before := time.Duration(i-3) * s.TTL / 40 // from 0.15 TTL before its end to 0.075 after
		wg.Go(func() {
			done, err := s.renewAt(i, before)
			if err != nil {
				s.Errorf("renewing %v before the end: %v", before, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if done {
				kept++
			} else {
				gone++
			}
		})
	}
	wg.Wait()
	s.note = fmt.Sprintf("%d renewals came in time, %d too late", kept, gone)
}

// renewAt renews a lease that long before its end, and says whether it was done and what
// is wrong with the answer.
func (s *suite) renewAt(i int, before time.Duration) (done bool, err error) {
	key := s.key(fmt.Sprint("k", i))
	began := time.Now()
	lease, err := retry(s, func() (dcs.Lease, error) {
		began = time.Now()
		return s.store(i).Grant(s.ctx, events.LeaseID(fmt.Sprintf("%s-%d", s.key("lease"), i)), s.TTL)
	})
	if err != nil {
		return false, err
	}
	_, errPut := s.commit(s.store(i), dcs.Txn{Writes: []dcs.Write{{Key: key, Lease: lease.ID}}})
	s.wait(time.Until(began.Add(lease.TTL - before)))
	sent := time.Now()
	renewed, err := s.store(i+1).Renew(s.ctx, lease.ID)
	answered := time.Now()
	if err == nil { // it would have ended by now
		s.wait(time.Until(sent.Add(renewed.TTL / 2)))
	}
	if errPut != nil { // this machine was too busy; the rest of the answer still counts
		key = ""
	}
	v := s.viewOrNothing(s.store(i + 2))
	seen := time.Now()
	_, there := v.Get(key)
	switch {
	case err == nil && key != "" && v.Revision > 0 && !there && seen.Before(sent.Add(renewed.TTL)):
		return true, fmt.Errorf("it was done, and the key is gone %v later", seen.Sub(sent))
	case err == nil && key != "" && fmt.Sprint(renewed.Keys) != fmt.Sprint([]string{key}):
		return true, fmt.Errorf("it was done, with keys %v", renewed.Keys)
	case errors.Is(err, dcs.ErrRefused) && answered.Before(began.Add(lease.TTL)):
		return false, fmt.Errorf("it was refused %v after the lease was asked for", answered.Sub(began))
	case errors.Is(err, dcs.ErrRefused) && there:
		return false, fmt.Errorf("it was refused, and the key is still there")
	case errors.Is(err, dcs.ErrBroken):
		return false, err
	}
	return err == nil, nil
}

// viewOrNothing is a linearizable view, or an empty one at revision 0 if there is none.
func (s *suite) viewOrNothing(store dcs.Store) dcs.View {
	v, err := retry(s, func() (dcs.View, error) { return store.View(s.ctx, dcs.Linearizable) })
	if err != nil {
		return dcs.View{}
	}
	return v
}

func (s *suite) renew() {
	want := fmt.Sprint([]string{s.key("a"), s.key("b")})
	for attempt := range 5 {
		lease, sent, _ := s.leased(s.store(0), fmt.Sprint("lease-", attempt), s.TTL, "b", "a")
		if !s.keepAlive(lease.ID, want, sent) {
			continue // this machine paused for longer than the TTL
		}
		if err := s.store(1).Revoke(s.ctx, lease.ID); err != nil {
			s.Error(err)
		}
		return
	}
	s.Fatalf("five times this machine was too busy to renew a lease of %v in time", s.TTL)
}

// keepAlive renews for three TTLs, through every client in turn, after last. It gives up when the
// lease was lost after a pause that is longer than the TTL.
func (s *suite) keepAlive(id events.LeaseID, keys string, last time.Time) bool {
	for i, end := 0, last.Add(3*s.TTL); time.Now().Before(end); i++ {
		began := time.Now()
		l, err := retry(s, func() (dcs.Lease, error) { return s.store(i).Renew(s.ctx, id) })
		if err != nil && time.Since(last) >= s.TTL {
			return false
		}
		if err != nil {
			s.Fatalf("renewal %d: %v, %v after the last one", i, err, time.Since(last))
		}
		last = began
		_, there := s.view(s.store(i + 1)).Get(s.key("a"))
		if !there && time.Since(last) < s.TTL {
			s.Fatalf("a renewed lease lost its keys")
		}
		if fmt.Sprint(l.Keys) != keys || l.TTL < s.TTL || l.ID != id {
			s.Fatalf("renewal: %+v, want keys %v", l, keys)
		}
		s.wait(s.TTL / 5)
	}
	return true
}

func (s *suite) leaseGone() {
	lease := s.grant(s.store(0), s.key("lease"), 20*s.TTL)
	if err := s.store(1).Revoke(s.ctx, lease.ID); err != nil {
		s.Fatal(err)
	}
	for _, id := range []events.LeaseID{lease.ID, "never-granted"} {
		_, err := s.commit(s.store(0), dcs.Txn{Writes: []dcs.Write{
			dcs.Put(s.key("other"), nil), {Key: s.key("k"), Lease: id},
		}})
		s.mustBe(err, dcs.ErrRefused, "a write with a lease that is gone")
		_, err = s.store(0).Renew(s.ctx, id)
		s.mustBe(err, dcs.ErrRefused, "renewing a lease that is gone")
	}
	if s.value(s.store(1), "other") != "-" {
		s.Error("the other write of the refused transaction happened")
	}
}

func (s *suite) attach() {
	one := s.grant(s.store(0), s.key("one"), 20*s.TTL)
	two := s.grant(s.store(1), s.key("two"), 20*s.TTL)
	s.put(s.store(0), "moved", "1", one.ID)
	s.put(s.store(0), "kept", "1", one.ID)
	s.put(s.store(1), "moved", "2", two.ID)
	s.put(s.store(1), "kept", "2", "")
	kv, _ := s.view(s.store(0)).Get(s.key("moved"))
	if kv.Lease != two.ID {
		s.Errorf("the key is attached to %q, want %q", kv.Lease, two.ID)
	}
	if err := s.store(0).Revoke(s.ctx, one.ID); err != nil {
		s.Fatal(err)
	}
	if s.value(s.store(1), "moved") != "2" || s.value(s.store(1), "kept") != "2" {
		s.Error("a lease took keys with it that were no longer attached to it")
	}
	if err := s.store(0).Revoke(s.ctx, two.ID); err != nil {
		s.Fatal(err)
	}
	if s.value(s.store(1), "moved") != "-" || s.value(s.store(1), "kept") != "2" {
		s.Error("the second lease took the wrong keys")
	}
}

func (s *suite) revoke() {
	for i := range s.Stores {
		lease := s.grant(s.store(i), fmt.Sprintf("%s-%d", s.key("lease"), i), 20*s.TTL)
		s.put(s.store(i), "k", "1", lease.ID)
		for range 2 { // revoking what is gone succeeds
			if err := s.store(i+1).Revoke(s.ctx, lease.ID); err != nil {
				s.Fatal(err)
			}
		}
		if s.value(s.store(i), "k") != "-" {
			s.Error("a key outlived its lease")
		}
	}
}

func (s *suite) ids() {
	a := s.grant(s.store(0), "", 20*s.TTL)
	b := s.grant(s.store(1), "", 20*s.TTL)
	if a.ID == "" || a.ID == b.ID {
		s.Errorf("ids of two leases: %q, %q", a.ID, b.ID)
	}
	if s.ChosenIDs {
		mine := events.LeaseID(s.key("mine"))
		if l := s.grant(s.store(0), string(mine), 20*s.TTL); l.ID != mine {
			s.Errorf("asked for id %q, got %q", mine, l.ID)
		}
		_, err := retry(s, func() (dcs.Lease, error) { return s.store(1).Grant(s.ctx, mine, s.TTL) })
		s.mustBe(err, dcs.ErrRefused, "granting an id that is taken")
	}
}
