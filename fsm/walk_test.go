package fsm

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
)

// walker leads a machine through events that a chooser picks: plausible ones (what a
// sensor or an executor could report in this state), repeated and stale ones, and
// nonsense. It checks after every step what must always hold.
type walker struct {
	t      fataler
	m      *Machine
	twin   *Machine // steps the same, from decoded copies
	s      State
	choose func(n int) int // 0 ≤ choice < n
	past   []events.Event
	trace  []string
}

type fataler interface {
	Fatalf(format string, args ...any)
	Helper()
}

func newWalker(t fataler, choose func(int) int) *walker {
	w := &walker{t: t, m: New(), twin: New(), choose: choose}
	w.s.Now = events.Instant(100 * time.Second)
	flags := []string{"pause", "keep_data", "slots", "nofailover", "no_rewind", "check_timeline", "nostream", "sync_mode", "strict"}
	a := args{}
	if f := choose(3 * len(flags)); f < len(flags) {
		a[flags[f]] = ""
	}
	if choose(4) == 0 {
		a["start_timeout"] = "0s"
	}
	w.take(events.AgentStarted{Node: "pg02", Scope: "demo", Version: "test", Boot: "boot1", Settings: a.settings("pg02")})
	return w
}

// from goes on where a machine in a world has come, or from the start.
func (w *walker) from(situations []State) *walker {
	if i := w.choose(len(situations) + 1); i < len(situations) {
		w.s = situations[i]
		w.trace = append(w.trace, fmt.Sprintf("from phase %s, %s", w.s.Phase, w.s.Last.Reason.Text))
	}
	return w
}

// run takes a number of steps of the chooser's choice.
func (w *walker) run(steps int) {
	w.t.Helper()
	for range steps {
		w.take(w.next())
	}
}

// next picks an event, and lets time pass before it.
func (w *walker) next() events.Event {
	switch w.choose(8) {
	case 0, 1:
		w.s.Now += events.Instant(w.choose(1000)) * 1e6
	case 2:
		if w.s.Timer.At > w.s.Now {
			w.s.Now = w.s.Timer.At
			return TimerEvent(w.s.Timer.Name)
		}
	case 3:
		if w.choose(20) == 0 {
			w.s.Now += events.Instant(time.Hour)
		}
	}
	switch w.choose(10) {
	case 0:
		if len(w.past) > 0 {
			return w.past[w.choose(len(w.past))] // again, or late
		}
	case 1, 2:
		return w.nonsense()
	case 3:
		return w.outcome()
	}
	list := samples(&w.s)
	ev := list[w.choose(len(list))]
	switch ev.(type) {
	case events.AgentStarted, events.ShutdownRequested:
		if w.choose(10) > 0 { // rarer, or no story would get far
			return w.outcome()
		}
	}
	return ev
}

// outcome ends one of the actions under way.
func (w *walker) outcome() events.Event {
	list := sampleOutcomes(&w.s)
	return list[w.choose(len(list))]
}

// nonsense is what no sensor should report.
func (w *walker) nonsense() events.Event {
	names := []events.NodeName{"", "pg01", "pg02", "pg03", w.s.Self}
	leases := []events.LeaseID{"", w.s.Lease.ID, w.s.Lease.Void, "L-x"}
	name, lease := names[w.choose(len(names))], leases[w.choose(len(leases))]
	systems := []events.SystemID{"", testSystemID, "7999999999999999999"}
	rev := events.Revision(w.choose(int(w.s.view().Revision) + 3))
	switch w.choose(5) {
	case 0:
		v := events.ClusterView{
			Revision:   rev,
			Leader:     events.Leader{Name: name, Lease: lease, Version: rev},
			Initialize: events.Initialize{Version: events.Revision(w.choose(2)), SystemID: systems[w.choose(3)], By: name},
			Status:     events.Status{Optime: events.LSN(w.choose(5000))},
			Failover:   events.FailoverRequest{Version: rev, Leader: names[w.choose(5)], Candidate: names[w.choose(5)]},
		}
		if w.choose(2) == 0 {
			v.Sync = events.Sync{Version: events.Revision(w.choose(int(rev) + 1)), Leader: names[w.choose(5)], Standbys: names[1 : 1+w.choose(4)]}
		}
		for range w.choose(4) {
			m := member(fmt.Sprintf("%s:%s:lsn=%d", names[1+w.choose(3)], []string{"primary", "replica"}[w.choose(2)], w.choose(5000)), args{})
			v.Members = append(v.Members, m)
		}
		return events.ClusterObserved{View: v, Read: w.s.Now.Add(time.Duration(w.choose(3)-1) * time.Second)}
	case 1:
		p := events.PostgresState{
			Data:    events.DataDir{Content: []string{"empty", "cluster", "broken"}[w.choose(3)], SystemID: systems[w.choose(3)], Standby: w.choose(2) == 0},
			Running: w.choose(2) == 0, Ready: w.choose(2) == 0, InRecovery: w.choose(2) == 0, Streaming: w.choose(2) == 0,
			PID: w.choose(3), Timeline: events.Timeline(w.choose(4)), CheckpointTimeline: events.Timeline(w.choose(4)),
			Position: events.LSN(w.choose(5000)), Received: events.LSN(w.choose(5000)),
			SyncNames: []string{"", "pg01", "2 (pg01,pg03)", "*"}[w.choose(4)], SyncHeld: w.choose(2) == 0,
		}
		for _, n := range names[1 : 1+w.choose(4)] {
			state := events.StandbyState{Name: n, State: "streaming", Flushed: events.LSN(w.choose(5000)), SyncState: []string{"sync", "async"}[w.choose(2)]}
			p.Standbys = append(p.Standbys, state)
		}
		return events.PostgresObserved{State: p, Began: w.s.Now.Add(time.Duration(w.choose(3)-1) * time.Second)}
	case 2:
		return events.LeaseRenewed{
			ID: w.someID(), Lease: lease, TTL: time.Duration(w.choose(5)) * time.Second,
			SentAt: w.s.Now.Add(-time.Duration(w.choose(5000)) * time.Millisecond), Keys: []string{"leader"},
		}
	case 3:
		return events.LeaseLost{Cause: []events.LossCause{events.LossExpired, events.LossRefused, events.LossTaken}[w.choose(3)], Lease: lease}
	default:
		return events.ActionFinished{ID: w.someID(), Action: "stop", Class: events.Class("?"), Result: events.Result{Lease: lease}}
	}
}

func (w *walker) someID() events.ActionID {
	if n := len(w.s.Flight); n > 0 && w.choose(2) == 0 {
		return w.s.Flight[w.choose(n)].ID
	}
	return events.ActionID{Seq: uint64(w.choose(50)), Index: w.choose(3)}
}

// take steps an event until the machine is at rest, and checks every step.
func (w *walker) take(ev events.Event) {
	w.t.Helper()
	w.past = append(w.past, ev)
	for chain := 0; ; chain++ {
		d := w.step(ev)
		if !d.Fired() {
			return
		}
		if chain > MaxChain {
			w.fail("no rest after %d reconsiderations", chain)
		}
		ev = events.Reconsider{}
	}
}

func (w *walker) step(ev events.Event) Decision {
	w.t.Helper()
	entry := events.Entry{Seq: w.s.Seq + 1, At: w.s.Now, Wall: int64(w.s.Now), Event: ev}
	w.trace = append(w.trace, fmt.Sprintf("%s %s %.300s", time.Duration(w.s.Now), ev.Kind(), w.payload(ev)))
	before := w.encode(w.s)
	next, d := w.m.Step(w.s, entry)
	w.trace = append(w.trace, fmt.Sprintf("   %s -%s-> %s %s: %s", d.From, d.Trigger, d.To, d.Reason.Rule, d.Reason.Text))
	if after := w.encode(w.s); after != before {
		w.fail("the given state was changed")
	}
	for _, bad := range Violations(w.s, next, d) {
		w.fail("%s", bad)
	}
	if d.Reason.Rule == "" || d.Reason.Text == "" || d.Status == "" {
		w.fail("a decision without a reason: %+v", d)
	}
	derived, err := Derive(next, d)
	if err != nil {
		w.fail("%v", err)
	}
	w.compare(before, entry, derived)
	w.s = next
	return d
}

// compare steps decoded copies of the state and of the event: a replay from a
// snapshot comes to the same decision.
func (w *walker) compare(state string, entry events.Entry, want Derived) {
	w.t.Helper()
	var s State
	if err := json.Unmarshal([]byte(state), &s); err != nil {
		w.fail("decode state: %v", err)
	}
	payload, err := events.Marshal(entry.Event)
	if err != nil {
		w.fail("%v", err)
	}
	if entry.Event, err = events.Unmarshal(entry.Event.Kind(), payload); err != nil {
		w.fail("%v", err)
	}
	next, d := w.twin.Step(s, entry)
	got, err := Derive(next, d)
	if err != nil {
		w.fail("%v", err)
	}
	if diff := got.Differ(want); diff != "" {
		w.fail("a replay differs: %s", diff)
	}
}

func (w *walker) encode(s State) string {
	b, err := json.Marshal(s)
	if err != nil {
		w.fail("encode state: %v", err)
	}
	return string(b)
}

func (w *walker) payload(ev events.Event) string {
	b, err := events.Marshal(ev)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// entryFor dates an event right after the state.
func entryFor(s *State, ev events.Event) events.Entry {
	return events.Entry{Seq: s.Seq + 1, At: s.Now + 1, Wall: s.Wall + 1, Event: ev}
}

func (w *walker) fail(format string, args ...any) {
	w.t.Helper()
	text := fmt.Sprintf(format, args...)
	for _, line := range w.trace[max(0, len(w.trace)-40):] {
		text += "\n" + line
	}
	w.t.Fatalf("%s", text)
}

// FuzzStep reads a story from bytes: each choice of the walker is one byte, or two.
func FuzzStep(f *testing.F) {
	for seed := range 20 {
		b := make([]byte, 160)
		x := uint32(seed + 1)
		for i := range b {
			x = x*1664525 + 1013904223
			b[i] = byte(x >> 24)
		}
		f.Add(b)
	}
	begin := situations(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		choose := func(n int) int {
			if len(data) == 0 {
				return 0
			}
			c := int(data[0])
			data = data[1:]
			if n > 256 && len(data) > 0 {
				c, data = c<<8|int(data[0]), data[1:]
			}
			return c % n
		}
		w := newWalker(t, choose).from(begin)
		for range 40 { // long stories only cost time
			if len(data) == 0 {
				return
			}
			w.take(w.next())
		}
	})
}
