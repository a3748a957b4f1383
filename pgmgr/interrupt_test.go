package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// slowClone makes base backups of the node slow enough to be interrupted.
func (n *node) slowClone() {
	n.t.Helper()
	cfg := n.config()
	cfg.Basebackup = []Option{{Name: "max-rate", Value: "32"}}
	n.must("reconfigure", n.Reconfigure(cfg))
}

func (n *node) fastClone() {
	n.t.Helper()
	cfg := n.config()
	cfg.Basebackup = nil
	n.must("reconfigure", n.Reconfigure(cfg))
}

func TestInterruptedCloneStartsOver(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := emptyNode(t, "b")
	b.slowClone()
	err := b.cancelWhen(filepath.Join(b.config().DataDir, "PG_VERSION"), func(ctx context.Context) error {
		return b.Clone(ctx, a.upstream(), CloneOptions{})
	})
	b.wantClass("interrupted clone", err, ErrUnavailable)
	b.wantAnew()
	if n := leftTools(b); n > 0 {
		t.Errorf("%d tools were left running", n)
	}
	if v := b.judge(a); v.Verdict != events.VerdictClone {
		t.Errorf("verdict on a half-made directory: %+v", v)
	}
	b.wantClass("rewind a half-made directory", b.Rewind(b.ctx(), a.upstream()), ErrRefused)
	b.fastClone()
	b.must("clone again", b.Clone(b.ctx(), a.upstream(), CloneOptions{}))
	b.rejoin(a)
}

// leftTools counts the processes that hold the work lock.
func leftTools(n *node) int { return killLeftovers(filepath.Join(n.config().RunDir, "work.lock")) }

func TestInterruptedReplacementStartsOver(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	b.stop()
	b.slowClone()
	err := b.cancelWhen(filepath.Join(b.config().DataDir, "backup_label"), func(ctx context.Context) error {
		return b.Clone(ctx, a.upstream(), CloneOptions{Replace: true})
	})
	b.wantClass("interrupted clone", err, ErrUnavailable)
	b.wantAnew()
	b.fastClone()
	b.must("clone again, without being told to replace", b.Clone(b.ctx(), a.upstream(), CloneOptions{}))
	b.rejoin(a)
}

func TestToolsLeftByAKilledAgentAreEnded(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := emptyNode(t, "b")
	// What a killed agent may leave: the marker, a half-filled directory, and a base
	// backup that goes on filling it.
	b.must("mark", b.mark(verbClone))
	lock, err := b.lockWork(b.ctx())
	b.must("lock", err)
	left := exec.Command(filepath.Join(pgtest.BinDir(t), "pg_basebackup"), "-D", b.config().DataDir, "-X", "stream", "--max-rate=32",
		"-h", "127.0.0.1", "-p", fmt.Sprint(a.config().Port), "-U", "postgres", "-c", "fast")
	left.ExtraFiles = []*os.File{lock}
	b.must("start the leftover", left.Start())
	b.must("close", lock.Close())
	b.eventually("the leftover writes", func() error {
		if !exists(filepath.Join(b.config().DataDir, "PG_VERSION")) {
			return errors.New("no PG_VERSION")
		}
		return nil
	})
	b.must("clone", b.Clone(b.ctx(), a.upstream(), CloneOptions{}))
	var exit *exec.ExitError
	if err := left.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the leftover base backup ended with %v, want SIGKILL", err)
	}
	b.rejoin(a)
}

// wrapped replaces one of PostgreSQL's programs by a shell script, in which $REAL
// is the real one.
func (n *node) wrapped(program, script string) {
	n.t.Helper()
	cfg := n.config()
	real := pgtest.BinDir(n.t)
	bin := filepath.Join(cfg.RunDir, "bin")
	n.must("make bin", os.MkdirAll(bin, 0o700))
	programs, err := filepath.Glob(filepath.Join(real, "*"))
	n.must("list programs", err)
	for _, p := range programs {
		to := filepath.Join(bin, filepath.Base(p))
		if filepath.Base(p) != program {
			n.must("link", os.Symlink(p, to))
			continue
		}
		text := "#!/bin/sh\nREAL=" + p + "\n" + script + "\n"
		n.must("write script", os.WriteFile(to, []byte(text), 0o700))
	}
	cfg.BinDir = bin
	n.must("reconfigure", n.Reconfigure(cfg))
}

func (n *node) unwrapped() {
	n.t.Helper()
	cfg := n.config()
	cfg.BinDir = pgtest.BinDir(n.t)
	n.must("reconfigure", n.Reconfigure(cfg))
}

// crashedWithExtraWAL is a diverged, crashed former primary and its successor.
func crashedWithExtraWAL(t *testing.T) (old, now *node) {
	t.Helper()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	diverge(t, a, b)
	a.kill()
	b.promote()
	return a, b.checkpointed()
}

func TestInterruptedRewindIsNeverStarted(t *testing.T) {
	t.Parallel()
	a, b := crashedWithExtraWAL(t)
	done := filepath.Join(a.config().RunDir, "rewind-done")
	a.wrapped("pg_rewind", `case "$*" in *--dry-run*) exec $REAL "$@";; esac
$REAL "$@"; : > `+done+`; exec /bin/sleep 1000`)
	err := a.cancelWhen(done, func(ctx context.Context) error { return a.Rewind(ctx, b.upstream()) })
	a.wantClass("interrupted rewind", err, ErrUnknown)
	a.unwrapped()
	a.wantUnusable(b)
	a.must("clone", a.Clone(a.ctx(), b.upstream(), CloneOptions{Replace: true}))
	a.rejoin(b)
}

// wantUnusable fails unless the directory is seen as broken, isn't started or
// rewound again, and the verdict is clone.
func (n *node) wantUnusable(of *node) {
	n.t.Helper()
	if st := n.observe(); st.Data.Content != events.DataBroken || !strings.Contains(st.Data.Problem, "rewind") {
		n.t.Errorf("observed as %+v", st.Data)
	}
	up := of.upstream()
	n.wantClass("start", n.Start(n.ctx(), StartOptions{Standby: true, Upstream: &up}), ErrRefused)
	n.wantClass("start", n.Start(n.ctx(), StartOptions{Grant: longGrant()}), ErrRefused)
	n.wantClass("rewind", n.Rewind(n.ctx(), up), ErrRefused)
	n.wantClass("bootstrap", n.Bootstrap(n.ctx()), ErrRefused)
	n.wantClass("clone without being told to", n.Clone(n.ctx(), up, CloneOptions{}), ErrRefused)
	n.wantVerdict(of, events.VerdictClone)
}

func TestRewindThatBreaksOffAsksForAClone(t *testing.T) {
	t.Parallel()
	a, b := crashedWithExtraWAL(t)
	a.wrapped("pg_rewind", `case "$*" in *--dry-run*) exec $REAL "$@";; esac
echo "the disk is on fire"; exit 1`)
	err := a.Rewind(a.ctx(), b.upstream())
	a.wantClass("rewind", err, ErrRefused)
	if !strings.Contains(err.Error(), "the disk is on fire") {
		t.Errorf("the error doesn't say why: %v", err)
	}
	a.wantUnusable(b)
}

func TestRewindThatCannotBeginLeavesTheDirectoryAlone(t *testing.T) {
	t.Parallel()
	a, b := crashedWithExtraWAL(t)
	a.wrapped("pg_rewind", `echo "no"; exit 1`)
	a.wantClass("rewind", a.Rewind(a.ctx(), b.upstream()), ErrRefused)
	a.unwrapped()
	a.wantVerdict(b, events.VerdictRewind)
	a.must("rewind", a.Rewind(a.ctx(), b.upstream()))
	a.rejoin(b)
}

func TestInterruptedRecoveryOfAStandbyIsNeverStartedAndCanBeRewound(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b, c := replicaOf(t, "b", a), replicaOf(t, "c", a)
	diverge(t, a, b)
	c.awaitReplayed(a)
	c.kill()
	a.kill()
	b.promote()
	b.checkpointed()
	began := filepath.Join(c.config().RunDir, "recovery-began")
	c.wrapped("postgres", `case "$*" in *--single*) : > `+began+`; exec /bin/sleep 1000;; esac; exec $REAL "$@"`)
	err := c.cancelWhen(began, func(ctx context.Context) error { return c.Rewind(ctx, b.upstream()) })
	c.wantClass("interrupted recovery", err, ErrUnavailable)
	c.unwrapped()
	// Its standby.signal is gone: started now, it would write on its old timeline.
	c.wantClass("start", c.Start(c.ctx(), StartOptions{Grant: longGrant()}), ErrRefused)
	up := b.upstream()
	c.wantClass("start", c.Start(c.ctx(), StartOptions{Standby: true, Upstream: &up}), ErrRefused)
	if st := c.observe(); st.Data.Content != events.DataBroken {
		t.Errorf("observed as %+v", st.Data)
	}
	c.must("rewind", c.Rewind(c.ctx(), b.upstream()))
	c.rejoin(b)
}

func TestRunningToolsDieWithTheirContext(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	pids := filepath.Join(a.config().RunDir, "pids")
	a.wrapped("initdb", `/bin/sleep 1000 & echo $! > `+pids+`.new; mv `+pids+`.new `+pids+`; wait`)
	err := a.cancelWhen(pids, func(ctx context.Context) error {
		_, err := a.run(ctx, tool{name: "initdb", writes: true})
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b, err := os.ReadFile(pids)
	a.must("read pid", err)
	a.eventually("the tool's child is dead", func() error {
		if err := syscall.Kill(atoi(strings.TrimSpace(string(b))), 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %s: %v", b, err)
		}
		return nil
	})
}
