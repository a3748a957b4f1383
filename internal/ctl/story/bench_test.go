package story_test

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/ctl/story"
	"github.com/pgregent/regent/internal/replay"
)

// writeRestless journals n facts, each with its decision, of a replica whose stream
// breaks again and again: nothing of that is quiet, so every fact is there by itself.
func writeRestless(tb testing.TB, dir string, n int) (from, to time.Time) {
	tb.Helper()
	var state fsm.State
	machine := fsm.New()
	j, _, err := journal.Open(dir, journal.Options{MaxSize: 2 << 30, Snapshot: func() json.RawMessage {
		b, err := json.Marshal(replay.Snapshot{Schema: fsm.StateSchema, Table: fsm.TableHash(), Binary: "test", State: state})
		if err != nil {
			tb.Error(err)
		}
		return b
	}})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := j.Run(ctx); err != nil {
			tb.Error(err)
		}
	})
	defer running.Wait()
	defer stop()
	standby := events.PostgresState{
		Data:    events.DataDir{Content: events.DataCluster, SystemID: "7000000000000000001", Standby: true, CanRewind: true},
		Running: true, PID: 7, Ready: true, InRecovery: true, Timeline: 1, ConfiguredUpstream: "h1:5432", Upstream: "h1:5432", Streaming: true,
	}
	view := events.ClusterView{
		Revision: 9, Initialize: events.Initialize{Version: 1, SystemID: "7000000000000000001"},
		Leader:  events.Leader{Name: "pg00", Lease: "L1", Created: 5, Version: 5},
		Members: []events.Member{{Name: "pg00", Role: "primary", State: "running", ConnURL: "postgres://h1:5432/postgres", APIURL: "http://h1:8008/patroni"}},
	}
	beginning := []events.Event{started(), events.KeeperFound{PID: 7}, events.PostgresObserved{State: standby}, events.ClusterObserved{View: view, Read: 1}}
	wall := at(0)
	for i := range n {
		var ev events.Event = events.WalReceiverEnded{Upstream: "h1:5432"}
		switch {
		case i < len(beginning):
			ev = beginning[i]
		case i%2 == 0:
			standby.Received, standby.Replayed = events.LSN(i), events.LSN(i)
			ev = events.PostgresObserved{State: standby, Began: state.Now}
		}
		wall = wall.Add(10 * time.Millisecond)
		record(tb, j, machine, &state, wall, ev)
		if i%4096 == 0 { // the disk keeps up with an agent, not with a benchmark
			if err := j.Sync(ctx); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if state.Phase != fsm.Following {
		tb.Fatalf("the replica is %s: %s", state.Phase, state.Last.Reason.Text)
	}
	return at(0), wall
}

func record(tb testing.TB, j *journal.Journal, m *fsm.Machine, state *fsm.State, wall time.Time, ev events.Event) {
	tb.Helper()
	for {
		payload, err := events.Marshal(ev)
		if err != nil {
			tb.Fatal(err)
		}
		now := events.Instant(wall.UnixNano() % int64(365*24*time.Hour))
		seq, err := j.Append(journal.Record{Kind: string(ev.Kind()), At: now, Wall: wall.UnixNano(), Boot: "b", Payload: payload})
		if err != nil {
			tb.Fatal(err)
		}
		next, d := m.Step(*state, events.Entry{Seq: seq, At: now, Wall: wall.UnixNano(), Event: ev})
		*state = next
		// Without the digest, which takes longest and says nothing to people.
		derived := fsm.Derived{From: d.From, To: d.To, Trigger: d.Trigger, Rule: d.Reason.Rule, Text: d.Reason.Text, Status: d.Status, Digest: "0123456789abcdef01234567"}
		for _, o := range d.Actions {
			derived.Actions = append(derived.Actions, o.Action.Kind())
		}
		payload, err = json.Marshal(derived)
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := j.Append(journal.Record{Kind: replay.KindDecision, At: now, Wall: wall.UnixNano(), Boot: "b", Derived: true, Payload: payload}); err != nil {
			tb.Fatal(err)
		}
		if !d.Fired() {
			return
		}
		ev = events.Reconsider{}
	}
}

// BenchmarkWhyAmongAMillionEvents prints what an answer costs in milliseconds, at moments
// spread over the whole journal. REGENT_BENCH_EVENTS changes their number.
func BenchmarkWhyAmongAMillionEvents(b *testing.B) {
	dir := b.TempDir()
	n := 1_000_000
	if s := os.Getenv("REGENT_BENCH_EVENTS"); s != "" {
		if err := json.Unmarshal([]byte(s), &n); err != nil {
			b.Fatal(err)
		}
	}
	from, to := writeRestless(b, dir, n)
	worst, turn := time.Duration(0), 0
	for b.Loop() {
		when := from.Add(to.Sub(from) / 37 * time.Duration(turn%36+1)).Add(time.Duration(turn) * time.Second)
		turn++
		began := time.Now()
		a, err := story.Ask(dir, when)
		worst = max(worst, time.Since(began))
		if err != nil || !a.Known || a.Unsure != "" || len(a.Rejected) == 0 || a.Phase != fsm.Following {
			b.Fatalf("%+v, %v", a, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/answer")
	b.ReportMetric(float64(worst.Milliseconds()), "ms-worst")
}
