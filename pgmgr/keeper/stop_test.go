package keeper_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgregent/regent/pgmgr/keeper"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// busySQL keeps a backend busy for seconds without ever looking at its
// postmaster, and ends in an acknowledged commit if nobody stops it.
const busySQL = `insert into busy select g from generate_series(1, 12000000) g`

// TestServerIsDownOnlyWhenItsLastBackendIsGone: S1. After SIGKILL of the
// postmaster a busy backend goes on to its commit; the keeper ends it at once, and
// says "down" only then.
func TestServerIsDownOnlyWhenItsLastBackendIsGone(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	s := w.session()
	s.must(`create unlogged table busy (i int)`)
	work := s.background(busySQL)
	w.active(s.pid, "insert into busy")

	signalPID(t, st.PID, syscall.SIGKILL)
	down, before := w.next(keeper.ServerDown)
	if !gone(s.pid) {
		t.Error("the server was reported down while a busy backend was alive")
	}
	if left := pgtest.ProcessesIn(w.data); len(left) > 0 {
		t.Errorf("the server was reported down with processes %v left", left)
	}
	if kinds(before) != "postmaster_exited" {
		t.Errorf("before the server's end came %q, want the postmaster's exit", kinds(before))
	}
	switch o := <-work; {
	case o.err == nil:
		t.Error("a commit was acknowledged after the postmaster's death")
	case down.At < before[0].At:
		t.Error("the server was down before its postmaster")
	}
	if e := down.Exit; e.PID != st.PID || e.Signal != int(syscall.SIGKILL) || e.Code != -1 || e.Ours || e.Fenced {
		t.Errorf("exit %+v, want the postmaster's SIGKILL, not ours", *e)
	}
	now, err := w.k.Status(w.ctx())
	if err != nil || now.Alive || now.PID != 0 || now.Armed != nil || now.LastExit == nil {
		t.Errorf("status %+v (%v), want a server that is down and disarmed", now, err)
	}
	// Nothing is in the way of the next start.
	next := longGrant()
	w.start(&next)
}

// TestStopModes: each ends the whole server, and the exit says that it was ours.
func TestStopModes(t *testing.T) {
	for _, mode := range []keeper.StopMode{keeper.StopFast, keeper.StopImmediate, keeper.StopKill} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			g := longGrant()
			w.start(&g)
			busy := w.session()
			busy.must(`create unlogged table busy (i int)`)
			work := busy.background(busySQL)
			w.active(busy.pid, "insert into busy")
			if err := w.k.Stop(w.ctx(), mode); err != nil {
				t.Fatal(err)
			}
			if err := w.k.WaitDown(w.ctx()); err != nil {
				t.Fatal(err)
			}
			if left := pgtest.ProcessesIn(w.data); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
			if o := <-work; o.err == nil {
				t.Error("the busy backend's commit was acknowledged")
			}
			down, _ := w.next(keeper.ServerDown)
			if !down.Exit.Ours || down.Exit.Fenced {
				t.Errorf("exit %+v, want ours and not fenced", *down.Exit)
			}
			if mode == keeper.StopFast && down.Exit.Code != 0 {
				t.Errorf("exit code %d of a fast stop", down.Exit.Code)
			}
			if err := w.k.Stop(w.ctx(), mode); err != nil {
				t.Errorf("stopping a stopped server: %v", err)
			}
		})
	}
}

// TestKillTreeEndsStoppedProcesses: neither a stopped backend nor a stopped
// postmaster can hold up the kill-tree.
func TestKillTreeEndsStoppedProcesses(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	s := w.session()
	signalPID(t, s.pid, syscall.SIGSTOP)
	signalPID(t, st.PID, syscall.SIGSTOP)
	if err := w.k.Stop(w.ctx(), keeper.StopKill); err != nil {
		t.Fatal(err)
	}
	if err := w.k.WaitDown(w.ctx()); err != nil {
		t.Fatal(err)
	}
	if !gone(s.pid) || !gone(st.PID) {
		t.Error("a stopped process is left")
	}
}

// TestKillTreeStopsThePostmasterFirst: it notices nothing of what happens to its
// children, and so starts no other in their place.
func TestKillTreeStopsThePostmasterFirst(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	w.start(&g)
	for range 12 {
		w.session()
	}
	if err := w.k.Stop(w.ctx(), keeper.StopKill); err != nil {
		t.Fatal(err)
	}
	if err := w.k.WaitDown(w.ctx()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(w.run, "postgres.log"))
	if err != nil || !strings.Contains(string(b), "ready to accept connections") {
		t.Fatalf("the log says %q (%v)", b, err)
	}
	if strings.Contains(string(b), "terminated by signal 9") {
		t.Error("the postmaster saw its children die")
	}
}

// TestProgramsOfBackendsEndWithTheServer: COPY FROM PROGRAM starts a process that is
// no PostgreSQL process and outlives its backend's kill.
func TestProgramsOfBackendsEndWithTheServer(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	s := w.session()
	s.must(`create table t (l text)`)
	const sql = `copy t from program 'cd / && exec setsid sleep 1000'`
	work := s.background(sql)
	w.active(s.pid, "copy t from")
	signalPID(t, st.PID, syscall.SIGKILL)
	if err := w.k.WaitDown(w.ctx()); err != nil {
		t.Fatal(err)
	}
	if o := <-work; o.err == nil {
		t.Error("the copy was acknowledged")
	}
	// A sleep that were left would be a leftover of this run, which the
	// supervisor of the tests fails on.
}
