package api

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

func TestRestartWaitsForTheMachine(t *testing.T) {
	bubble(t, func(w *world) {
		proceed := make(chan bool)
		w.ask = func(_ context.Context, ev events.Event) (bool, string, error) {
			if _, ok := ev.(events.RestartRequested); !ok {
				w.t.Errorf("unexpected %s", ev.Kind())
			}
			return <-proceed, "restart failed", nil
		}
		for ok, want := range map[bool]string{true: "restarted successfully", false: "restart failed"} {
			answer := make(chan *reply, 1)
			go func() { answer <- w.do(w.t.Context(), "POST", "/restart", "") }()
			synctest.Wait()
			if len(answer) > 0 {
				w.t.Error("answered before the machine did")
			}
			proceed <- ok
			code := 503
			if ok {
				code = 200
			}
			wantReply(w.t, <-answer, code, want)
		}
	})
}

func TestRestartIsChecked(t *testing.T) {
	const version = "PostgreSQL role should be either primary, standby_leader, or replica"
	for _, c := range []struct {
		name, body string
		prepare    func(*fsm.State)
		compat     string
		code       int
		text       string
	}{
		{name: "at once", body: `{}`, code: 200, text: "restarted successfully"},
		{name: "no restart pending", body: `{"restart_pending":true}`, code: 503, text: "restart conditions are not satisfied"},
		{name: "restart pending", body: `{"restart_pending":true}`, prepare: func(s *fsm.State) { s.Postgres.State.PendingRestart = true }, code: 200, text: "restarted successfully"},
		{name: "restart pending unasked", body: `{"restart_pending":0}`, code: 200, text: "restarted successfully"},
		{name: "role", body: `{"role":"primary"}`, code: 200, text: "restarted successfully"},
		{name: "other role", body: `{"role":"replica"}`, code: 503, text: "restart conditions are not satisfied"},
		{name: "old role", body: `{"role":"master"}`, code: 400, text: version},
		{name: "old role in old words", body: `{"role":"master"}`, compat: "3.0.4", code: 200, text: "restarted successfully"},
		{name: "bad role in old words", body: `{"role":"x"}`, compat: "3.0.4", code: 400, text: "PostgreSQL role should be either primary or replica"},
		{name: "older", body: `{"postgres_version":"15.19"}`, code: 200, text: "restarted successfully"},
		{name: "not older", body: `{"postgres_version":"15.18"}`, code: 503, text: "restart conditions are not satisfied"},
		{name: "no version", body: `{"postgres_version":9}`, code: 400, text: "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 9"},
		{name: "unknown", body: `{"foo":1,"role":"x"}`, code: 400, text: "Unknown filter for the scheduled restart: foo"},
		{name: "first problem counts", body: `{"role":"x","foo":1}`, code: 400, text: version},
		{name: "timeout", body: `{"timeout":"10s"}`, code: 200, text: "restarted successfully"},
		{name: "no timeout", body: `{"timeout":-1}`, code: 400, text: "Timeout should be a positive number of seconds"},
		{name: "scheduled", body: `{"schedule":"2030-01-01T10:00:00Z"}`, code: 202, text: "Restart scheduled"},
		{name: "scheduled in the past", body: `{"schedule":"2020-01-01T10:00:00Z"}`, code: 422, text: "Cannot schedule restart in the past"},
		{name: "scheduled without zone", body: `{"schedule":"2030-01-01"}`, code: 400, text: "Timezone information is mandatory for the scheduled restart"},
		{name: "scheduled in pause", body: `{"schedule":"2030-01-01T10:00:00Z"}`, prepare: func(s *fsm.State) { s.Settings.Pause = true }, code: 500, text: "Can't schedule restart in the paused state"},
		{name: "busy", prepare: func(s *fsm.State) { s.Op = &fsm.Flight{Kind: fsm.Promote{}.Kind()} }, code: 503, text: "promote already in progress"},
		{name: "busy cloning", prepare: func(s *fsm.State) { s.Op = &fsm.Flight{Kind: fsm.Clone{}.Kind()} }, code: 503, text: "reinitialize already in progress"},
		{name: "restarting", prepare: func(s *fsm.State) { s.Phase = fsm.Restarting }, code: 503, text: "restart already in progress"},
		{name: "starting", prepare: func(s *fsm.State) { s.Postgres.State.Ready = false }, code: 503, text: "postgres is still starting"},
		{name: "demoting", prepare: func(s *fsm.State) { s.Phase = fsm.Demoting }, code: 503, text: "restart failed"},
		{name: "no mapping", body: `[]`, code: 400, text: "Bad Request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(w *world) {
				asked := false
				w.ask = func(context.Context, events.Event) (bool, string, error) {
					asked = true
					return true, "", nil
				}
				w.server.opt.Compat = c.compat
				if c.prepare != nil {
					w.agent.change(c.prepare)
				}
				w.agent.server = w.agent.state.Postgres.State
				wantReply(w.t, w.do(w.t.Context(), "POST", "/restart", c.body), c.code, c.text)
				if asked != (c.code == 200 || c.code == 202) {
					w.t.Errorf("the machine was asked: %v", asked)
				}
			})
		})
	}
}

// What a restart for later is to be judged by reaches the machine.
func TestRestartIsScheduled(t *testing.T) {
	bubble(t, func(w *world) {
		var got events.RestartRequested
		w.ask = func(_ context.Context, ev events.Event) (bool, string, error) {
			got = ev.(events.RestartRequested)
			return true, "Restart scheduled", nil
		}
		w.agent.change(func(s *fsm.State) { s.Postgres.State.StartedAt = "monday" })
		w.agent.server = w.agent.state.Postgres.State
		body := `{"restart_pending":true,"role":"replica","postgres_version":"15.9","timeout":20,"schedule":"2030-01-01 10:00:00+02:00"}`
		wantReply(w.t, w.do(w.t.Context(), "POST", "/restart", body), 202, "Restart scheduled")
		want := events.RestartSchedule{
			At: "2030-01-01T10:00:00+02:00", Wall: time.Date(2030, 1, 1, 8, 0, 0, 0, time.UTC).UnixNano(), Role: "replica",
			OlderThan: 150009, Version: "15.9", Pending: true, Timeout: 20 * time.Second, StartedAt: "monday",
		}
		if got.Schedule == nil || *got.Schedule != want {
			w.t.Errorf("the machine got %+v, want %+v", got.Schedule, want)
		}
		w.ask = func(context.Context, events.Event) (bool, string, error) {
			return false, "Another restart is already scheduled", nil
		}
		wantReply(w.t, w.do(w.t.Context(), "POST", "/restart", body), 409, "Another restart is already scheduled")
	})
}

// What only asks the machine says what the machine says.
func TestTheMachineAnswers(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		event              events.Event
		ok                 bool
		text               string
		code               int
	}{
		{"DELETE", "/restart", "", events.RestartWithdrawn{}, true, "scheduled restart deleted", 200},
		{"DELETE", "/restart", "", events.RestartWithdrawn{}, false, "no restarts are scheduled", 404},
		{"POST", "/reinitialize", "", events.ReinitRequested{}, true, "reinitialize started", 200},
		{"POST", "/reinitialize", `{"force":true}`, events.ReinitRequested{Force: true}, true, "reinitialize started", 200},
		{"POST", "/reinitialize", `{"from_leader":true,"force":false}`, events.ReinitRequested{FromLeader: true}, false, "I am the leader, can not reinitialize", 503},
	} {
		bubble(t, func(w *world) {
			w.ask = func(_ context.Context, ev events.Event) (bool, string, error) {
				switch got := ev.(type) {
				case events.ReinitRequested:
					got.ID = ""
					ev = got
				case events.RestartWithdrawn:
					got.ID = ""
					ev = got
				}
				if ev != c.event {
					w.t.Errorf("%s %s %s: the machine got %+v", c.method, c.path, c.body, ev)
				}
				return c.ok, c.text, nil
			}
			wantReply(w.t, w.do(w.t.Context(), c.method, c.path, c.body), c.code, c.text)
		})
	}
}

func TestRestartWithoutAnswer(t *testing.T) {
	bubble(t, func(w *world) {
		w.ask = func(context.Context, events.Event) (bool, string, error) {
			return false, "", errors.New("100 requests are waiting already")
		}
		wantReply(w.t, w.do(w.t.Context(), "POST", "/restart", ""), 503, "restart failed")
		w.ask = func(ctx context.Context, _ events.Event) (bool, string, error) {
			<-ctx.Done()
			return false, "", ctx.Err()
		}
		wantReply(w.t, w.do(w.t.Context(), "POST", "/restart", ""), 503, "postgres is still starting")
	})
}
