package dcstest

import (
	"context"
	"fmt"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// expiry: a lease that nobody renews ends by itself, with all its keys at once, not
// before its TTL counted from the start of the call, and at most Slack after its end.
// Nothing but a renewal keeps it: the store is used all the time.
func (s *suite) expiry() {
	for i := range s.Stores {
		watcher := s.watch(s.ctx, s.store(i+1))
		began := time.Now()
		lease := s.grant(s.store(i), fmt.Sprintf("%s-%d", s.key("lease"), i), s.TTL)
		granted := time.Now()
		if lease.TTL < s.TTL {
			s.Errorf("asked for %v, granted %v", s.TTL, lease.TTL)
		}
		// A watch may begin with a view from before the former round's keys were gone.
		mine := fmt.Sprint("round ", i)
		s.put(s.store(i), "leader", mine, lease.ID)
		s.put(s.store(i), "member", mine, lease.ID)
		s.await(watcher, "both keys", func(v dcs.View) bool {
			return valueIn(v, s.key("leader")) == mine && valueIn(v, s.key("member")) == mine
		})
		s.await(watcher, "the end of the lease", func(v dcs.View) bool {
			leader, member := valueIn(v, s.key("leader")), valueIn(v, s.key("member"))
			if leader != member {
				s.Errorf("the keys of one lease don't end together: %s, %s", leader, member)
			}
			return leader == "-"
		})
		if lived := time.Since(began); lived < lease.TTL {
			s.Errorf("client %d: a lease of %v ended after %v", i, lease.TTL, lived)
		}
		if lived := time.Since(granted); lived > lease.TTL+s.Slack {
			s.Errorf("client %d: a lease of %v lived for %v", i, lease.TTL, lived)
		}
		_, err := retry(s, func() (dcs.Lease, error) { return s.store(i).Renew(s.ctx, lease.ID) })
		s.mustBe(err, dcs.ErrRefused, "renewing a lease that ended")
	}
}

func (s *suite) renew() {
	want := fmt.Sprint([]string{s.key("a"), s.key("b")})
	for attempt := range 5 {
		lease := s.grant(s.store(0), fmt.Sprintf("%s-%d", s.key("lease"), attempt), s.TTL)
		s.put(s.store(0), "b", "1", lease.ID)
		s.put(s.store(0), "a", "1", lease.ID)
		if !s.keepAlive(lease.ID, want) {
			continue // this machine paused for longer than the TTL
		}
		if s.value(s.store(1), "a") != "1" {
			s.Error("a renewed lease lost its keys")
		}
		if err := s.store(1).Revoke(s.ctx, lease.ID); err != nil {
			s.Error(err)
		}
		return
	}
	s.Fatalf("five times this machine was too busy to renew a lease of %v in time", s.TTL)
}

// keepAlive renews for three TTLs, through every client in turn. It gives up when the
// lease was lost after a pause that is longer than the TTL.
func (s *suite) keepAlive(id events.LeaseID, keys string) bool {
	last := time.Now()
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
		if fmt.Sprint(l.Keys) != keys || l.TTL < s.TTL || l.ID != id {
			s.Fatalf("renewal: %+v, want keys %v", l, keys)
		}
		s.wait(s.TTL / 5)
	}
	return true
}

// wait lets real time pass; leases are about nothing else.
func (s *suite) wait(d time.Duration) {
	ctx, cancel := context.WithTimeout(s.ctx, d)
	defer cancel()
	<-ctx.Done()
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
