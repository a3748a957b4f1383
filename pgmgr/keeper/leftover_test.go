package keeper_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgregent/regent/pgmgr/keeper"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// busyForever commits again and again, and never looks at its postmaster.
const busyForever = `do $$ begin loop insert into busy values (1); commit; end loop; end $$`

// committing starts a backend that goes on committing whatever happens to its
// postmaster, and returns its session.
func (w *world) committing() *session {
	w.t.Helper()
	s := w.session()
	s.must(`create unlogged table busy (i int)`)
	work := s.background(busyForever)
	w.t.Cleanup(func() { <-work })
	w.active(s.pid, "do ")
	return s
}

// killTogether kills the keeper and its postmaster so that neither lives to do
// anything about the other's death.
func (w *world) killTogether(st keeper.Status) {
	w.t.Helper()
	signalPID(w.t, st.KeeperPID, syscall.SIGSTOP)
	w.frozen(st.KeeperPID)
	signalPID(w.t, st.PID, syscall.SIGKILL)
	signalPID(w.t, st.KeeperPID, syscall.SIGKILL)
	<-w.k.Done()
	w.eventually("keeper and postmaster are gone", func() error {
		if !gone(st.KeeperPID) || !gone(st.PID) {
			return fmt.Errorf("not yet")
		}
		return nil
	})
}

// TestBackendsThatOutliveTheirKeeperAreNotCalledDown: S1. Nobody guards a busy backend
// that outlived keeper and postmaster. The next keeper says that the server lives
// until it has killed the last of them, and starts nothing before.
func TestBackendsThatOutliveTheirKeeperAreNotCalledDown(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	busy, stopped := w.committing(), w.session()
	stopped.must(`begin; insert into busy values (2)`)
	signalPID(t, stopped.pid, syscall.SIGSTOP)
	w.killTogether(st)
	if gone(busy.pid) || gone(stopped.pid) {
		t.Fatal("the backends ended with their postmaster, so nothing is proven")
	}
	w.k = w.launch()
	down, _ := w.next(keeper.ServerDown)
	if !gone(busy.pid) || !gone(stopped.pid) {
		t.Error("the server was reported down while its backends were alive")
	}
	if left := pgtest.ProcessesIn(w.data); len(left) > 0 {
		t.Errorf("the server was reported down with processes %v left", left)
	}
	if e := down.Exit; e.PID != st.PID || e.Code != -1 || e.Ours || e.Fenced {
		t.Errorf("exit %+v, want the end of %d, not ours", *e, st.PID)
	}
	if now := w.status(); now.Alive || now.Foreign != 0 {
		t.Errorf("status %+v, want a server that is down", now)
	}
	next := longGrant()
	w.start(&next)
	if n := w.session().must(`select count(*) from busy where i = 2`); n != "0" {
		t.Errorf("%s rows of the open transaction are there", n)
	}
}

// TestStatusNeverDeniesALivingBackend asks again and again, from the first moment of a
// keeper's life on.
func TestStatusNeverDeniesALivingBackend(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	busy := w.committing()
	w.killTogether(st)
	if gone(busy.pid) {
		t.Fatal("the backend ended with its postmaster, so nothing is proven")
	}
	w.k = w.launch()
	denied := 0
	w.eventually("the server is down", func() error {
		seen, err := keeper.Peek(w.ctx(), w.run)
		if err != nil {
			return err
		}
		if seen.Alive {
			return fmt.Errorf("alive")
		}
		if !gone(busy.pid) {
			denied++
		}
		return nil
	})
	if denied > 0 {
		t.Error("the keeper called the server down while a backend was alive")
	}
}

// TestOrphansOfAForeignServer: a keeper that guards nothing sees a server that somebody
// else runs, leaves it alone, and ends what outlives its postmaster.
func TestOrphansOfAForeignServer(t *testing.T) {
	w := newWorld(t)
	pid, _ := w.foreign()
	busy := w.committing()
	if st := w.status(); !st.Alive || st.Foreign != pid || st.PID != 0 {
		t.Errorf("status %+v, want foreign server %d", st, pid)
	}
	_, err := w.k.Start(w.ctx(), w.startRequest(&keeper.Grant{}))
	refused(t, err, "adopt or stop it")
	if gone(pid) || gone(busy.pid) {
		t.Fatal("a foreign server's processes were killed")
	}
	signalPID(t, pid, syscall.SIGKILL)
	w.eventually("the server is down", func() error {
		if st := w.status(); st.Alive {
			return fmt.Errorf("status %+v", st)
		}
		return nil
	})
	if !gone(busy.pid) {
		t.Error("the server was called down while a busy backend was alive")
	}
}

// TestKeeperDoesNotEndBesideOrphans: S4 counts them as its PostgreSQL.
func TestKeeperDoesNotEndBesideOrphans(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	busy := w.committing()
	w.killTogether(st)
	if gone(busy.pid) {
		t.Fatal("the backend ended with its postmaster, so nothing is proven")
	}
	w.k = w.launch()
	for {
		err := w.k.Shutdown(w.ctx())
		if err == nil {
			break
		}
		refused(t, err, "live")
	}
	if !gone(busy.pid) {
		t.Error("the keeper ended while a backend was alive")
	}
}

// TestSingleUserModeIsLeftAlone: the agent runs it while the server is down, for crash
// recovery before a rewind. It is nobody's server.
func TestSingleUserModeIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	cmd := exec.Command(filepath.Join(pgtest.BinDir(t), "postgres"), "--single", "-D", w.data, "postgres")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	w.eventually("it works in the data directory", func() error {
		if left := pgtest.ProcessesIn(w.data); len(left) == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	for range 50 { // each look would wake the killer
		if st := w.status(); st.Alive {
			t.Fatalf("status %+v counts a tool", st)
		}
	}
	_, err = w.k.Start(w.ctx(), w.startRequest(&keeper.Grant{Revision: 1, Budget: 1}))
	refused(t, err, "runs already")
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil || strings.Contains(out.String(), "FATAL") {
		t.Errorf("it ended with %v: %s", err, out.String())
	}
}
