package fsm

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
)

func TestScripts(t *testing.T) {
	visited := runScripts(t)
	if t.Failed() {
		return
	}
	cells, faults := Survey(representatives(visited), samples)
	for _, f := range faults {
		t.Error("unhandled: " + f)
	}
	holdCurrent(t, "../docs/fsm-events.md", ReportMarkdown(cells))
}

// representatives keeps one or two states for each situation: the same rule in
// force, the same actions under way.
func representatives(visited []State) []State {
	seen := map[string]int{}
	var out []State
	for _, s := range visited {
		var kinds []string
		for _, f := range s.Flight {
			kinds = append(kinds, f.Kind)
		}
		slices.Sort(kinds)
		key := fmt.Sprint(s.Phase, s.Last.Reason.Rule, s.holds(), s.Store.DownSince != 0, slices.Compact(kinds))
		if seen[key]++; seen[key] <= 2 {
			out = append(out, s)
		}
	}
	return out
}

// samples are canonical events of every kind, fitted to the state: outcomes name
// actions that are under way, views name this member and others.
func samples(s *State) []events.Event {
	out := []events.Event{
		events.AgentStarted{Node: s.Self, Scope: s.Scope, Version: "test", Boot: s.Boot, Settings: s.Settings},
		events.Tick{}, events.TimerFired{Name: "renew"}, events.Reconsider{},
		events.TimeJumped{By: 1}, events.JournalDegraded{Why: "disk full"}, events.JournalDegraded{},
		events.ShutdownRequested{By: "SIGTERM"},
		events.DCSUnavailable{Why: "no answer"}, events.DCSRestored{},
		events.LeaseLost{Cause: events.LossExpired, Lease: s.Lease.ID},
		events.LeaseLost{Cause: events.LossRefused, Lease: s.Lease.ID},
		events.LeaseLost{Cause: events.LossTaken, Lease: s.Lease.ID, By: "pg09"},
		events.PostgresUp{PID: 4242}, events.PostgresDown{PID: s.Postgres.State.PID, Signal: 9},
		events.PrimaryStartTimeout{}, events.FenceBegun{Why: "deadline"}, events.KeeperLost{Why: "killed"},
		events.KeeperFound{}, events.KeeperFound{PID: 4242, Armed: true, Deadline: s.Now + 1},
		events.UnexpectedPrimary{Timeline: 9}, events.CleanShutdown{End: 1}, events.WalReceiverEnded{}, events.SyncLost{Standby: "pg02", Mode: "sync"},
		events.PeerObserved{ID: s.Race.Probe, Peer: events.Peer{Name: "pg03", Reachable: true, Position: 1}},
		events.SwitchoverRequested{ID: "x1", From: "pg01"}, events.FailoverRequested{ID: "x2", To: "pg02"},
		events.RestartRequested{ID: "x3"}, events.ReinitRequested{ID: "x4"}, events.ReinitRequested{ID: "x6", Force: true},
		events.RestartRequested{ID: "x7", Schedule: &events.RestartSchedule{At: "t", Wall: s.Wall + int64(time.Second)}},
		events.PauseChanged{Paused: true}, events.PauseChanged{}, events.ConfigChanged{Settings: s.Settings},
		events.FailsafeAsked{ID: "x8", From: "pg01", TTL: s.Settings.TTL},
		events.FailsafeAnswered{ID: s.Failsafe.Round.ID, Member: "pg02", Accepted: true}, events.FailsafeAnswered{ID: s.Failsafe.Round.ID, Member: "pg03", Why: "sample"},
		events.KeeperFound{PID: 4242, Waived: events.WaivedPause, WaivedAt: 1}, events.RestartWithdrawn{ID: "x5"},
	}
	out = append(out, sampleViews(s)...)
	out = append(out, sampleObservations(s)...)
	return append(out, sampleOutcomes(s)...)
}

func sampleViews(s *State) []events.Event {
	v := s.view()
	v.Revision = max(v.Revision, s.Store.Floor) + 1
	free, other, mine, wish := v, v, v, v
	free.Leader = events.Leader{}
	other.Leader = events.Leader{Name: "pg09", Lease: "L-pg09", Version: v.Revision}
	mine.Leader = events.Leader{Name: s.Self, Lease: s.Lease.ID, Version: v.Revision}
	wish.Failover = events.FailoverRequest{Version: v.Revision, Leader: s.Self}
	var out []events.Event
	for _, view := range []events.ClusterView{v, free, other, mine, wish} {
		out = append(out, events.ClusterObserved{View: view}, events.ClusterObserved{View: view, Read: s.Now + 1})
	}
	return out
}

func sampleObservations(s *State) []events.Event {
	data := s.pg().Data
	if data.Content != events.DataCluster {
		data = events.DataDir{Content: events.DataCluster, SystemID: testSystemID}
	}
	up := events.PostgresState{Data: data, Running: true, Ready: true, PID: 4242, Timeline: 2, CheckpointTimeline: 2, Position: 2000}
	standby := up
	standby.InRecovery, standby.Received, standby.Replayed = true, 2000, 2000
	silent := events.PostgresState{Data: data, Running: true, PID: 4242, Why: "timeout"}
	var out []events.Event
	for _, p := range []events.PostgresState{up, standby, silent, {Data: data}, {Data: events.DataDir{Content: events.DataEmpty}}} {
		out = append(out, events.PostgresObserved{State: p, Began: s.Now})
	}
	return out
}

// sampleOutcomes end every action under way, in every class; and one that isn't.
func sampleOutcomes(s *State) []events.Event {
	never := events.ActionID{Seq: 1 << 40}
	out := []events.Event{
		events.ActionFinished{ID: never, Action: Stop{}.Kind(), Class: events.Done},
		events.LeaseAcquired{ID: never, Revision: 1},
		events.LeaseRenewed{ID: never, Lease: s.Lease.ID, TTL: s.Settings.TTL, SentAt: s.Now},
		events.RenewalFailed{ID: never, Class: events.Unavailable},
	}
	for _, f := range s.Flight {
		switch f.Kind {
		case RenewLease{}.Kind():
			for _, keys := range [][]string{nil, {"leader"}} {
				out = append(out, events.LeaseRenewed{ID: f.ID, Lease: s.Lease.ID, TTL: s.Settings.TTL, SentAt: s.Now, Keys: keys})
			}
			out = append(out, events.RenewalFailed{ID: f.ID, Class: events.Unavailable, Why: "timeout"})
			continue
		case AcquireLeader{}.Kind():
			out = append(out, events.LeaseAcquired{ID: f.ID, Revision: max(s.view().Revision, s.Store.Floor) + 1})
		}
		for _, class := range []events.Class{events.Done, events.Refused, events.Unavailable, events.Unknown} {
			if f.Kind == (AcquireLeader{}).Kind() && class == events.Done {
				continue // that is LeaseAcquired
			}
			for _, r := range sampleResults(s, f.Kind, class) {
				out = append(out, events.ActionFinished{ID: f.ID, Action: f.Kind, Class: class, Why: "sample", Result: r})
			}
		}
	}
	return out
}

// sampleResults are what an executor could report with the outcome.
func sampleResults(s *State, kind string, class events.Class) []events.Result {
	if class != events.Done {
		return []events.Result{{}}
	}
	r := events.Result{
		Lease: "L-new", TTL: s.Settings.TTL, SentAt: s.Now, EndLSN: 3000, Position: 3000,
		Revision: max(s.view().Revision, s.Store.Floor) + 1,
	}
	switch kind {
	case RevokeLease{}.Kind():
		r.Lease = s.Lease.ID
	case Judge{}.Kind():
		var out []events.Result
		for _, v := range []events.Verdict{events.VerdictFollow, events.VerdictRewind, events.VerdictClone, events.VerdictWait} {
			r.Divergence = &events.Divergence{Verdict: v, Why: "sample"}
			out = append(out, r)
		}
		return out
	case Stop{}.Kind():
		down := events.PostgresState{Data: s.pg().Data}
		r.Postgres = &down
	}
	return []events.Result{r}
}

func TestTheReportFindsWhatIsUnhandled(t *testing.T) {
	s := State{Phase: "nowhere"}
	cells, faults := Survey([]State{s}, func(*State) []events.Event { return []events.Event{events.Tick{}} })
	if len(cells) != 0 || len(faults) == 0 {
		t.Fatalf("a survey of nothing reports %d cells and %d faults", len(cells), len(faults))
	}
	want := fmt.Sprintf("nobody tried %s in phase %s", events.KindTick, Leading)
	if !slices.Contains(faults, want) {
		t.Errorf("missing: %s", want)
	}
	if all := len(Phases()) * len(events.Kinds()); len(faults) != all {
		t.Errorf("%d faults for %d cells that nobody tried", len(faults), all)
	}
}
