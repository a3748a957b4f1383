package dcstest

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

func (s *suite) guards() {
	store := s.store(0)
	lease := s.grant(store, s.key("lease"), 20*s.TTL)
	rev := s.put(store, "k", "v", lease.ID)
	k, absent := s.key("k"), s.key("absent")
	tests := []struct {
		name  string
		guard dcs.Guard
		holds bool
	}{
		{"absent, and it is", dcs.Guard{Key: absent, Absent: true}, true},
		{"absent, and it isn't", dcs.Guard{Key: k, Absent: true}, false},
		{"the version", dcs.Guard{Key: k, Version: rev}, true},
		{"another version", dcs.Guard{Key: k, Version: rev + 1000}, false},
		{"a version of an absent key", dcs.Guard{Key: absent, Version: rev}, false},
		{"the value", dcs.ValueIs(k, "v"), true},
		{"another value", dcs.ValueIs(k, "w"), false},
		{"an empty value of an absent key", dcs.ValueIs(absent, ""), false},
		{"the lease", dcs.Guard{Key: k, Lease: lease.ID}, true},
		{"another lease", dcs.Guard{Key: k, Lease: "other"}, false},
		{"value and lease", dcs.Guard{Key: k, Value: text("v"), Lease: lease.ID}, true},
		{"value and another lease", dcs.Guard{Key: k, Value: text("v"), Lease: "other"}, false},
		{"version before value", dcs.Guard{Key: k, Version: rev, Value: text("ignored")}, true},
		{"absent before version", dcs.Guard{Key: absent, Absent: true, Version: 7}, true},
	}
	for i, tc := range tests {
		mark := strconv.Itoa(i)
		before := s.value(store, "mark")
		_, err := s.repeat(s.store(i), dcs.Txn{
			Guards: []dcs.Guard{tc.guard}, Writes: []dcs.Write{dcs.Put(s.key("mark"), []byte(mark))},
		})
		after := s.value(s.store(i+1), "mark")
		if tc.holds && (err != nil || after != mark) {
			s.Errorf("%s: err %v, mark %s", tc.name, err, after)
		}
		if !tc.holds && (!errors.Is(err, dcs.ErrRefused) || after != before) {
			s.Errorf("%s: err %v, mark %s, was %s", tc.name, err, after, before)
		}
	}
}

func text(s string) *string { return &s }

func (s *suite) allOrNothing() {
	a, b, c := s.key("a"), s.key("b"), s.key("c")
	s.put(s.store(0), "b", "old", "")
	txn := dcs.Txn{
		Guards: []dcs.Guard{{Key: a, Absent: true}, dcs.ValueIs(b, "old"), {Key: c, Absent: true}},
		Writes: []dcs.Write{dcs.Put(a, []byte("1")), {Key: b, Delete: true}, dcs.Put(c, []byte("3"))},
	}
	rev, err := s.commit(s.store(1), txn)
	if err != nil {
		s.Fatal(err)
	}
	v := s.view(s.store(0))
	ka, _ := v.Get(a)
	kc, _ := v.Get(c)
	if ka.Version != rev || kc.Version != rev || valueIn(v, b) != "-" {
		s.Errorf("the transaction has revision %d, its keys %d and %d; %s", rev, ka.Version, kc.Version, valueIn(v, b))
	}
	// Each guard alone stops all three writes.
	for i := range 3 {
		guards := []dcs.Guard{dcs.ValueIs(a, "1"), {Key: b, Absent: true}, dcs.ValueIs(c, "3")}
		guards[i] = dcs.Guard{Key: guards[i].Key, Version: rev + 1000}
		_, err = s.commit(s.store(i), dcs.Txn{Guards: guards, Writes: []dcs.Write{
			dcs.Put(a, []byte("again")), dcs.Put(b, []byte("again")), {Key: c, Delete: true},
		}})
		s.mustBe(err, dcs.ErrRefused, "a transaction one of whose guards fails")
		if v := s.view(s.store(i + 1)); valueIn(v, a) != "1" || valueIn(v, b) != "-" || valueIn(v, c) != "3" {
			s.Errorf("a refused transaction wrote something: %s, %s, %s", valueIn(v, a), valueIn(v, b), valueIn(v, c))
		}
	}
}

// neverHalf: two keys that are always written together are always seen alike, by every
// way of reading.
func (s *suite) neverHalf() {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var readers sync.WaitGroup
	for i, store := range s.Stores {
		check := func(how string, v dcs.View) {
			if a, b := valueIn(v, s.key("a")), valueIn(v, s.key("b")); a != b {
				s.Errorf("client %d, %s: one key is %s, the other %s, at revision %d", i, how, a, b, v.Revision)
				cancel()
			}
		}
		w := s.watch(ctx, store)
		readers.Go(func() {
			for v := range w {
				check("watching", v)
			}
		})
		readers.Go(func() {
			for ctx.Err() == nil {
				if v, err := store.View(ctx, dcs.Linearizable); err == nil {
					check("reading", v)
				}
			}
		})
	}
	for n, end := 0, time.Now().Add(s.TTL); time.Now().Before(end) && ctx.Err() == nil; n++ {
		value := []byte(strconv.Itoa(n))
		both := []dcs.Write{dcs.Put(s.key("a"), value), dcs.Put(s.key("b"), value)}
		if n%4 == 3 {
			both = []dcs.Write{{Key: s.key("b"), Delete: true}, {Key: s.key("a"), Delete: true}}
		}
		if _, err := s.commit(s.store(n), dcs.Txn{Writes: both}); err != nil && !errors.Is(err, dcs.ErrUnknown) {
			s.Errorf("commit: %v", err)
		}
	}
	cancel()
	readers.Wait()
}

func (s *suite) versions() {
	created := s.put(s.store(0), "k", "1", "")
	changed := s.put(s.store(1), "k", "2", "")
	kv, _ := s.view(s.store(0)).Get(s.key("k"))
	if kv.Created != created || kv.Version != changed || changed <= created {
		s.Errorf("created %d, version %d; written at %d and %d", kv.Created, kv.Version, created, changed)
	}
	s.put(s.store(0), "other", "1", "")
	if again, _ := s.view(s.store(1)).Get(s.key("k")); again.Version != kv.Version {
		s.Error("a key's version changed with another key")
	}
	if _, err := s.commit(s.store(1), dcs.Txn{Writes: []dcs.Write{{Key: s.key("k"), Delete: true}}}); err != nil {
		s.Fatal(err)
	}
	reborn := s.put(s.store(0), "k", "3", "")
	if kv, _ := s.view(s.store(0)).Get(s.key("k")); kv.Created != reborn || kv.Version != reborn {
		s.Errorf("a key written anew at %d says created %d, version %d", reborn, kv.Created, kv.Version)
	}
}

func (s *suite) deleteAbsent() {
	_, err := s.repeat(s.store(0), dcs.Txn{Writes: []dcs.Write{{Key: s.key("nothing"), Delete: true}}})
	if err != nil {
		s.Error(err)
	}
}

func (s *suite) invalid() {
	for i := range s.Stores {
		_, err := s.store(i).Commit(s.ctx, dcs.Txn{})
		s.mustBe(err, dcs.ErrBroken, "an empty transaction")
		_, err = s.store(i).Commit(s.ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put("/x", nil)}})
		s.mustBe(err, dcs.ErrBroken, "a key with a leading slash")
		_, err = s.store(i).Grant(s.ctx, events.LeaseID(s.key("zero")), 0)
		s.mustBe(err, dcs.ErrBroken, "a lease without time")
	}
}

// oneWinner: S14's acquisition, by everyone at once.
func (s *suite) oneWinner() {
	sync14 := s.put(s.store(0), "sync", "{}", "")
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards names and vague
		names []string
		vague = map[string]bool{} // winners, perhaps
	)
	for i := range 3 * len(s.Stores) {
		wg.Go(func() {
			name := strconv.Itoa(i)
			_, err := s.commit(s.store(i), dcs.Txn{
				Guards: []dcs.Guard{{Key: s.key("leader"), Absent: true}, {Key: s.key("sync"), Version: sync14}},
				Writes: []dcs.Write{dcs.Put(s.key("leader"), []byte(name))},
			})
			switch {
			case err == nil:
				mu.Lock()
				names = append(names, name)
				mu.Unlock()
			case errors.Is(err, dcs.ErrUnknown):
				mu.Lock()
				vague[name] = true
				mu.Unlock()
			case !errors.Is(err, dcs.ErrRefused):
				s.Errorf("client %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	holder := s.value(s.store(0), "leader")
	if len(names) == 0 && vague[holder] {
		names = append(names, holder)
	}
	if len(names) != 1 || names[0] != holder {
		s.Errorf("winners %v, holder %s", names, holder)
	}
}

// counter: compare-and-swap under contention; no unknown outcome may count twice.
func (s *suite) counter() {
	s.put(s.store(0), "n", "0", "")
	const workers, each = 6, 10
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex // guards unknown
		unknown int
	)
	for w := range workers {
		wg.Go(func() {
			store := s.store(w)
			for done := 0; done < each && s.ctx.Err() == nil; {
				v, err := store.View(s.ctx, dcs.Linearizable)
				if err != nil {
					continue
				}
				kv, _ := v.Get(s.key("n"))
				n, err := strconv.Atoi(string(kv.Value))
				if err != nil {
					s.Errorf("the counter is %q", kv.Value)
					return
				}
				_, err = store.Commit(s.ctx, dcs.Txn{
					Guards: []dcs.Guard{{Key: s.key("n"), Version: kv.Version}},
					Writes: []dcs.Write{dcs.Put(s.key("n"), []byte(strconv.Itoa(n+1)))},
				})
				switch dcs.ClassOf(err) {
				case events.Done:
					done++
				case events.Unknown:
					done++
					mu.Lock()
					unknown++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	n, _ := strconv.Atoi(s.value(s.store(0), "n"))
	if n > workers*each || n < workers*each-unknown {
		s.Errorf("%d increments, %d of them with unknown outcome: the counter says %d", workers*each, unknown, n)
	}
}
