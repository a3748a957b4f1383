package dcstest

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"sync"
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

// localView: whatever completed before the moment that the view's age points at is in it,
// while somebody writes. The age is counted from before the call, so the view may only be
// newer than is asked of it here.
func (s *suite) localView() {
	type written struct {
		rev events.Revision
		at  time.Time
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards log
		log  []written
		over = time.Now().Add(2 * s.TTL)
	)
	wg.Go(func() {
		for n := 0; time.Now().Before(over) && s.ctx.Err() == nil; n++ {
			rev, err := s.store(n).Commit(s.ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put(s.key("k"), []byte(strconv.Itoa(n)))}})
			if err == nil {
				mu.Lock()
				log = append(log, written{rev, time.Now()})
				mu.Unlock()
			}
		}
	})
	for i, store := range s.Stores {
		wg.Go(func() {
			views, end := 0, time.Now().Add(s.Patience)
			for (views == 0 || time.Now().Before(over)) && time.Now().Before(end) && s.ctx.Err() == nil {
				began := time.Now()
				v, err := store.View(s.ctx, dcs.Local)
				if err != nil || v.Age < 0 {
					s.wait(10 * time.Millisecond)
					continue
				}
				views++
				s.wait(time.Millisecond) // or readers leave the writer no time
				mu.Lock()
				for _, w := range log {
					if w.at.Before(began.Add(-v.Age-s.Transit)) && w.rev > v.Revision {
						s.Errorf("client %d: a view of age %v has revision %d; %d was written %v before it was asked for",
							i, v.Age, v.Revision, w.rev, began.Sub(w.at))
						break
					}
				}
				mu.Unlock()
			}
			if views == 0 {
				s.Errorf("client %d: no local view of known age within %v", i, s.Patience)
			}
		})
	}
	wg.Wait()
	if len(log) < 3 {
		s.Errorf("only %d writes went through", len(log))
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

// another opens a client, judged like the others. The caller closes it.
func (s *suite) another(open func() (dcs.Store, error)) dcs.Store {
	s.Helper()
	store, err := open()
	if err != nil {
		s.Fatalf("open: %v", err)
	}
	return judge{store, s.T, s.Overrun}
}

// elsewhere: two clusters on the same servers don't see each other.
func (s *suite) elsewhere() {
	other := s.another(s.Elsewhere)
	defer other.Close()
	theirs := s.watch(s.ctx, other)
	ours := s.watch(s.ctx, s.store(0))
	s.put(s.store(0), "k", "ours", "")
	s.put(s.store(0), "only-ours", "1", "")
	s.put(other, "k", "theirs", "")
	s.put(other, "only-theirs", "1", "")
	if s.value(s.store(1), "k") != "ours" || s.value(other, "k") != "theirs" {
		s.Error("two clusters share a key")
	}
	if s.value(s.store(1), "only-theirs") != "-" || s.value(other, "only-ours") != "-" {
		s.Error("a cluster sees another one's key")
	}
	s.await(theirs, "their key", func(v dcs.View) bool { return valueIn(v, s.key("only-theirs")) == "1" })
	s.await(ours, "our key", func(v dcs.View) bool { return valueIn(v, s.key("only-ours")) == "1" })
	_, err := s.commit(other, dcs.Txn{
		Guards: []dcs.Guard{{Key: s.key("only-ours"), Absent: true}}, Writes: []dcs.Write{{Key: s.key("k"), Delete: true}},
	})
	if err != nil || s.value(s.store(0), "k") != "ours" {
		s.Errorf("a delete elsewhere: err %v, our key is %s", err, s.value(s.store(0), "k"))
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
			s.wait(time.Millisecond)
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
	conditions := make([]func(dcs.View) bool, len(s.Stores))
	for i := range s.Stores {
		watches[i] = s.watch(ctx, s.store(i))
		conditions[i] = s.forwards(func(v dcs.View) bool { return v.Revision >= last })
	}
	for n := range 60 {
		last = s.put(s.store(n), "k", strconv.Itoa(n), "")
		if n%2 == 0 { // half of the time somebody waits
			s.await(watches[n/2%len(watches)], "a new revision", conditions[n/2%len(watches)])
		}
	}
	for i, w := range watches {
		s.await(w, "the last revision", conditions[i])
	}
}

func (s *suite) watchEnds() {
	for _, store := range s.Stores {
		ctx, cancel := context.WithCancel(s.ctx)
		w := s.watch(ctx, store)
		cancel()
		s.ends(w, "its context ended")
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
	store := s.another(s.Open)
	l := s.grant(store, s.key("lease"), 10*s.TTL)
	s.put(store, "leased", "1", l.ID)
	s.put(store, "plain", "1", "")
	w := s.watch(s.ctx, store)
	if err := store.Close(); err != nil {
		s.Errorf("close: %v", err)
	}
	s.ends(w, "the store was closed")
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
