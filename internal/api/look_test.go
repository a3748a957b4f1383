package api

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// TestPositionIsNeverOlderThanTheQuestion: one observation serves those who asked
// before it began; whoever asks while it runs gets the next one (S16).
func TestPositionIsNeverOlderThanTheQuestion(t *testing.T) {
	bubble(t, func(w *world) {
		n := 0
		proceed := make(chan struct{})
		w.agent.observe = func(context.Context) (events.PostgresState, error) {
			n++
			st := leaderState().Postgres.State
			st.Position = events.LSN(n)
			<-proceed
			return st, nil
		}
		ask := func() chan string {
			answer := make(chan string, 1)
			go func() { answer <- string(w.do(w.t.Context(), "GET", "/patroni", "").body) }()
			synctest.Wait()
			return answer
		}
		first := ask()
		second, third := ask(), ask()
		proceed <- struct{}{}
		if got := <-first; !strings.Contains(got, `"location": 1`) {
			w.t.Errorf("first: %s", got)
		}
		proceed <- struct{}{}
		for _, answer := range []chan string{second, third} {
			if got := <-answer; !strings.Contains(got, `"location": 2`) {
				w.t.Errorf("later: %s", got)
			}
		}
	})
}

// TestHungPostgresDelaysNobodyForLong: a quarter of a second, however many ask, and
// what needs the lease only is answered at once.
func TestHungPostgresDelaysNobodyForLong(t *testing.T) {
	bubble(t, func(w *world) {
		defer w.agent.hang()()
		began := time.Now()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				got := string(w.do(w.t.Context(), "GET", "/patroni", "").body)
				if !strings.Contains(got, `"state": "unknown", "role": "primary"`) || strings.Contains(got, "xlog") {
					w.t.Error(got)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took != lookPatience {
			w.t.Errorf("took %v", took)
		}
		if n := w.agent.observed; n != 1 {
			w.t.Errorf("%d observations of a server that hangs", n)
		}
		began = time.Now()
		for _, path := range []string{"/primary", "/leader"} {
			if out := w.do(w.t.Context(), "OPTIONS", path, ""); out.code != 200 {
				w.t.Errorf("%s: %d", path, out.code)
			}
		}
		if took := time.Since(began); took != 0 {
			w.t.Errorf("checks of the lease took %v", took)
		}
	})
}

// TestLeaseIsJudgedWhenTheAnswerIsWritten: not when the question came, a look before.
func TestLeaseIsJudgedWhenTheAnswerIsWritten(t *testing.T) {
	bubble(t, func(w *world) {
		defer w.agent.hang()()
		answer := make(chan *reply, 1)
		go func() { answer <- w.do(w.t.Context(), "GET", "/primary", "") }()
		synctest.Wait()
		w.agent.change(func(s *fsm.State) { s.Holder = fsm.Holder{} })
		if out := <-answer; out.code != 503 {
			w.t.Errorf("status %d", out.code)
		}
	})
}

// TestLookFromBeforeACrashIsNotBelieved: the machine learned of the server's end while
// the look was on its way.
func TestLookFromBeforeACrashIsNotBelieved(t *testing.T) {
	bubble(t, func(w *world) {
		proceed := make(chan struct{})
		w.agent.observe = func(context.Context) (events.PostgresState, error) {
			<-proceed
			return leaderState().Postgres.State, nil
		}
		answer := make(chan *reply, 1)
		go func() { answer <- w.do(w.t.Context(), "GET", "/health", "") }()
		synctest.Wait()
		w.agent.change(func(s *fsm.State) {
			s.Postgres.State.Running, s.Postgres.State.Ready, s.Postgres.After = false, false, nowMono+1
			s.Postgres.Down = &events.PostgresDown{Signal: 9}
		})
		close(proceed)
		out := <-answer
		if out.code != 503 || !strings.HasPrefix(string(out.body), `{"state": "crashed", "role": "primary"`) {
			w.t.Errorf("%d %s", out.code, out.body)
		}
	})
}

// TestLookThatAnOperationEndedUnderIsRepeated: members that compare positions ask in the very
// moment in which the one that they ask leaves its old upstream. It must not pass for silent.
func TestLookThatAnOperationEndedUnderIsRepeated(t *testing.T) {
	bubble(t, func(w *world) {
		began, proceed := time.Now(), make(chan struct{})
		w.server.mono = func() events.Instant { return nowMono.Add(time.Since(began)) }
		w.agent.observe = func(context.Context) (events.PostgresState, error) {
			<-proceed
			return leaderState().Postgres.State, nil
		}
		answer := make(chan *reply, 1)
		go func() { answer <- w.do(w.t.Context(), "GET", "/patroni", "") }()
		time.Sleep(time.Millisecond) // of the bubble's clock
		w.agent.change(func(s *fsm.State) { s.Postgres.After = w.server.mono() })
		close(proceed)
		out := <-answer
		if !strings.HasPrefix(string(out.body), `{"state": "running", `) || !strings.Contains(string(out.body), `"location"`) {
			w.t.Errorf("%d %s", out.code, out.body)
		}
	})
}

// TestServerThatStoppedAnsweringIsUnknown: it runs, and was ready a heartbeat ago.
func TestServerThatStoppedAnsweringIsUnknown(t *testing.T) {
	bubble(t, func(w *world) {
		w.agent.server.Ready, w.agent.server.Why = false, "no connection is left"
		out := w.do(w.t.Context(), "GET", "/health", "")
		if out.code != 503 || !strings.HasPrefix(string(out.body), `{"state": "unknown", "role": "primary"`) {
			w.t.Errorf("%d %s", out.code, out.body)
		}
	})
}

func TestTimesAndUnits(t *testing.T) {
	for in, want := range map[string]string{
		"2026-11-22 22:08:30.770138+00": "2026-11-22 22:08:30.770138+00:00",
		"2026-11-22 22:08:30+05:30":     "2026-11-22 22:08:30.000000+05:30",
		"1890-01-01 00:00:00-00:25:21":  "1890-01-01 00:00:00.000000-00:25",
		"infinity":                      "infinity",
		"":                              "",
	} {
		if got := events.PythonTime(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]int64{
		"0": 0, "10MB": 10 << 20, " 16 kB ": 16384, "1.5GB": 3 << 29, "-1": -1, "7B": 7, "1TB": 1 << 40,
	} {
		if got, ok := parseBytes(in); !ok || got != want {
			t.Errorf("%q: %d %v, want %d", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "kB", "1KB", "1mb", "x1", "1e3", "0x10", "1 2", "9999999999TB", "inf", "nan"} {
		if got, ok := parseBytes(in); ok {
			t.Errorf("%q: %d, want nothing", in, got)
		}
	}
	for in, want := range map[string]int{"9.5.2": 90502, "9.6": 90600, "15.3": 150003, "10.0": 100000} {
		if got, ok := parseVersion(in); !ok || got != want {
			t.Errorf("%q: %d %v, want %d", in, got, ok, want)
		}
	}
	for _, in := range []string{"9", "", "15.", "15.x", "15.3.1.2", "1000.1", "15.-3"} {
		if got, ok := parseVersion(in); ok {
			t.Errorf("%q: %d, want nothing", in, got)
		}
	}
	for in, want := range map[string]string{
		"2030-01-01T10:00:00+00:00": "2030-01-01T10:00:00Z", "2030-01-01 10:00 +0200": "2030-01-01T08:00:00Z",
		"2030-01-01T10:00:00.123456Z": "2030-01-01T10:00:00.123456Z", "2030-01-01t10:00z": "2030-01-01T10:00:00Z",
		"2030-01-01 10:00:00 UTC": "2030-01-01T10:00:00Z", "2030-01-01T10-05": "2030-01-01T15:00:00Z",
	} {
		at, zoned, ok := parseTime(in)
		if got := at.UTC().Format(time.RFC3339Nano); !ok || !zoned || got != want {
			t.Errorf("%q: %s %v %v, want %s", in, got, zoned, ok, want)
		}
	}
	if _, _, ok := parseTime("tomorrow"); ok {
		t.Error("tomorrow is no time")
	}
}
