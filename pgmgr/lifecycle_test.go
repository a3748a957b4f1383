package pgmgr

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestStartIsIdempotentAndRefusesTheOtherRole(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	pid := a.pid()
	a.startPrimary()
	a.wantClass("start a running primary as a standby", a.Start(a.ctx(), StartOptions{Standby: true}), ErrRefused)
	if a.pid() != pid {
		t.Error("the server was restarted")
	}
	b, c := replicaOf(t, "b", a), replicaOf(t, "c", a)
	pid = c.pid()
	c.startReplica(b) // another upstream: followed, not restarted
	c.awaitStreaming(b)
	c.wantClass("start a running standby as a primary", c.Start(c.ctx(), StartOptions{Grant: longGrant()}), ErrRefused)
	if c.pid() != pid {
		t.Error("the standby was restarted")
	}
}

func TestPrimaryIsNotStartedWithoutAGrantOrFromAStandbysDirectory(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	a.wantClass("start without a grant", a.Start(a.ctx(), StartOptions{}), ErrRefused)
	past := keeper.Grant{Revision: 1, Deadline: mono.Now().Add(-time.Second), Budget: time.Second}
	a.wantClass("start with a past grant", a.Start(a.ctx(), StartOptions{Grant: &past}), ErrRefused)
	if st := a.observe(); st.Running {
		t.Fatal("it runs")
	}
	a.startPrimary()
	b := emptyNode(t, "b")
	b.must("clone", b.Clone(b.ctx(), a.upstream(), CloneOptions{}))
	b.wantClass("start a fresh clone as a primary", b.Start(b.ctx(), StartOptions{Grant: longGrant()}), ErrRefused)
	b.startReplica(a).awaitStreaming(a)
	b.stop()
	b.wantClass("start a stopped standby as a primary", b.Start(b.ctx(), StartOptions{Grant: longGrant()}), ErrRefused)
	if !b.observe().Data.Standby {
		t.Error("the refusal took standby.signal away")
	}
}

func TestDemotedPrimaryComesBackInEitherRole(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	a.stop()
	a.must("start detached", a.Start(a.ctx(), StartOptions{Standby: true}))
	if st := a.observe(); !st.InRecovery || st.ConfiguredUpstream != "" || st.Timeline != 1 {
		t.Errorf("observed as %+v", st)
	}
	if tl := a.promote(); tl != 2 {
		t.Errorf("timeline %d", tl)
	}
	a.kill()
	a.startPrimary()
	if st := a.observe(); st.InRecovery || st.Timeline != 2 {
		t.Errorf("observed as %+v", st)
	}
}

func TestFailedStartTellsTheServersLastWords(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	a.param("shared_preload_libraries", "no_such_library")
	err := a.Start(a.ctx(), StartOptions{Grant: longGrant()})
	a.wantClass("start", err, ErrUnavailable)
	if !strings.Contains(err.Error(), "no_such_library") {
		t.Errorf("the error doesn't say why: %v", err)
	}
	if st := a.observe(); st.Running || st.Data.Content != events.DataCluster {
		t.Errorf("observed as %+v", st)
	}
}

func TestInvalidParametersAreLeftOut(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	a.param("no_such_parameter", "1")
	a.param("work_mem", "plenty")
	a.param("max_wal_senders", "1")
	a.param("my.own", "kept")
	a.startPrimary()
	if got := a.sql("SELECT current_setting('work_mem') || current_setting('max_wal_senders') || current_setting('my.own')"); got != "4MB10kept" {
		t.Errorf("settings %s", got)
	}
	for _, name := range []string{"no_such_parameter", "work_mem", "max_wal_senders"} {
		if !strings.Contains(a.logs.String(), name) {
			t.Errorf("nobody is told about %s", name)
		}
	}
}

func TestAnotherServerOnThePortIsNotTakenForOurs(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, "a").startPrimary(), newNode(t, "b")
	cfg := b.config()
	cfg.Port, cfg.LocalHost = a.config().Port, "127.0.0.1"
	b.must("reconfigure", b.Reconfigure(cfg))
	if err := b.Start(b.ctx(), StartOptions{Grant: longGrant()}); err == nil {
		t.Fatal("the other server passed for ours")
	}
	b.must("await the end", b.k.WaitDown(b.ctx()))
}

func TestStartTimesOutAsUnknown(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	b.stop()
	// A standby that has to reach WAL it can't get stays not ready for ever.
	a.insert(1000)
	b.must("clone", b.Clone(b.ctx(), a.upstream(), CloneOptions{Replace: true}))
	wal, err := filepath.Glob(filepath.Join(b.config().DataDir, "pg_wal", "0000*"))
	b.must("find WAL", err)
	for _, f := range wal {
		b.must("remove WAL", os.Remove(f))
	}
	err = b.Start(b.ctx(), StartOptions{Standby: true, Timeout: 500 * time.Millisecond})
	b.wantClass("start", err, ErrUnknown)
	st := b.observe()
	if !st.Running || st.Ready || st.Why == "" {
		t.Errorf("observed as %+v", st)
	}
	t.Logf("%v; observed: %s", err, st.Why)
}

func TestStandbyRunsWithThePrimarysHigherLimits(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	a.param("max_connections", "47")
	a.startPrimary()
	b := replicaOf(t, "b", a) // configured with 30
	if got := b.sql("SHOW max_connections"); got != "47" {
		t.Errorf("max_connections is %s", got)
	}
	if st := b.observe(); !st.PendingRestart || string(st.PendingReason) != `{"max_connections":{"old_value":"47","new_value":"30"}}` {
		t.Errorf("a restart is pending: %v, for %s", st.PendingRestart, st.PendingReason)
	}
}

func TestStalePIDFileOfAnotherProgramIsRemoved(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	self := strconv.Itoa(os.Getpid()) // alive, of this user, and no postmaster
	file := filepath.Join(a.config().DataDir, "postmaster.pid")
	a.must("write", os.WriteFile(file, []byte(self+"\n"+a.config().DataDir+"\n1\n5432\n/tmp\n\n"), 0o600))
	a.startPrimary()
}

func TestStopEscalatesAndEndsWithNoProcessLeft(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	conn, err := a.session()
	a.must("connect", err)
	defer hangUp(conn)
	// A stopped backend neither ends its session nor obeys SIGQUIT.
	a.must("stop a backend", syscall.Kill(int(conn.PID()), syscall.SIGSTOP))
	short, cancel := context.WithTimeout(a.ctx(), 100*time.Millisecond)
	defer cancel()
	a.wantClass("stop without patience", a.Stop(short, StopOptions{}), ErrUnknown)
	if !a.observe().Running {
		t.Error("a stopping server counts as down")
	}
	a.must("stop with escalation", a.Stop(a.ctx(), StopOptions{ImmediateAfter: 50 * time.Millisecond, KillAfter: 50 * time.Millisecond}))
	if left := pgtest.ProcessesIn(a.config().DataDir); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	a.must("stop again", a.Stop(a.ctx(), StopOptions{}))
	if st := a.observe(); st.Running || st.PID != 0 || st.Data.ControlState != stateInProduction {
		t.Errorf("observed as %+v", st)
	}
	a.startPrimary()
}

func TestShutdownCheckpointIsReportedBeforeTheEnd(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	a.param("archive_mode", "on")
	a.param("archive_command", "while [ ! -e ../go ]; do /bin/sleep 0.02; done") // holds the server after its last checkpoint
	a.startPrimary()
	b := replicaOf(t, "b", a)
	a.insert(10)
	var end, checkpoint events.LSN
	a.must("stop", a.Stop(a.ctx(), StopOptions{Checkpoint: true, OnShutDown: func(e, c events.LSN) {
		end, checkpoint = e, c
		if !a.observe().Running {
			t.Error("the server had ended before the report")
		}
		b.eventually("has everything", func() error {
			if FlushedLSN(b.observe()) < e {
				return errNoRecord
			}
			return nil
		})
		a.must("let it end", os.WriteFile(filepath.Join(a.config().DataDir, "..", "go"), nil, 0o600))
	}}))
	if end == 0 || checkpoint == 0 || end <= checkpoint {
		t.Errorf("reported %s and %s", end, checkpoint)
	}
}

func TestForeignServerIsReportedAndLeftAlone(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	pid := a.pid()
	b := nodeOn(t, "b", pgtest.EmptyDataDir(t), nil)
	cfg := b.config()
	cfg.DataDir = a.config().DataDir // as after a keeper's loss: a server nobody knows
	other := &Manager{pm: b.k, log: b.log, cfg: cfg}
	defer other.Close(t.Context())
	st, err := other.Observe(b.ctx())
	b.must("observe", err)
	if !st.Running || st.PID != pid {
		t.Errorf("observed as %+v, the server is %d", st, pid)
	}
	b.wantClass("start", other.Start(b.ctx(), StartOptions{Grant: longGrant()}), ErrRefused)
	b.wantClass("stop", other.Stop(b.ctx(), StopOptions{}), ErrRefused)
	b.wantClass("remove", other.RemoveDataDir(b.ctx()), ErrRefused)
	b.wantClass("recover", other.RecoverAlone(b.ctx()), ErrRefused)
	if !a.observe().Ready {
		t.Error("the server was touched")
	}
}
