package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/mono"
)

// TestStoreHealthTellsEdgesOnly: a refusal is an answer, and each edge is told once.
func TestStoreHealthTellsEdgesOnly(t *testing.T) {
	m := newMailbox()
	h := &storeHealth{mail: m}
	wrap := func(class error) error { return fmt.Errorf("commit: %w", class) }
	for i, tc := range []struct {
		err  error
		want events.Kind
	}{
		{nil, ""},
		{wrap(dcs.ErrRefused), ""},
		{wrap(dcs.ErrUnavailable), events.DCSUnavailable{}.Kind()},
		{wrap(dcs.ErrUnknown), ""},
		{wrap(dcs.ErrBroken), ""},
		{wrap(dcs.ErrRefused), events.DCSRestored{}.Kind()},
		{nil, ""},
		{errors.New("of no class"), events.DCSUnavailable{}.Kind()},
		{nil, events.DCSRestored{}.Kind()},
	} {
		h.note(tc.err)
		var got events.Kind
		if evs := m.take(); len(evs) == 1 {
			got = evs[0].Kind()
		} else if len(evs) > 1 {
			t.Fatalf("call %d: %v", i, kinds(evs))
		}
		if got != tc.want {
			t.Errorf("call %d (%v): told %q, want %q", i, tc.err, got, tc.want)
		}
	}
}

func TestHistoryKeepsWhatTheStoreKnows(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	known := []events.HistoryLine{{Timeline: 1, LSN: 100, Reason: "no recovery target specified", Timestamp: "then", NewLeader: "pg02"}}
	local := []events.HistoryLine{
		{Timeline: 1, LSN: 100, Reason: "no recovery target specified"},
		{Timeline: 2, LSN: 200, Reason: "no recovery target specified"},
	}
	got := mergeHistory(known, local, "pg01", now, 0)
	if len(got) != 2 || got[0].NewLeader != "pg02" || got[0].Timestamp != "then" {
		t.Fatalf("%+v", got)
	}
	if got[1].NewLeader != "pg01" || got[1].Timestamp != "2026-01-02T03:04:05.000000+00:00" {
		t.Errorf("the newest switch: %+v", got[1])
	}
	// A switch that ended elsewhere is another switch.
	other := []events.HistoryLine{{Timeline: 1, LSN: 99, NewLeader: "pg03", Timestamp: "never"}}
	if got := mergeHistory(other, local, "pg01", now, 0); got[0].NewLeader != "" {
		t.Errorf("took the leader of another history: %+v", got[0])
	}
	if got := mergeHistory(known, local, "pg01", now, 1); len(got) != 1 || got[0].Timeline != 2 {
		t.Errorf("max_timelines_history 1 keeps %+v", got)
	}
	// Written again, nothing changes.
	again := mergeHistory(got, local, "pg09", now.Add(time.Hour), 0)
	if fmt.Sprint(again) != fmt.Sprint(got) {
		t.Errorf("%+v became %+v", got, again)
	}
}

func TestTranslateReadsTheDocument(t *testing.T) {
	path := filepath.Join(t.TempDir(), "document.yml")
	if err := os.WriteFile(path, []byte(os.Getenv("REGENT_TEST_DOCUMENT")), 0o600); err != nil {
		t.Fatal(err)
	}
	local, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	set, pg, _, err := Translate(local, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if set.TTL != 30*time.Second || set.LoopWait != 10*time.Second || set.RetryTimeout != 10*time.Second {
		t.Errorf("timings %s, %s, %s", set.TTL, set.LoopWait, set.RetryTimeout)
	}
	if set.MaximumLagOnFailover != 1048576 || !set.MayBootstrap || set.ConnURL != "postgres://172.1.1.197:5432/postgres" {
		t.Errorf("settings %+v", set)
	}
	if pg.Parameters["max_connections"] != "200" || pg.Parameters["wal_level"] != "logical" || pg.Port != 5432 {
		t.Errorf("server %+v", pg)
	}
	if strings.Contains(fmt.Sprintf("%+v", set), "123456") {
		t.Error("a password got into the settings, and so into the journal")
	}
	// What is shared wins over the file's bootstrap section, which counts only once.
	set, pg, _, err = Translate(local, []byte(`{"ttl":40,"postgresql":{"parameters":{"max_connections":"77"}}}`), true)
	if err != nil || set.TTL != 40*time.Second || pg.Parameters["max_connections"] != "77" {
		t.Errorf("ttl %s, max_connections %s, %v", set.TTL, pg.Parameters["max_connections"], err)
	}
	set, pg, _, err = Translate(local, []byte(`{"synchronous_mode":true,"synchronous_mode_strict":"on","maximum_lag_on_syncnode":7}`), true)
	if err != nil || !set.Sync || !set.SyncStrict || set.MaximumLagOnSync != 7 || !pg.Sync || !pg.SyncStrict {
		t.Errorf("synchronous mode: %+v, %v", set, err)
	}
	for _, refused := range []string{`{"synchronous_mode":"quorum"}`, `{"synchronous_mode":true,"synchronous_node_count":2}`} {
		if _, _, _, err := Translate(local, []byte(refused), true); err == nil {
			t.Errorf("%s is accepted", refused)
		}
	}
	if _, _, _, err := Translate(local, []byte(`{"ttl":`), true); err == nil {
		t.Error("half a mapping is a configuration")
	}
}

// TestActionsEndWithTheBelief: S3, S6.
func TestActionsEndWithTheBelief(t *testing.T) {
	for _, tc := range []struct {
		until events.Instant
		want  time.Duration
	}{
		{0, time.Minute},
		{mono.Now().Add(time.Second), time.Second},
		{mono.Now().Add(time.Hour), time.Minute},
		{mono.Now().Add(-time.Second), 0},
	} {
		ctx, cancel := bounded(t.Context(), fsm.Ordered{Until: tc.until}, time.Minute)
		deadline, ok := ctx.Deadline()
		if left := time.Until(deadline); !ok || left > tc.want || left < tc.want-500*time.Millisecond && tc.want > 0 {
			t.Errorf("until %d: %s left, want about %s", tc.until, left, tc.want)
		}
		if tc.want == 0 && ctx.Err() == nil {
			t.Error("an action of a lease that is over may begin")
		}
		cancel()
	}
}

func TestPanicOfAPartIsTheEndOfTheAgent(t *testing.T) {
	a := &Agent{fatal: make(chan error, 1)}
	a.guarded(func() { panic("first") })
	a.guarded(func() { panic("second") }) // there is room for one, and nobody waits
	err := <-a.fatal
	if !errors.Is(err, ErrPanic) || !strings.Contains(err.Error(), "first") || !strings.Contains(err.Error(), "shell_test.go") {
		t.Errorf("%v", err)
	}
}

// TestSilenceIsAskedTwice: an agent that stood still itself must not blame the keeper.
func TestSilenceIsAskedTwice(t *testing.T) {
	never := func(ctx context.Context) bool {
		<-ctx.Done()
		return true
	}
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{}
		began := time.Now()
		if !a.unanswered(t.Context(), time.Second, never) || time.Since(began) != 1500*time.Millisecond {
			t.Errorf("silence was found out after %s", time.Since(began))
		}
		asked := 0
		once := func(ctx context.Context) bool {
			if asked++; asked == 1 {
				return never(ctx)
			}
			return false
		}
		if a.unanswered(t.Context(), time.Second, once) || asked != 2 {
			t.Errorf("one late answer counts as silence (asked %d times)", asked)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if a.unanswered(ended, time.Second, never) {
			t.Error("an agent that ends kills its keeper")
		}
	})
}

// TestSilentKeeperIsFoundOutWithinTheBelief: S4, at every legal ttl.
func TestSilentKeeperIsFoundOutWithinTheBelief(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 30 * time.Second, time.Minute} {
		a := &Agent{}
		a.published.Store(&fsm.State{Settings: events.Settings{TTL: ttl, LoopWait: 10 * time.Second}, Keeper: fsm.Keeper{Armed: true}})
		p := a.keeperPatience()
		found := a.keeperSilence() + p + p/2 // a pause, and two questions
		belief := events.Belief(ttl)
		// The last renewal may have been confirmed a cadence ago, and nothing since.
		if left := belief - min(10*time.Second, belief/4) - found; left < 100*time.Millisecond {
			t.Errorf("ttl %s: found out after %s, %s before the belief's end", ttl, found, left)
		}
	}
	a := &Agent{}
	a.published.Store(&fsm.State{})
	if p := a.keeperPatience(); p != keeperAtRest {
		t.Errorf("patience %s with nothing at stake", p)
	}
}

// TestTheEndOfTheKeepersRestIsNotSleptThrough: what is waited for at rest is over when a deadline
// comes into force, and not when anything else changes.
func TestTheEndOfTheKeepersRestIsNotSleptThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{}
		publish := func(s *fsm.State) {
			next := make(chan struct{})
			a.published.Store(s)
			if old := a.changed.Swap(&next); old != nil {
				close(*old)
			}
		}
		publish(&fsm.State{Settings: events.Settings{TTL: 2 * time.Second}})
		rest, began := a.keeperSilence(), time.Now()
		a.waitForKeeper(t.Context(), rest)
		if took := time.Since(began); took != rest {
			t.Errorf("nothing happened for %s, and the wait took %s", rest, took)
		}
		time.AfterFunc(100*time.Millisecond, func() { publish(&fsm.State{Settings: events.Settings{TTL: 2 * time.Second}, Seq: 1}) })
		time.AfterFunc(200*time.Millisecond, func() { publish(&fsm.State{Keeper: fsm.Keeper{Armed: true}}) })
		began = time.Now()
		a.waitForKeeper(t.Context(), rest)
		if took := time.Since(began); took != 200*time.Millisecond {
			t.Errorf("a deadline came into force after 200ms, and the wait took %s", took)
		}
	})
}

func TestNewConfigurationIsNoticedOnce(t *testing.T) {
	var c configWatch
	view := func(version events.Revision, regent string) events.ClusterView {
		return events.ClusterView{
			Config: events.DynamicConfig{Version: version}, Members: []events.Member{{Name: "x", Regent: regent}},
		}
	}
	for i, tc := range []struct {
		v    events.ClusterView
		want bool
	}{
		{view(1, "0.1.0"), true}, {view(1, "0.1.0"), false}, {view(2, "0.1.0"), true},
		{view(2, ""), true}, {view(2, ""), false}, {view(2, "0.1.0"), true},
	} {
		if got := c.news(tc.v); got != tc.want {
			t.Errorf("view %d: news %t", i, got)
		}
	}
}
