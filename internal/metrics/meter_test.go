package metrics

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// brokenStore answers everything with one error.
type brokenStore struct {
	dcs.Store
	err error
}

func (b brokenStore) View(context.Context, dcs.Consistency) (dcs.View, error) {
	return dcs.View{}, b.err
}
func (b brokenStore) Renew(context.Context, events.LeaseID) (dcs.Lease, error) {
	return dcs.Lease{}, b.err
}
func (b brokenStore) Commit(context.Context, dcs.Txn) (events.Revision, error) { return 0, b.err }
func (b brokenStore) Revoke(context.Context, events.LeaseID) error             { return b.err }
func (b brokenStore) Grant(context.Context, events.LeaseID, time.Duration) (dcs.Lease, error) {
	return dcs.Lease{}, b.err
}

func page(t *testing.T, m *Meter, s *fsm.State, now events.Instant) map[string]*family {
	t.Helper()
	p := NewPage(Label{"scope", `a"b\c`}, Label{"name", "pg\n00"})
	m.Write(p, s, now)
	return parse(t, string(p.Bytes()))
}

const common = `scope="a\"b\\c",name="pg\n00"`

func (f *family) value(t *testing.T, key string) float64 {
	t.Helper()
	v, ok := f.samples[key]
	if !ok {
		t.Fatalf("no sample %s in %v", key, f.order)
	}
	return v
}

func TestPageIsReadableByAScraper(t *testing.T) {
	m := New("1.2.3", nil)
	got := page(t, m, &fsm.State{Phase: fsm.Joining}, 0)
	if v := got["regent_info"].value(t, `regent_info{`+common+`,version="1.2.3",phase="joining"}`); v != 1 {
		t.Error(v)
	}
	if v := got["regent_belief_left_seconds"].value(t, "regent_belief_left_seconds{"+common+"}"); v != 0 {
		t.Errorf("a member that doesn't lead believes for %v s", v)
	}
}

func TestRoundTripsAreToldApartByOperationAndClass(t *testing.T) {
	m := New("", nil)
	ctx := t.Context()
	for class, err := range map[events.Class]error{
		events.Done: nil, events.Refused: fmt.Errorf("x: %w", dcs.ErrRefused),
		events.Unavailable: dcs.ErrUnavailable, events.Unknown: errors.New("what?"),
	} {
		s := m.Store(brokenStore{err: err})
		_, _ = s.Renew(ctx, "l")
		_, _ = s.Commit(ctx, dcs.Txn{})
		_, _ = s.Grant(ctx, "l", time.Second)
		_ = s.Revoke(ctx, "l")
		_, _ = s.View(ctx, dcs.Linearizable)
		_, _ = s.View(ctx, dcs.Local)
		f := page(t, m, &fsm.State{}, 0)["regent_store_round_trip_seconds"]
		for _, op := range []string{"renew", "commit", "grant", "revoke", "view"} {
			key := fmt.Sprintf(`regent_store_round_trip_seconds_count{%s,op="%s",class="%s"}`, common, op, class)
			if v := f.value(t, key); v != 1 {
				t.Errorf("%s: %v", key, v)
			}
		}
	}
}

func TestDecisionsAreCountedWhereTheyBelong(t *testing.T) {
	m := New("", nil)
	for _, took := range []time.Duration{20 * time.Microsecond, time.Millisecond, time.Millisecond + 1, time.Minute} {
		m.Stepped(&fsm.State{}, took)
	}
	f := page(t, m, &fsm.State{}, 0)["regent_decision_seconds"]
	for le, want := range map[string]float64{"0.00005": 1, "0.001": 2, "0.0025": 3, "1": 3, "+Inf": 4} {
		if v := f.value(t, fmt.Sprintf(`regent_decision_seconds_bucket{%s,le="%s"}`, common, le)); v != want {
			t.Errorf("le %s: %v, want %v", le, v, want)
		}
	}
	if v := f.value(t, "regent_decision_seconds_sum{"+common+"}"); v != 60.002020001 {
		t.Error(v)
	}
}

// follower is a member that streams from the leader.
func follower(leader events.NodeName, at time.Duration) *fsm.State {
	s := &fsm.State{Self: "b", Phase: fsm.Following, Now: events.Instant(at)}
	s.Postgres.State = events.PostgresState{Running: true, Ready: true, InRecovery: true, Streaming: true}
	s.Store.Known, s.Store.View.Leader = true, events.Leader{Name: leader, Lease: "l", Version: 1}
	return s
}

func TestOutageIsTheGapBetweenTwoPrimaries(t *testing.T) {
	var o outage
	blind := func(at time.Duration) *fsm.State {
		s := follower("a", at)
		s.Postgres.State.Streaming = false
		return s
	}
	steps := []struct {
		s       *fsm.State
		last    time.Duration
		changes uint64
	}{
		{blind(1 * time.Second), 0, 0},
		{follower("a", 2*time.Second), 0, 0},
		{blind(3 * time.Second), 0, 0},
		{follower("a", 9*time.Second), 0, 0}, // the same one again is no fail-over
		{blind(10 * time.Second), 0, 0},
		{blind(11 * time.Second), 0, 0},
		{follower("c", 12*time.Second), 3 * time.Second, 1},
		{follower("c", 20*time.Second), 3 * time.Second, 1},
		{blind(21 * time.Second), 3 * time.Second, 1},
		{follower("a", 21*time.Second), time.Second, 2},
	}
	for i, st := range steps {
		if o.see(st.s); o.last != st.last || o.changes != st.changes {
			t.Errorf("step %d: outage %s, %d changes; want %s, %d", i, o.last, o.changes, st.last, st.changes)
		}
	}
}

// TestCrashThatTheStreamDoesNotShow: the leader's own word counts.
func TestCrashThatTheStreamDoesNotShow(t *testing.T) {
	var o outage
	says := func(leader events.NodeName, state string, at time.Duration) *fsm.State {
		s := follower(leader, at)
		s.Store.View.Members = []events.Member{{Name: leader, State: state}}
		return s
	}
	o.see(says("a", "running", time.Second))
	o.see(says("a", "crashed", 2*time.Second))
	o.see(says("a", "starting", 3*time.Second))
	if o.see(says("c", "running", 4*time.Second)); o.last != 3*time.Second {
		t.Errorf("outage %s", o.last)
	}
}

func TestOwnPromotionEndsTheOutage(t *testing.T) {
	var o outage
	o.see(follower("a", time.Second))
	own := follower("b", 4*time.Second)
	own.Phase, own.Postgres.State.InRecovery = fsm.Leading, false
	if o.see(own); o.changes != 0 {
		t.Error("a member without the lease counts as a primary")
	}
	own.Holder = fsm.Holder{Revision: 1}
	own.Lease = fsm.Lease{ID: "l", TTL: 30 * time.Second, Sent: own.Now, Leads: true}
	if o.see(own); o.changes != 1 || o.last != 3*time.Second {
		t.Errorf("outage %s, %d changes", o.last, o.changes)
	}
	m := New("", nil)
	key := "regent_belief_left_seconds{" + common + "}"
	if v := page(t, m, own, own.Now)["regent_belief_left_seconds"].value(t, key); v != 29.1 {
		t.Errorf("belief left: %v", v)
	}
}

func TestMeterTakesConcurrentScrapes(t *testing.T) {
	m := New("", nil)
	s := m.Store(brokenStore{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				_, _ = s.Renew(t.Context(), "l")
				m.Stepped(&fsm.State{}, time.Millisecond)
				m.Write(NewPage(), &fsm.State{}, 0)
			}
		})
	}
	all.Wait()
	f := page(t, m, &fsm.State{}, 0)["regent_decision_seconds"]
	if v := f.value(t, "regent_decision_seconds_count{"+common+"}"); v != 800 {
		t.Error(v)
	}
}
