package mem_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a cluster on a clock that the test moves.
type world struct {
	*mem.Cluster
	now atomic.Int64
}

func newWorld() *world {
	w := &world{}
	w.now.Store(1)
	w.Cluster = mem.New(func() events.Instant { return events.Instant(w.now.Load()) })
	return w
}

func put(key, value string) dcs.Txn {
	return dcs.Txn{Writes: []dcs.Write{dcs.Put(key, []byte(value))}}
}

func has(t *testing.T, s dcs.Store, key string) bool {
	t.Helper()
	v, err := s.View(t.Context(), dcs.Linearizable)
	if err != nil {
		t.Fatal(err)
	}
	_, ok := v.Get(key)
	return ok
}

func TestLeasesEndByTheInjectedClockOnly(t *testing.T) {
	w := newWorld()
	a := w.Client("a")
	lease, err := a.Grant(t.Context(), "l", 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Commit(t.Context(), dcs.Txn{Writes: []dcs.Write{{Key: "leader", Lease: lease.ID}}}); err != nil {
		t.Fatal(err)
	}
	w.now.Add(99)
	if at, ok := w.NextDeadline(); !ok || at != 101 || w.Expire() || !has(t, a, "leader") {
		t.Fatalf("next deadline %d, %v, one nanosecond before the end", at, ok)
	}
	w.now.Add(1)
	if !w.Expire() || has(t, a, "leader") {
		t.Fatal("the lease outlived its time")
	}
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name      string
		kind      mem.Kind
		want      error
		happened  bool
		delivered bool
	}{
		{"refuse", mem.Refuse, dcs.ErrRefused, false, false},
		{"lose", mem.Lose, dcs.ErrUnavailable, false, false},
		{"lose the reply", mem.LoseReply, dcs.ErrUnknown, true, true},
		{"delay", mem.Delay, dcs.ErrUnknown, false, true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld()
			a, b := w.Client("a"), w.Client("b")
			w.Inject(mem.Fault{Client: "a", Op: mem.OpCommit, Key: "k", Kind: tc.kind})
			if _, err := b.Commit(t.Context(), put("other", "")); err != nil {
				t.Errorf("another client: %v", err)
			}
			if _, err := a.Commit(t.Context(), put("other", "")); err != nil {
				t.Errorf("another key: %v", err)
			}
			if _, err := a.Commit(t.Context(), put("k", "1")); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if has(t, b, "k") != tc.happened {
				t.Errorf("it happened: %v, want %v", !tc.happened, tc.happened)
			}
			w.Deliver()
			if has(t, b, "k") != tc.delivered {
				t.Errorf("after delivery it happened: %v, want %v", !tc.delivered, tc.delivered)
			}
			if _, err := a.Commit(t.Context(), put("k", "2")); err != nil {
				t.Errorf("the fault hits twice: %v", err)
			}
		})
	}
}

// A compare-and-swap that was delayed is judged when it arrives, not when it was sent.
func TestDelayedGuardsAreJudgedOnArrival(t *testing.T) {
	w := newWorld()
	a, b := w.Client("a"), w.Client("b")
	acquire := func(name string) dcs.Txn {
		return dcs.Txn{Guards: []dcs.Guard{{Key: "leader", Absent: true}}, Writes: []dcs.Write{dcs.Put("leader", []byte(name))}}
	}
	w.Inject(mem.Fault{Client: "a", Kind: mem.Delay})
	if _, err := a.Commit(t.Context(), acquire("a")); !errors.Is(err, dcs.ErrUnknown) {
		t.Fatal(err)
	}
	if _, err := b.Commit(t.Context(), acquire("b")); err != nil {
		t.Fatal(err)
	}
	if n := w.Deliver(); n != 1 {
		t.Fatalf("%d requests were on their way", n)
	}
	v, _ := b.View(t.Context(), dcs.Linearizable)
	if kv, _ := v.Get("leader"); string(kv.Value) != "b" {
		t.Errorf("the holder is %s", kv.Value)
	}
}

func TestHeldCallsWaitOrEndWithTheirContext(t *testing.T) {
	w := newWorld()
	a := w.Client("a")
	release := make(chan struct{})
	w.Inject(mem.Fault{Kind: mem.Hold, Until: release, Times: -1})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := a.Commit(ctx, put("k", "")); !errors.Is(err, dcs.ErrUnavailable) {
		t.Errorf("held until its context ended: %v", err)
	}
	close(release)
	if _, err := a.Commit(t.Context(), put("k", "")); err != nil {
		t.Error(err)
	}
}

func TestACutClientSeesNothingNewAndItsViewAges(t *testing.T) {
	w := newWorld()
	a, b := w.Client("a"), w.Client("b")
	defer a.Close()
	if _, err := b.Commit(t.Context(), put("k", "1")); err != nil {
		t.Fatal(err)
	}
	watch, err := a.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := <-watch
	w.Cut("a", true)
	w.now.Add(50)
	if _, err := b.Commit(t.Context(), put("k", "2")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.View(t.Context(), dcs.Linearizable); !errors.Is(err, dcs.ErrUnavailable) {
		t.Errorf("linearizable view of a cut client: %v", err)
	}
	v, err := a.View(t.Context(), dcs.Local)
	if err != nil || v.Revision != first.Revision || v.Age != 50 {
		t.Errorf("local view of a cut client: revision %d, age %d, err %v", v.Revision, v.Age, err)
	}
	select {
	case v := <-watch:
		t.Errorf("the watch of a cut client delivered revision %d", v.Revision)
	default:
	}
	w.Cut("a", false)
	if v := <-watch; v.Revision <= first.Revision {
		t.Errorf("healed, the watch delivered revision %d", v.Revision)
	}
}
