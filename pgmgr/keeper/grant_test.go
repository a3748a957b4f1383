package keeper_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/pgmgr/keeper"
)

func tryConnect(ctx context.Context, socketDir string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, fmt.Sprintf("host=%s port=5432 user=postgres dbname=postgres", socketDir))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// TestStartIsRefused: S3, before anything runs.
func TestStartIsRefused(t *testing.T) {
	w := newWorld(t)
	other := newWorld(t)
	tests := []struct {
		name, sentence string
		change         func(*keeper.StartRequest)
	}{
		{"no grant and no standby", "standby.signal", func(*keeper.StartRequest) {}},
		{"deadline past", "past", func(r *keeper.StartRequest) {
			g := grant(1, -time.Second, time.Second)
			r.Grant = &g
		}},
		{"fencing would begin at once", "past", func(r *keeper.StartRequest) {
			g := grant(1, time.Second, 2*time.Second)
			r.Grant = &g
		}},
		{"no budget", "budget", func(r *keeper.StartRequest) {
			g := grant(1, time.Hour, 0)
			r.Grant = &g
		}},
		{"no program", "absolute path", func(r *keeper.StartRequest) { r.Args = nil }},
		{"another program", "absolute path", func(r *keeper.StartRequest) { r.Args = []string{"/bin/sleep", "1"} }},
		{"another data directory", "names data directory", func(r *keeper.StartRequest) {
			g := longGrant()
			r.Grant, r.Args = &g, []string{r.Args[0], "-D", other.data}
		}},
		{"a program that isn't there", "no such file", func(r *keeper.StartRequest) {
			g := longGrant()
			r.Grant, r.Args = &g, []string{"/nowhere/postgres", "-D", w.data}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := w.startRequest(nil)
			tt.change(&r)
			st, err := w.k.Start(w.ctx(), r)
			refused(t, err, tt.sentence)
			if st.Alive || st.Armed != nil || st.Fencing {
				t.Errorf("after the refusal: %+v", st)
			}
		})
	}
	g := longGrant()
	w.start(&g)
	_, err := w.k.Start(w.ctx(), w.startRequest(&g))
	refused(t, err, "runs already")
}

// TestRecoverySignalAloneIsNoStandby: such a server becomes writable by itself when
// its recovery ends.
func TestRecoverySignalAloneIsNoStandby(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(filepath.Join(w.data, "recovery.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := w.k.Start(w.ctx(), w.startRequest(nil))
	refused(t, err, "standby.signal")
}

// TestExtend: within a revision only forward, never to an older revision, never past.
func TestExtend(t *testing.T) {
	w := newWorld(t)
	refused(t, w.k.Extend(w.ctx(), longGrant()), "no server runs")
	first := grant(5, time.Hour, time.Second)
	w.start(&first)
	armed := func() keeper.Grant {
		t.Helper()
		st, err := w.k.Status(w.ctx())
		if err != nil || st.Armed == nil {
			t.Fatalf("status %+v (%v), want an armed server", st, err)
		}
		return *st.Armed
	}
	must := func(g, want keeper.Grant) {
		t.Helper()
		if err := w.k.Extend(w.ctx(), g); err != nil {
			t.Fatal(err)
		}
		if got := armed(); got != want {
			t.Errorf("armed with %+v, want %+v", got, want)
		}
	}
	later := keeper.Grant{Revision: 5, Deadline: first.Deadline + 100, Budget: time.Second}
	must(later, later)
	must(first, later) // a renewal whose answer came late
	refused(t, w.k.Extend(w.ctx(), grant(4, 2*time.Hour, time.Second)), "older")
	refused(t, w.k.Extend(w.ctx(), grant(5, -time.Second, time.Second)), "past")
	if got := armed(); got != later {
		t.Errorf("a refused extension changed the grant to %+v", got)
	}
	// A new lease with a shorter TTL ends sooner, and so does the belief in it.
	newer := grant(6, time.Minute, time.Second)
	must(newer, newer)
	refused(t, w.k.Extend(w.ctx(), grant(5, 2*time.Hour, time.Second)), "older")

	if err := w.k.Disarm(w.ctx(), pause(3)); err != nil {
		t.Fatal(err)
	}
	stale := grant(5, time.Hour, time.Second)
	stale.Config = 4
	refused(t, w.k.Extend(w.ctx(), stale), "older")
	again := grant(6, time.Minute, time.Second)
	again.Config = 4
	must(again, again)
}

// TestPromote: S3. Armed before it is writable, refused when it can't be armed.
func TestPromote(t *testing.T) {
	w := newWorld(t)
	refused(t, w.k.Promote(w.ctx(), longGrant()), "isn't a standby")
	w.standby()
	refused(t, w.k.Promote(w.ctx(), longGrant()), "no server runs")
	w.start(nil)
	s := w.session()
	refused(t, w.k.Promote(w.ctx(), grant(3, -time.Second, time.Second)), "past")
	if st, err := w.k.Status(w.ctx()); err != nil || st.Armed != nil {
		t.Errorf("status %+v (%v), want a standby that isn't armed", st, err)
	}
	if v := s.must(`select pg_is_in_recovery()`); v != "t" {
		t.Fatal("the refused promotion promoted")
	}
	g := grant(4, time.Hour, time.Second)
	if err := w.k.Promote(w.ctx(), g); err != nil {
		t.Fatal(err)
	}
	if st, err := w.k.Status(w.ctx()); err != nil || st.Armed == nil || *st.Armed != g {
		t.Errorf("status %+v (%v), want it armed with %+v", st, err, g)
	}
	w.eventually("recovery ends", func() error {
		if s.must(`select pg_is_in_recovery()`) != "f" {
			return fmt.Errorf("still in recovery")
		}
		return nil
	})
	s.must(`create table writable (i int)`)
	refused(t, w.k.Promote(w.ctx(), g), "isn't a standby")
}

// TestPromotionOfAStartingServer: SIGUSR1 would end a postmaster that has no
// handlers yet, and promotion must work as soon as it isn't refused.
func TestPromotionOfAStartingServer(t *testing.T) {
	w := newWorld(t)
	w.standby()
	st, err := w.k.Start(w.ctx(), w.startRequest(nil))
	if err != nil {
		t.Fatal(err)
	}
	refusals := 0
	w.eventually("the promotion is accepted", func() error {
		err := w.k.Promote(w.ctx(), longGrant())
		if err != nil {
			refused(t, err, "only being started")
			refusals++
		}
		return err
	})
	if refusals == 0 {
		t.Error("the first try came too late to prove anything")
	}
	s := w.session()
	w.eventually("recovery ends", func() error {
		if s.must(`select pg_is_in_recovery()`) != "f" {
			return fmt.Errorf("still in recovery")
		}
		return nil
	})
	if now, err := w.k.Status(w.ctx()); err != nil || now.PID != st.PID {
		t.Errorf("status %+v (%v), want postmaster %d alive", now, err, st.PID)
	}
}

// TestStoppingServerIsNotPromoted: a stop that was commanded wins.
func TestStoppingServerIsNotPromoted(t *testing.T) {
	w := newWorld(t)
	w.standby()
	w.start(nil)
	s := w.session()
	signalPID(t, s.pid, syscall.SIGSTOP) // keeps the fast stop from ending
	if err := w.k.Stop(w.ctx(), keeper.StopFast); err != nil {
		t.Fatal(err)
	}
	refused(t, w.k.Promote(w.ctx(), longGrant()), "being stopped")
	if err := w.k.Stop(w.ctx(), keeper.StopKill); err != nil {
		t.Fatal(err)
	}
	if err := w.k.WaitDown(w.ctx()); err != nil {
		t.Fatal(err)
	}
}
