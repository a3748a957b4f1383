package pgmgr

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
)

func TestObserveSaysWhyAServerDoesNotAnswer(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	if st := a.observe(); st.Running || st.Ready || st.Data.Content != events.DataCluster || st.Data.ControlState != stateShutDown {
		t.Errorf("down: %+v", st)
	}
	a.startPrimary()
	a.observe()

	a.kill()
	if st := a.observe(); st.Running || st.Data.ControlState != stateInProduction {
		t.Errorf("killed: %+v", st)
	}
	a.startPrimary()
	if st := a.observe(); !st.Ready {
		t.Errorf("started again, the kept connection being dead: %+v", st)
	}
	a.freezeMonitor(func() {
		began := time.Now()
		st := a.observe()
		if !st.Running || st.Ready || !strings.Contains(st.Why, "hung") {
			t.Errorf("frozen: %+v", st)
		}
		t.Logf("a frozen server is reported after %s: %s", time.Since(began).Round(time.Millisecond), st.Why)
	})
	if st := a.observe(); !st.Ready {
		t.Errorf("thawed: %+v", st)
	}
}

// freezeMonitor stops the backend of the kept connection.
func (n *node) freezeMonitor(during func()) {
	n.t.Helper()
	pid := int(n.monitor.conn.PID())
	n.must("freeze", syscall.Kill(pid, syscall.SIGSTOP))
	defer func() { n.must("thaw", syscall.Kill(pid, syscall.SIGCONT)) }()
	during()
}

func TestObserveOutOfConnections(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	a.startPrimary()
	for {
		conn, err := a.session()
		if sqlCode(err) == codeTooManyConnections {
			break
		}
		a.must("take a connection", err)
		defer hangUp(conn)
	}
	st := a.observe()
	if st.Ready || !st.Running || !strings.Contains(st.Why, "out of connections") {
		t.Errorf("observed as %+v", st)
	}
	a.wantClass("start what is up and can't be asked", a.Start(a.ctx(), StartOptions{Grant: longGrant()}), ErrUnavailable)
}

func TestObserveWithoutItsKeeperStillLooks(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	pid := a.pid()
	a.must("close", a.k.Close())
	st, err := a.Observe(a.ctx())
	a.wantClass("observe", err, ErrUnavailable)
	if !st.Running || st.PID != pid || !st.Ready {
		t.Errorf("observed as %+v", st)
	}
}

func TestPendingRestartAndReload(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	if a.observe().PendingRestart {
		t.Fatal("a restart is pending after a fresh start")
	}
	a.param("shared_buffers", "24MB")
	a.param("max_connections", "70")
	a.param("work_mem", "5MB")
	changed, err := a.WriteConfig(a.ctx(), RolePrimary, nil)
	a.must("write", err)
	if !changed {
		t.Error("nothing was written")
	}
	a.must("reload", a.Reload(a.ctx()))
	a.eventually("the reload is seen", func() error {
		st := a.observe()
		if !st.PendingRestart {
			return errors.New("no restart is pending")
		}
		const want = `{"max_connections":{"old_value":"30","new_value":"70"},"shared_buffers":{"old_value":"16MB","new_value":"24MB"}}`
		if got := string(st.PendingReason); got != want {
			return fmt.Errorf("it is pending because of %s, want %s", got, want)
		}
		return nil
	})
	if got := a.sql("SHOW work_mem"); got != "5MB" {
		t.Errorf("work_mem is %s", got)
	}
	if changed, err := a.WriteConfig(a.ctx(), RolePrimary, nil); err != nil || changed {
		t.Errorf("writing the same again: %t, %v", changed, err)
	}
	a.stop()
	a.startPrimary()
	if a.observe().PendingRestart {
		t.Error("a restart is pending after the restart")
	}
}

func TestClientsAreCountedWithoutOurOwnSessions(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	if st := a.observe(); st.ClientBackends != 0 {
		t.Errorf("%d clients on an idle server", st.ClientBackends)
	}
	conn, err := a.session()
	a.must("connect", err)
	defer hangUp(conn)
	if st := a.observe(); st.ClientBackends != 1 {
		t.Errorf("%d clients, want 1", st.ClientBackends)
	}
}
