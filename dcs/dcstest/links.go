package dcstest

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strconv"
	"sync"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// deaf finds a client whose replies the harness can lose, and another one.
func (s *suite) deaf(k Kind) (deaf int, other dcs.Store) {
	for i := range s.Stores {
		if heal, err := s.Faults.Inflict(k, i); err == nil {
			if err := heal(); err != nil {
				s.Fatalf("heal: %v", err)
			}
			return i, s.store(i + 1)
		}
	}
	s.Fatalf("the harness can %s of no client", k)
	return 0, nil
}

// lostReplies: requests arrive and answers don't. Saying "refused" or "unavailable" then
// would be a lie, and what happened must have happened once.
func (s *suite) lostReplies() {
	i, other := s.deaf(LoseReplies)
	client := s.store(i)
	lost := func(call func(ctx context.Context) error) error {
		s.view(client) // it is connected; a greeting whose answer is lost carries no request
		heal := s.inflict(LoseReplies, i)
		defer heal()
		return s.within(2*short, call)
	}
	honest := func(what string, err error) {
		if err != nil && !errors.Is(err, dcs.ErrUnknown) {
			s.Errorf("%s, its reply lost: %v", what, err)
		}
	}
	s.put(other, "n", "0", "")
	happened := 0
	for n := range 3 {
		kv, _ := s.view(other).Get(s.key("n"))
		honest("a commit", s.lostUntilDone(i, other, kv, dcs.Txn{
			Guards: []dcs.Guard{{Key: s.key("n"), Version: kv.Version}},
			Writes: []dcs.Write{dcs.Put(s.key("n"), fmt.Append(nil, string(kv.Value), "+"))},
		}))
		after, _ := s.view(other).Get(s.key("n"))
		switch string(after.Value) {
		case string(kv.Value):
		case string(kv.Value) + "+":
			happened++
		default:
			s.Errorf("increment %d: from %s to %s", n, kv.Value, after.Value)
		}
	}
	if happened == 0 {
		s.Error("nothing of what was sent arrived: the fault isn't the one that was asked for")
	}
	held := s.hold(other, "held", 20*s.TTL)
	honest("a renewal", lost(func(ctx context.Context) error { _, err := client.Renew(ctx, held.id); return err }))
	honest("a grant", lost(func(ctx context.Context) error {
		_, err := client.Grant(ctx, events.LeaseID(s.key("lost")), 20*s.TTL)
		return err
	}))
	honest("a revocation", lost(func(ctx context.Context) error { return client.Revoke(ctx, held.id) }))
	err := lost(func(ctx context.Context) error { _, err := client.View(ctx, dcs.Linearizable); return err })
	if errors.Is(err, dcs.ErrRefused) {
		s.Errorf("a view, its reply lost: %v", err)
	}
	if err := s.commitRevoke(held.id); err != nil {
		s.Errorf("revoking for sure: %v", err)
	}
	s.recovered("held", "-")
	s.note = fmt.Sprintf("%d of 3 commits had happened", happened)
}

// lostUntilDone commits while replies are lost, and heals the link as soon as others see the
// effect. Whoever then tries again what it got no answer to finds its own guard failing.
func (s *suite) lostUntilDone(client int, other dcs.Store, before dcs.KV, txn dcs.Txn) error {
	s.Helper()
	s.view(s.store(client)) // it is connected
	heal := s.inflict(LoseReplies, client)
	defer heal()
	result := make(chan error, 1)
	go func() {
		result <- s.within(s.Failover, func(ctx context.Context) error {
			_, err := s.store(client).Commit(ctx, txn)
			return err
		})
	}()
	for end := time.Now().Add(4 * short); time.Now().Before(end); s.wait(5 * time.Millisecond) {
		if kv, _ := s.viewOrNothing(other).Get(before.Key); kv.Version > before.Version {
			break
		}
	}
	heal()
	return <-result
}

// watchResumes: a client's link breaks while others write and delete, and comes back.
func (s *suite) watchResumes() {
	i, other := s.deaf(CutClient)
	for round := range 2 {
		s.missed(round, other, s.store(i), func() func() { return s.inflict(CutClient, i) }, func() {})
	}
}

// watchCompacted: the same, and what happened meanwhile can't be read up on afterwards.
func (s *suite) watchCompacted() {
	compact := func() { s.inflict(Compact, 0)() }
	if s.Faults.Lacks(CutClient) == "" {
		i, other := s.deaf(CutClient)
		s.missed(0, other, s.store(i), func() func() { return s.inflict(CutClient, i) }, compact)
		s.note = "a client's link was cut"
		return
	}
	victim := (s.leader() + 1) % s.Faults.Servers()
	in, out := s.sides(victim)
	if len(in) == 0 || s.Faults.Lacks(IsolateServer) != "" {
		s.Fatal("the harness can cut off neither a client nor a server that one is at home on")
	}
	s.missed(0, out[0], in[0], func() func() { return s.inflict(IsolateServer, victim) }, compact)
	s.note = "a server was cut off, with the client"
}

// missed: a watch is cut off, misses much, and comes back to the newest view, whatever
// is left of what it missed.
func (s *suite) missed(round int, writer, watcher dcs.Store, cut func() func(), meanwhile func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	name := func(n int) string { return fmt.Sprintf("%d/%d", round, n) }
	for n := range 10 {
		s.insist(writer, name(n), "old")
	}
	w := s.watch(ctx, watcher)
	last := events.Revision(0)
	s.await(w, "what was there before", func(v dcs.View) bool {
		last = v.Revision
		return valueIn(v, s.key(name(9))) == "old"
	})
	heal := cut()
	defer heal()
	for n := range 40 {
		s.insist(writer, name(n%10), strconv.Itoa(n))
	}
	for n := range 5 {
		s.dropSurely(writer, name(n))
	}
	s.insist(writer, "mark", name(0))
	meanwhile()
	heal()
	condition := s.is("mark", name(0))
	v := s.await(w, "what was written while its link was cut", func(v dcs.View) bool {
		if v.Revision < last {
			s.Errorf("the watch came back with revision %d after %d", v.Revision, last)
		}
		return condition(v)
	})
	for n := range 10 {
		want := "-"
		if n >= 5 {
			want = strconv.Itoa(30 + n)
		}
		if got := valueIn(v, s.key(name(n))); got != want {
			s.Errorf("back again, the watch shows %s = %s, want %s", name(n), got, want)
		}
	}
	s.insist(writer, "mark", "next")
	s.await(w, "the next change", s.is("mark", "next"))
}

// dropSurely deletes a key; twice is as good as once.
func (s *suite) dropSurely(store dcs.Store, key string) {
	s.Helper()
	_, err := retry(s, func() (events.Revision, error) {
		rev, err := store.Commit(s.ctx, dcs.Txn{Writes: []dcs.Write{{Key: s.key(key), Delete: true}}})
		if errors.Is(err, dcs.ErrUnknown) {
			err = fmt.Errorf("%w: once more", dcs.ErrUnavailable)
		}
		return rev, err
	})
	if err != nil {
		s.Fatalf("delete %s: %v", key, err)
	}
}

// storm: a random workload, leases included, while one fault follows another.
func (s *suite) storm() {
	var kinds []Kind
	for _, k := range []Kind{KillServer, PauseServer, IsolateServer, CutClient, LoseReplies} {
		if _, spared := s.Spared[k]; !spared && s.Faults.Lacks(k) == "" {
			kinds = append(kinds, k)
		}
	}
	if len(kinds) == 0 {
		s.Fatal("the harness can make no fault at all")
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.Storm)
	defer cancel()
	count, seed := map[Kind]int{}, time.Now().UnixNano()
	s.Logf("seed %d", seed)
	var wg sync.WaitGroup
	wg.Go(func() {
		rng := rand.New(rand.NewSource(seed))
		for n := 0; ctx.Err() == nil; n++ {
			rest(ctx, s.TTL) // calm in between, and for a beginning
			if k := kinds[n%len(kinds)]; s.blow(ctx, rng, k) {
				count[k]++
			}
		}
	})
	ops := Workload(ctx, s.Stores, s.prefix, Pace{
		Timeout: 2 * short, Between: 10 * time.Millisecond, TTL: s.TTL, Late: s.LateAfterFault + s.Failover,
	})
	wg.Wait()
	s.insist(s.store(0), "after", "1")
	s.recovered("after", "1")
	check(s.T, ops, 100, 3*s.Patience)
	s.note = fmt.Sprintf("%d operations, faults %v", len(ops), count)
	for k, why := range s.Spared {
		s.note += fmt.Sprintf("; not: %s, because %s", k, why)
	}
	s.Logf("%s", s.note)
}

// blow makes one fault for a while.
func (s *suite) blow(ctx context.Context, rng *rand.Rand, k Kind) bool {
	target := rng.Intn(len(s.Stores))
	if k == KillServer || k == PauseServer || k == IsolateServer {
		found, err := s.Faults.Leader(ctx)
		if err != nil {
			return false
		}
		if target = found; rng.Intn(3) == 0 {
			target = rng.Intn(s.Faults.Servers())
		}
	}
	heal, err := s.Faults.Inflict(k, target)
	if err != nil {
		return false // it can, but not of this client
	}
	rest(ctx, s.TTL/2+time.Duration(rng.Int63n(int64(2*s.TTL))))
	if err := heal(); err != nil {
		s.Errorf("heal %s %d: %v", k, target, err)
	}
	return true
}
