package keeper_test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// TestKilledKeepersPostgresGoesDown: S4. The kernel sends the postmaster SIGQUIT when
// the keeper is gone; no writable server stays without its guard.
func TestKilledKeepersPostgresGoesDown(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	writes := w.writer()
	w.eventually("the writer writes", func() error {
		if _, n := writes.state(); n < 10 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	killed := mono.Now()
	signalPID(t, st.KeeperPID, syscall.SIGKILL)
	<-w.k.Done()
	w.eventually("PostgreSQL is gone", func() error {
		if left := pgtest.ProcessesIn(w.data); len(left) > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	})
	took := mono.Now().Sub(killed)
	<-writes.ended
	last, _ := writes.state()
	t.Logf("last commit %s, all gone %s after the keeper's death", last.Sub(killed), took)
	if took > 3*time.Second {
		t.Errorf("PostgreSQL was gone %s after its keeper, want about a second at most", took)
	}
	if _, err := w.k.Status(w.ctx()); !errors.Is(err, keeper.ErrUnavailable) {
		t.Errorf("status of a dead keeper: %v, want unavailable", err)
	}
	// Another keeper takes over the folder, and PostgreSQL recovers.
	w.k = w.launch()
	w.start(&g)
}

// TestKeeperDoesNotEndWhileItsPostgresLives: S4.
func TestKeeperDoesNotEndWhileItsPostgresLives(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	refused(t, w.k.Shutdown(w.ctx()), "lives")
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE} {
		signalPID(t, st.KeeperPID, sig)
	}
	for range 3 { // each signal is handled by the time the last answer comes
		if now, err := w.k.Status(w.ctx()); err != nil || !now.Alive {
			t.Fatalf("status %+v (%v), want the server alive", now, err)
		}
	}
	w.session().must(`select 1`)
	if err := w.k.Stop(w.ctx(), keeper.StopFast); err != nil {
		t.Fatal(err)
	}
	if err := w.k.WaitDown(w.ctx()); err != nil {
		t.Fatal(err)
	}
	if err := w.k.Shutdown(w.ctx()); err != nil {
		t.Fatal(err)
	}
	<-w.k.Done()
	w.eventually("the keeper is gone", func() error {
		if !gone(st.KeeperPID) {
			return fmt.Errorf("pid %d lives", st.KeeperPID)
		}
		return nil
	})
	if _, err := keeper.Connect(w.ctx(), w.run); !errors.Is(err, keeper.ErrUnavailable) {
		t.Errorf("connect to an ended keeper: %v, want unavailable", err)
	}
}

func TestIdleKeeperEndsOnASignal(t *testing.T) {
	w := newWorld(t)
	st, err := w.k.Status(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	signalPID(t, st.KeeperPID, syscall.SIGTERM)
	<-w.k.Done()
	w.eventually("the keeper is gone", func() error {
		if !gone(st.KeeperPID) {
			return fmt.Errorf("pid %d lives", st.KeeperPID)
		}
		return nil
	})
}

// foreign starts a postmaster that isn't the keeper's child, as by hand.
func (w *world) foreign() (pid int, wait func() error) {
	w.t.Helper()
	cmd := exec.Command(filepath.Join(pgtest.BinDir(w.t), "postgres"), "-D", w.data, "-k", w.run)
	cmd.Dir = w.data
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	w.t.Cleanup(func() {
		pgtest.KillIn(w.t, w.data)
		<-ended
	})
	w.session().close()
	return cmd.Process.Pid, func() error {
		err := <-ended
		ended <- err // for the clean-up
		return err
	}
}

// TestAdoptedPostmasterIsFenced: S5 with S2.
func TestAdoptedPostmasterIsFenced(t *testing.T) {
	w := newWorld(t)
	pid, _ := w.foreign()
	_, err := w.k.Start(w.ctx(), w.startRequest(&keeper.Grant{Revision: 1, Deadline: mono.Now().Add(time.Hour), Budget: time.Second}))
	refused(t, err, "adopt or stop it")
	refused(t, w.k.Extend(w.ctx(), longGrant()), "no server runs")
	c := w.crowd()
	signalPID(t, c.idle.pid, syscall.SIGSTOP)
	st, err := w.k.Adopt(w.ctx(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if st.PID != pid || !st.Adopted || !st.Alive || st.Armed != nil {
		t.Errorf("status %+v, want pid %d adopted and not armed", st, pid)
	}
	if off := mono.Now().Sub(st.Started); off < 0 || off > time.Minute {
		t.Errorf("started %s ago", off)
	}
	if _, err := w.k.Adopt(w.ctx(), pid); err != nil {
		t.Errorf("adopting it again: %v", err)
	}
	last := grant(2, 2500*time.Millisecond, 2*time.Second)
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	down, steps := w.during(last.Deadline)
	w.checkFenced(c, last.Deadline)
	if kinds(steps) != "fence_begun fence_escalated fence_escalated postmaster_exited" {
		t.Errorf("steps %q, want all stages", kinds(steps))
	}
	if !down.At.Before(last.Deadline) {
		t.Errorf("the server was down %s after the deadline", down.At.Sub(last.Deadline))
	}
	if e := down.Exit; e.PID != pid || e.Code != -1 || !e.Fenced {
		t.Errorf("exit %+v, want pid %d fenced, exit status unknown", *e, pid)
	}
}

// TestAdoptedServerIsDownOnlyWhenItsLastBackendIsGone: S5 with S1. Orphans of an
// adopted postmaster aren't the keeper's children; /proc finds them.
func TestAdoptedServerIsDownOnlyWhenItsLastBackendIsGone(t *testing.T) {
	w := newWorld(t)
	pid, _ := w.foreign()
	if _, err := w.k.Adopt(w.ctx(), pid); err != nil {
		t.Fatal(err)
	}
	s := w.session()
	s.must(`create unlogged table busy (i int)`)
	work := s.background(busySQL)
	w.active(s.pid, "insert into busy")
	signalPID(t, pid, syscall.SIGKILL)
	w.next(keeper.ServerDown)
	if left := pgtest.ProcessesIn(w.data); len(left) > 0 {
		t.Errorf("the server was reported down with processes %v left", left)
	}
	if o := <-work; o.err == nil {
		t.Error("a commit was acknowledged after the postmaster's death")
	}
	// From the next start on it is the keeper's own.
	g := longGrant()
	if st := w.start(&g); st.Adopted {
		t.Error("a server of its own counts as adopted")
	}
}

// TestStoppingAnAdoptedServer: signals reach it through its handle.
func TestStoppingAnAdoptedServer(t *testing.T) {
	w := newWorld(t)
	pid, wait := w.foreign()
	if _, err := w.k.Adopt(w.ctx(), pid); err != nil {
		t.Fatal(err)
	}
	if err := w.k.Stop(w.ctx(), keeper.StopFast); err != nil {
		t.Fatal(err)
	}
	if err := w.k.WaitDown(w.ctx()); err != nil {
		t.Fatal(err)
	}
	if err := wait(); err != nil {
		t.Errorf("the postmaster ended with %v, want a clean exit", err)
	}
}

// TestAdoptIsRefused: what isn't surely the postmaster of this data directory isn't
// taken in charge.
func TestAdoptIsRefused(t *testing.T) {
	w := newWorld(t)
	_, err := w.k.Adopt(w.ctx(), 0)
	refused(t, err, "postmaster.pid")

	sleeper := exec.Command("sleep", "1000")
	sleeper.Dir = w.data
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sleeper.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = sleeper.Wait() // it was killed, and says so
	})
	pid := sleeper.Process.Pid
	now := time.Now().Unix()
	writePIDFile(t, w.data, pid, w.data, now)
	_, err = w.k.Adopt(w.ctx(), 0)
	refused(t, err, "not postgres")
	_, err = w.k.Adopt(w.ctx(), 1)
	refused(t, err, "names process")
	writePIDFile(t, w.data, pid, "/elsewhere", now)
	_, err = w.k.Adopt(w.ctx(), 0)
	refused(t, err, "is about data directory")
}

// TestAdoptJudgesThePostmaster: a real one, but of another data directory, or of
// another time.
func TestAdoptJudgesThePostmaster(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	pid, _ := other.foreign()
	writePIDFile(t, w.data, pid, w.data, time.Now().Unix())
	_, err := w.k.Adopt(w.ctx(), 0)
	refused(t, err, "works in")

	writePIDFile(t, other.data, pid, other.data, time.Now().Unix()-60)
	_, err = other.k.Adopt(other.ctx(), 0)
	refused(t, err, "another process with its pid")
}
