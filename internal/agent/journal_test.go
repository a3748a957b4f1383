package agent

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/replay"
)

// diary steps a machine and records it, as the loop does, in a time of its own.
type diary struct {
	t       testing.TB
	dir     string
	j       *journal.Journal
	r       recorder
	m       *fsm.Machine
	state   fsm.State
	now     events.Instant
	wall    time.Time
	actions []fsm.Ordered // of the last step
	// states after each number, as their JSON.
	states  map[uint64]string
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func newDiary(t testing.TB) *diary {
	d := &diary{t: t, dir: t.TempDir(), m: fsm.New(), now: 1e9, wall: time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC), states: map[uint64]string{}}
	d.open()
	t.Cleanup(d.close)
	return d
}

func (d *diary) open() journal.Recovered {
	d.t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	j, found, err := journal.Open(d.dir, journal.Options{Logger: log, Snapshot: func() json.RawMessage { return snapshotOf(d.state, "test") }})
	if err != nil {
		d.t.Fatal(err)
	}
	d.j = j
	d.r.j, d.r.boot, d.r.log = j, "b", log
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	d.running.Go(func() { _ = j.Run(ctx) })
	return found
}

func (d *diary) close() {
	if d.cancel != nil {
		d.cancel()
		d.running.Wait()
		d.cancel = nil
	}
}

// take steps and records an event after some time has passed.
func (d *diary) take(after time.Duration, ev events.Event) {
	d.t.Helper()
	d.now, d.wall = d.now.Add(after), d.wall.Add(after)
	for {
		entry := events.Entry{Seq: d.r.next(), At: d.now, Wall: d.wall.UnixNano(), Event: ev}
		d.r.begin(entry)
		next, decision := d.m.Step(d.state, entry)
		d.r.record(d.state, next, entry, decision)
		d.state, d.actions = next, decision.Actions
		d.states[entry.Seq] = d.encoded(next)
		if !decision.Fired() {
			return
		}
		ev = events.Reconsider{}
	}
}

func (d *diary) encoded(s fsm.State) string {
	d.t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(b)
}

func (d *diary) standby() events.PostgresState {
	return events.PostgresState{
		Data:    events.DataDir{Content: events.DataCluster, SystemID: "7000000000000000001", Standby: true, CanRewind: true},
		Running: true, PID: 7, Ready: true, InRecovery: true, Received: 100, Replayed: 100, Timeline: 1,
		ConfiguredUpstream: "h1:5432", Upstream: "h1:5432", Streaming: true,
	}
}

// begin brings a member to following pg01.
func (d *diary) begin() {
	d.t.Helper()
	d.take(0, events.AgentStarted{Node: "pg02", Scope: "demo", Version: "test", Boot: "b", Settings: events.Settings{
		TTL: 2 * time.Second, LoopWait: time.Second, RetryTimeout: time.Second, Tags: events.Tags{FailoverPriority: 1},
	}})
	d.take(time.Millisecond, events.KeeperFound{PID: 7})
	d.take(time.Millisecond, events.PostgresObserved{State: d.standby(), Began: d.now})
	d.take(time.Millisecond, events.ClusterObserved{Read: d.now, View: events.ClusterView{
		Revision: 9, Initialize: events.Initialize{Version: 1, SystemID: "7000000000000000001"},
		Leader: events.Leader{Name: "pg01", Lease: "L1", Created: 5, Version: 5},
		Members: []events.Member{{
			Name: "pg01", Role: "primary", State: "running", ConnURL: "postgres://h1:5432/postgres", APIURL: "http://h1:8008/patroni", Lease: "L1",
		}},
	}})
	d.finish()
	if d.state.Phase != fsm.Following {
		d.t.Fatalf("the member is %s: %s", d.state.Phase, d.state.Last.Reason.Text)
	}
}

// finish answers what is in flight, until nothing is.
func (d *diary) finish() {
	d.t.Helper()
	for range 20 {
		if len(d.state.Flight) == 0 {
			return
		}
		f := d.state.Flight[0]
		switch f.Kind {
		case fsm.RenewLease{}.Kind():
			d.take(time.Millisecond, events.LeaseRenewed{ID: f.ID, Lease: d.state.Lease.ID, TTL: d.state.Settings.TTL, SentAt: f.Since})
		case fsm.GrantLease{}.Kind():
			d.take(time.Millisecond, events.ActionFinished{ID: f.ID, Action: f.Kind, Class: events.Done, Result: events.Result{
				Lease: "L2", TTL: d.state.Settings.TTL, SentAt: f.Since,
			}})
		default:
			d.take(time.Millisecond, events.ActionFinished{ID: f.ID, Action: f.Kind, Class: events.Done})
		}
	}
	d.t.Fatalf("there is always something in flight: %+v", d.state.Flight)
}

// idle is what nothing sounds like, for a while: timers, renewals, looks.
func (d *diary) idle(lasting time.Duration) (facts int) {
	d.t.Helper()
	first := d.r.next()
	for end := d.now.Add(lasting); d.now < end; {
		tick := d.state.Timer.Name == fsm.TimerTick
		d.take(d.state.Timer.At.Sub(d.now), fsm.TimerEvent(d.state.Timer.Name))
		if tick {
			d.take(time.Millisecond, events.PostgresObserved{State: d.standby(), Began: d.now})
		}
		d.finish()
	}
	return int(d.r.next() - first)
}

func (d *diary) kinds() map[string]int {
	d.t.Helper()
	out := map[string]int{}
	for e, err := range journal.Read(d.dir) {
		if err != nil {
			d.t.Fatal(err)
		}
		out[e.Kind]++
	}
	return out
}

func (d *diary) size() int64 {
	d.t.Helper()
	files, err := filepath.Glob(filepath.Join(d.dir, "*.journal"))
	if err != nil {
		d.t.Fatal(err)
	}
	var total int64
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			d.t.Fatal(err)
		}
		total += info.Size()
	}
	return total
}

func TestAnIdleMemberJournalsNextToNothing(t *testing.T) {
	d := newDiary(t)
	d.begin()
	d.idle(time.Minute) // what is new in the first cycle is told
	sync := func() {
		if err := d.j.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sync()
	before := d.size()
	facts := d.idle(time.Hour)
	sync()
	perDay := (d.size() - before) * 24
	if perDay > 2<<20 || facts < 10_000 {
		t.Errorf("%d facts an hour made %d bytes a day", facts, perDay)
	}
	t.Logf("%d facts an hour, %d bytes a day", facts, perDay)
}

// The replay of a folded journal compares what was told, and leads to the same state.
func TestAFoldedJournalReplaysAndResumes(t *testing.T) {
	d := newDiary(t)
	d.begin()
	d.idle(12 * time.Minute)
	d.take(time.Millisecond, events.WalReceiverEnded{Upstream: "h1:5432"})
	d.idle(time.Minute)
	d.take(time.Millisecond, events.ShutdownRequested{By: "SIGTERM"})
	d.r.flush(d.state)
	want := d.encoded(d.state)
	d.close()
	rep, err := replay.Check(d.dir, replay.AnyProgram)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Quiet < 3 || rep.Compared < 8 || rep.Uncounted != 0 || rep.Compared != rep.Facts {
		t.Errorf("%+v", rep)
	}
	if verified, err := journal.Verify(d.dir); err != nil || !verified.OK() {
		t.Errorf("%v, %v", verified.Problems, err)
	}
	resumed, err := replay.Resume(d.open())
	if err != nil {
		t.Fatal(err)
	}
	if got := d.encoded(resumed); got != want {
		t.Errorf("resumed:\n%s\nwant\n%s", got, want)
	}
}

// What an agent that is killed has not journaled costs the stretch, nothing before it.
func TestAKillInAQuietStretchCostsTheStretchOnly(t *testing.T) {
	d := newDiary(t)
	d.begin()
	d.idle(time.Minute)
	d.take(time.Millisecond, events.WalReceiverEnded{Upstream: "h1:5432"})
	told := d.state.Seq
	d.idle(2 * time.Minute)
	if d.state.Seq < told+100 || d.kinds()[replay.KindQuiet] > 2 {
		t.Fatalf("the last %d facts made records: %v", d.state.Seq-told, d.kinds())
	}
	d.close()
	found := d.open()
	resumed, err := replay.Resume(found)
	if err != nil {
		t.Fatal(err)
	}
	if want, ok := d.states[resumed.Seq]; !ok || want != d.encoded(resumed) || resumed.Seq < told {
		t.Errorf("resumed at %d, which was told up to %d", resumed.Seq, told)
	}
}

// A journal that loses records is given every fact, so that it finds out at once when
// the disk takes writes again.
func TestNothingIsFoldedWhileTheJournalWaitsForAFact(t *testing.T) {
	d := newDiary(t)
	d.begin()
	d.idle(time.Minute)
	d.r.flush(d.state)
	d.j.StartEpoch("for the test")
	quiet := d.kinds()[replay.KindQuiet]
	d.take(d.state.Timer.At.Sub(d.now), fsm.TimerEvent(d.state.Timer.Name))
	if err := d.j.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := d.kinds(); got[journal.KindGap] != 1 || got[replay.KindQuiet] != quiet && got[replay.KindQuiet] != quiet+1 || d.r.quiet.Count != 0 {
		t.Errorf("%v, %d facts wait", got, d.r.quiet.Count)
	}
}

// The fact on which the machine panicked is what a reader of the journal wants most.
func TestAPanicIsJournaledWithItsFact(t *testing.T) {
	d := newDiary(t)
	d.begin()
	d.idle(10 * time.Second)
	d.r.begin(events.Entry{Seq: d.r.next(), At: d.now, Wall: d.wall.UnixNano(), Event: events.SyncLost{Standby: "pg03"}})
	d.r.crash(d.state, os.ErrInvalid)
	d.close()
	var last []string
	for e, err := range journal.Read(d.dir) {
		if err != nil {
			t.Fatal(err)
		}
		last = append(last, e.Kind)
	}
	n := len(last)
	if last[n-3] != replay.KindQuiet || last[n-2] != string(events.KindSyncLost) || last[n-1] != replay.KindPanic {
		t.Errorf("the journal ends with %v", last[n-3:])
	}
}

// A fact that can't be encoded keeps its number: no other action may be taken for its.
func TestAFactThatCantBeJournaledKeepsItsNumber(t *testing.T) {
	d := newDiary(t)
	d.begin()
	lost := d.r.next()
	d.take(time.Millisecond, events.DCSUnavailable{Why: string(make([]byte, journal.MaxPayload))})
	d.take(time.Millisecond, events.DCSRestored{})
	if d.state.Seq <= lost {
		t.Errorf("number %d was given after %d", d.state.Seq, lost)
	}
	d.close()
	if got := d.kinds(); got[replay.KindLost] != 1 || got[journal.KindGap] != 1 {
		t.Errorf("%v", got)
	}
	if _, err := replay.Check(d.dir, replay.AnyProgram); err != nil {
		t.Error(err)
	}
}

// BenchmarkQuietFact is what the journal costs for a fact that only confirms: eight of
// them come in a second at a ttl of 2 s, and 0.1 % of a core is a millisecond.
func BenchmarkQuietFact(b *testing.B) {
	d := newDiary(b)
	d.begin()
	d.idle(time.Minute)
	before, now := d.state, d.now.Add(time.Millisecond)
	entry := events.Entry{Seq: d.r.next(), At: now, Wall: d.wall.UnixNano(), Event: events.PostgresObserved{State: d.standby(), Began: now}}
	after, decision := d.m.Step(before, entry)
	for b.Loop() {
		d.r.begin(entry)
		d.r.record(before, after, entry, decision)
		d.r.quiet.Count = 1 // the numbers stay as they are
	}
	d.r.quiet = quietStretch{}
}
