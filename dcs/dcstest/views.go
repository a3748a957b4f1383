package dcstest

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

func (s *suite) linearizableView() {
	for i := range 3 * len(s.Stores) {
		want := strconv.Itoa(i)
		rev := s.put(s.store(i), "k", want, "")
		v := s.view(s.store(i + 1))
		if got := valueIn(v, s.key("k")); got != want || v.Revision < rev {
			s.Fatalf("client %d wrote %s at %d; client %d then read %s at %d", i, want, rev, i+1, got, v.Revision)
		}
	}
}

func (s *suite) localView() {
	s.put(s.store(0), "k", "1", "")
	for i := range s.Stores {
		deadline := time.Now().Add(patience)
		for {
			v, err := s.store(i).View(s.ctx, dcs.Local)
			if err == nil && v.Age >= 0 && valueIn(v, s.key("k")) == "1" {
				break
			}
			if time.Now().After(deadline) {
				s.Fatalf("client %d: local view age %v, value %s, err %v", i, v.Age, valueIn(v, s.key("k")), err)
			}
			s.view(s.store(i)) // makes contact; also paces the loop
		}
	}
}

func (s *suite) wholeView() {
	binary := "\x00\xff\xfe\"{"
	for i, key := range []string{"b", "a/z", "c", "a/b"} {
		s.put(s.store(i), key, binary+key, "")
	}
	s.put(s.store(0), "empty", "", "")
	v := s.view(s.store(1))
	if !sort.SliceIsSorted(v.KVs, func(i, j int) bool { return v.KVs[i].Key < v.KVs[j].Key }) {
		s.Error("keys aren't sorted")
	}
	for _, key := range []string{"b", "a/z", "c", "a/b"} {
		if got := valueIn(v, s.key(key)); got != binary+key {
			s.Errorf("%s is %q", key, got)
		}
	}
	if got := valueIn(v, s.key("empty")); got != "" {
		s.Errorf("an empty value reads as %q", got)
	}
}

func (s *suite) watchChanges() {
	s.put(s.store(0), "k", "0", "")
	for i := range s.Stores {
		ctx, cancel := context.WithCancel(s.ctx)
		w := s.watch(ctx, s.store(i))
		has := func(want string) func(dcs.View) bool {
			return func(v dcs.View) bool { return valueIn(v, s.key("k")) == want }
		}
		if i == 0 {
			s.await(w, "what was there before", has("0"))
		}
		for n := range 5 {
			want := fmt.Sprintf("%d-%d", i, n)
			rev := s.put(s.store(i+n), "k", want, "")
			if v := s.await(w, want, has(want)); v.Revision < rev {
				s.Fatalf("the view with %s has revision %d, the write %d", want, v.Revision, rev)
			}
		}
		cancel()
	}
}

func (s *suite) watchSlowly() {
	for i := range s.Stores {
		ctx, cancel := context.WithCancel(s.ctx)
		w := s.watch(ctx, s.store(i))
		var last events.Revision
		for n := range 20 { // nobody reads meanwhile
			last = s.put(s.store(n), "k", strconv.Itoa(n), "")
		}
		views := 0
		s.await(w, "the latest revision", func(v dcs.View) bool { views++; return v.Revision >= last })
		if views > 15 {
			s.Errorf("client %d: %d views were queued for a slow reader", i, views)
		}
		cancel()
	}
}

func (s *suite) watchForwards() {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var last events.Revision
	watches := make([]<-chan dcs.View, len(s.Stores))
	for i := range s.Stores {
		watches[i] = s.watch(ctx, s.store(i))
	}
	for n := range 60 {
		last = s.put(s.store(n), "k", strconv.Itoa(n), "")
	}
	for i, w := range watches {
		var seen events.Revision
		s.await(w, "the last revision", func(v dcs.View) bool {
			if v.Revision < seen {
				s.Errorf("client %d: revision %d after %d", i, v.Revision, seen)
			}
			seen = v.Revision
			return seen >= last
		})
	}
}

func (s *suite) watchEnds() {
	for i := range s.Stores {
		ctx, cancel := context.WithCancel(s.ctx)
		w := s.watch(ctx, s.store(i))
		cancel()
		timer := time.NewTimer(patience)
		for open := true; open; {
			select {
			case _, open = <-w:
			case <-timer.C:
				s.Fatalf("client %d: the watch goes on after its context ended", i)
			}
		}
		timer.Stop()
	}
}

func (s *suite) contexts() {
	for i := range s.Stores {
		done, cancel := context.WithCancel(s.ctx)
		cancel()
		store := s.store(i)
		_, errCommit := store.Commit(done, dcs.Txn{Writes: []dcs.Write{dcs.Put(s.key("k"), nil)}})
		_, errView := store.View(done, dcs.Linearizable)
		_, errGrant := store.Grant(done, events.LeaseID(s.key("late")), s.TTL)
		_, errRenew := store.Renew(done, "nobody")
		errRevoke := store.Revoke(done, "nobody")
		for name, err := range map[string]error{
			"commit": errCommit, "view": errView, "grant": errGrant, "renew": errRenew, "revoke": errRevoke,
		} {
			if class := dcs.ClassOf(err); err == nil || (class != events.Unavailable && class != events.Unknown) {
				s.Errorf("client %d: %s under an ended context: %v", i, name, err)
			}
		}
	}
}

func (s *suite) closing() {
	store := s.Open(s.T)
	l := s.grant(store, s.key("lease"), 10*s.TTL)
	s.put(store, "leased", "1", l.ID)
	s.put(store, "plain", "1", "")
	w := s.watch(s.ctx, store)
	if err := store.Close(); err != nil {
		s.Errorf("close: %v", err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for open := true; open; {
		select {
		case _, open = <-w:
		case <-timer.C:
			s.Fatal("the watch goes on after the store was closed")
		}
	}
	_, err := store.Commit(s.ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put(s.key("plain"), nil)}})
	if class := dcs.ClassOf(err); err == nil || class == events.Refused {
		s.Errorf("commit on a closed store: %v", err)
	}
	if _, err := store.Watch(s.ctx); err == nil {
		s.Error("watch on a closed store: no error")
	}
	if err := store.Close(); err != nil {
		s.Errorf("second close: %v", err)
	}
	if s.value(s.store(0), "leased") != "1" || s.value(s.store(0), "plain") != "1" {
		s.Error("closing a client took keys with it")
	}
	if err := s.store(0).Revoke(s.ctx, l.ID); err != nil {
		s.Errorf("revoke: %v", err)
	}
}
