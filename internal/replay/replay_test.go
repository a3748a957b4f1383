package replay_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/replay"
)

// story is a member that finds a cluster and follows its primary.
func story() []events.Event {
	set := events.Settings{TTL: 2 * time.Second, LoopWait: time.Second, RetryTimeout: time.Second, Tags: events.Tags{FailoverPriority: 1}}
	view := events.ClusterView{
		Revision: 9, Initialize: events.Initialize{Version: 1, SystemID: "7000000000000000001"},
		Leader:  events.Leader{Name: "pg01", Lease: "L1", Created: 5, Version: 5},
		Members: []events.Member{{Name: "pg01", Role: "primary", State: "running", ConnURL: "postgres://h1:5432/postgres", APIURL: "http://h1:8008/patroni"}},
	}
	standby := events.PostgresState{
		Data: events.DataDir{Content: events.DataCluster, SystemID: "7000000000000000001", Standby: true}, Running: true, PID: 7, Ready: true,
		InRecovery: true, Received: 100, Replayed: 100, Timeline: 1, ConfiguredUpstream: "h1:5432", Streaming: true,
	}
	return []events.Event{
		events.AgentStarted{Node: "pg02", Scope: "demo", Version: "test", Boot: "b", Settings: set},
		events.KeeperFound{PID: 7},
		events.PostgresObserved{State: standby},
		events.ClusterObserved{View: view, Read: 1},
		events.Tick{},
		events.ShutdownRequested{By: "SIGTERM"},
	}
}

// write journals the story as an agent does; tamper may change a decision.
func write(t *testing.T, dir string, tamper func(*fsm.Derived)) fsm.State {
	t.Helper()
	return writeAs(t, dir, "test", tamper)
}

// writeAs is write, by a program of that hash, going on from what the journal remembers.
func writeAs(t *testing.T, dir, program string, tamper func(*fsm.Derived)) fsm.State {
	t.Helper()
	var state fsm.State
	j, found, err := journal.Open(dir, journal.Options{Snapshot: func() json.RawMessage {
		b, err := json.Marshal(replay.Snapshot{Schema: fsm.StateSchema, Table: fsm.TableHash(), Binary: program, State: state})
		if err != nil {
			t.Error(err)
		}
		return b
	}})
	if err != nil {
		t.Fatal(err)
	}
	if state, err = replay.Resume(found); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := j.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	m, at := fsm.New(), state.Now+events.Instant(time.Second)
	for _, first := range story() {
		for ev := first; ev != nil; {
			at += events.Instant(10 * time.Millisecond)
			payload, err := events.Marshal(ev)
			if err != nil {
				t.Fatal(err)
			}
			seq, err := j.Append(journal.Record{Kind: string(ev.Kind()), At: at, Wall: int64(at), Payload: payload})
			if err != nil {
				t.Fatal(err)
			}
			var d fsm.Decision
			state, d = m.Step(state, events.Entry{Seq: seq, At: at, Wall: int64(at), Event: ev})
			derived, err := fsm.Derive(state, d)
			if err != nil {
				t.Fatal(err)
			}
			if tamper != nil {
				tamper(&derived)
			}
			b, err := json.Marshal(derived)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := j.Append(journal.Record{Kind: replay.KindDecision, At: at, Wall: int64(at), Derived: true, Payload: b}); err != nil {
				t.Fatal(err)
			}
			ev = nil
			if d.Fired() {
				ev = events.Reconsider{}
			}
		}
	}
	stop()
	running.Wait()
	return state
}

func TestCheckRecomputesEveryDecision(t *testing.T) {
	dir := t.TempDir()
	state := write(t, dir, nil)
	rep, err := replay.Check(dir, replay.AnyProgram)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Facts < len(story()) || rep.Compared != rep.Facts || rep.Uncounted != 0 {
		t.Errorf("report %+v: every fact of the story should have been stepped and compared", rep)
	}
	if state.Phase != fsm.Stopping && state.Phase != fsm.Stopped {
		t.Errorf("the story ended in phase %s", state.Phase)
	}
}

// S20. An upgrade that changed rules and not the table: the old program's decisions aren't
// this one's to judge, its successor's are.
func TestAnUpgradeBeginsANewComparison(t *testing.T) {
	dir := t.TempDir()
	other := func(d *fsm.Derived) { d.Text = "by other rules" }
	writeAs(t, dir, "old", other)
	before, err := replay.Check(dir, "new")
	if err != nil || before.Compared != 0 {
		t.Fatalf("the old program's decisions alone: %v, %+v", err, before)
	}
	writeAs(t, dir, "new", nil)
	rep, err := replay.Check(dir, "new")
	if err != nil {
		t.Fatal(err)
	}
	if rep.Compared == 0 || rep.Compared != rep.Uncounted || rep.Facts != 2*rep.Compared {
		t.Errorf("report %+v: half of the decisions should have been compared", rep)
	}
	want := []replay.Program{{Binary: "old", From: 1}, {Binary: "new", From: before.LastSeq + 1, Compared: true}}
	if !slices.Equal(rep.Programs, want) {
		t.Errorf("programs %+v, want %+v", rep.Programs, want)
	}
	// The old program, and one that is asked to compare all, find the old one's.
	if _, err := replay.Check(dir, "old"); !errors.Is(err, replay.ErrDiffers) {
		t.Errorf("the old program's own replay: %v", err)
	}
	if _, err := replay.Check(dir, replay.AnyProgram); !errors.Is(err, replay.ErrDiffers) {
		t.Errorf("a replay of all: %v", err)
	}
	// And a defect of the new one is still found.
	writeAs(t, dir, "new", other)
	if _, err := replay.Check(dir, "new"); !errors.Is(err, replay.ErrDiffers) {
		t.Errorf("a decision of the new program that differs: %v", err)
	}
}

func TestCheckFailsOnTheFirstDecisionThatDiffers(t *testing.T) {
	for name, tamper := range map[string]func(*fsm.Derived){
		"trigger": func(d *fsm.Derived) {
			if d.Trigger == fsm.ShutdownAsked {
				d.Trigger = fsm.Demoted
			}
		},
		"reason": func(d *fsm.Derived) {
			if d.Trigger == fsm.ShutdownAsked {
				d.Text = "for fun"
			}
		},
		"digest": func(d *fsm.Derived) {
			if d.Trigger == fsm.ShutdownAsked {
				d.Digest = "0000"
			}
		},
	} {
		dir := t.TempDir()
		write(t, dir, tamper)
		if rep, err := replay.Check(dir, replay.AnyProgram); !errors.Is(err, replay.ErrDiffers) {
			t.Errorf("%s: the changed decision was not noticed: %v, %+v", name, err, rep)
		}
	}
}

func TestResumeRebuildsTheState(t *testing.T) {
	dir := t.TempDir()
	want := write(t, dir, nil)
	j, found, err := journal.Open(dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	defer func() { _ = j.Run(ctx) }()
	got, err := replay.Resume(found)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if string(a) != string(b) {
		t.Errorf("resumed state:\n%s\nwant\n%s", a, b)
	}
}

func TestResumeOfAnEmptyJournalIsAnEmptyState(t *testing.T) {
	s, err := replay.Resume(journal.Recovered{})
	if err != nil || s.Phase != "" {
		t.Errorf("got phase %q, %v", s.Phase, err)
	}
}

func TestResumeRefusesWhatItCannotContinue(t *testing.T) {
	for name, payload := range map[string]string{
		"no state":      `null`,
		"other schema":  `{"schema":99}`,
		"another table": `{"schema":1,"table":"feed"}`,
		"no JSON":       `{`,
	} {
		_, err := replay.Resume(journal.Recovered{Snapshot: &journal.Record{Kind: journal.KindSnapshot, Payload: json.RawMessage(payload)}})
		if !errors.Is(err, replay.ErrUnusable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
