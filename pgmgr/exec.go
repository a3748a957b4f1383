package pgmgr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// outputKept bounds what is kept of a tool's output: its end.
	outputKept = 64 << 10
	// reapDelay bounds how long a killed tool's pipes are read after its end.
	reapDelay = 3 * time.Second
	// leftoverDelay bounds the wait for killed leftovers to disappear.
	leftoverDelay = 10 * time.Second
	lockRetry     = 5 * time.Millisecond
)

// tool describes one run of one of PostgreSQL's programs.
type tool struct {
	name  string
	args  []string
	env   []string // added to toolEnv
	stdin io.Reader
	// writes: it changes the data directory. Such tools hold the work lock, so that
	// one left over by a killed agent is found and ended before the next one starts.
	writes bool
}

// run runs a tool to its end and returns what it printed, both streams in one, at
// most the last outputKept bytes. When ctx ends, the tool and everything it
// started is killed; the error is then the context's. The tool dies with this
// process too, and what it may leave is ended by the next tool that writes.
func (m *Manager) run(ctx context.Context, t tool) (string, error) {
	cfg := m.config()
	out := &tail{max: outputKept}
	cmd := exec.CommandContext(ctx, cfg.tool(t.name), t.args...)
	cmd.Dir = cfg.RunDir
	cmd.Env = append(toolEnv(), t.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = t.stdin, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = reapDelay
	if t.writes {
		lock, err := m.lockWork(ctx)
		if err != nil {
			return "", err
		}
		cmd.ExtraFiles = []*os.File{lock}
		defer func() { _ = lock.Close() }()
	}
	// The parent-death signal follows the thread that forks, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := time.Now()
	err := cmd.Run()
	m.log.Debug("tool ended", "tool", t.name, "args", t.args, "took", time.Since(began), "err", err, "output", out.String())
	switch {
	case err == nil:
		return out.String(), nil
	case ctx.Err() != nil:
		return out.String(), fmt.Errorf("%s: %w", t.name, context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
		return out.String(), classed(ErrBroken, t.name, err)
	default:
		return out.String(), fmt.Errorf("%s: %w: %s", t.name, err, lastLines(out.String(), 4))
	}
}

// toolEnv is the environment of tools: messages in English, times in the server's
// own zone, and nothing of ours or of libpq's that would redirect them.
func toolEnv() []string {
	env := cleanEnv("LC_", "LANG", "LANGUAGE")
	return append(env, "LC_ALL=C", "LANG=C")
}

// oomFile tells how readily the kernel kills this process when memory runs out.
const oomFile = "/proc/self/oom_score_adj"

// serverEnv is the postmaster's environment. A service manager may have made agent and
// keeper the last to be killed when memory runs out; the postmaster inherits that rightly,
// and is told to take it from its sessions (manual, section 19.4.4).
func serverEnv(oomScoreAdj string) []string {
	env := cleanEnv()
	if strings.HasPrefix(oomScoreAdj, "-") {
		env = append(env, "PG_OOM_ADJUST_FILE="+oomFile, "PG_OOM_ADJUST_VALUE=0")
	}
	return env
}

// cleanEnv is this process's environment without what must not reach PostgreSQL:
// libpq's variables, orchestrators' and agents' (which may hold secrets).
func cleanEnv(more ...string) []string {
	drop := append([]string{"PG", "PATRONI_", "REGENT_", "KUBERNETES_", "NOTIFY_SOCKET", "WATCHDOG_"}, more...)
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		for _, prefix := range drop {
			if strings.HasPrefix(kv, prefix) {
				return true
			}
		}
		return false
	})
}

// lockWork takes the work lock for a tool that is about to start. The lock lives
// in the open file, which only the tool and its children inherit: it is free
// exactly when none of them is left, whoever started them.
func (m *Manager) lockWork(ctx context.Context) (*os.File, error) {
	path := filepath.Join(m.config().RunDir, "work.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, classed(ErrUnavailable, "open work lock", err)
	}
	deadline := time.Now().Add(leftoverDelay)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			_ = f.Close()
			return nil, classed(ErrUnavailable, "take work lock "+path, err)
		}
		if n := killLeftovers(path); n > 0 {
			m.log.Warn("ended tools left over from an earlier run", "count", n)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, classed(ErrUnavailable, "take work lock "+path, context.Cause(ctx))
		case <-time.After(lockRetry):
		}
	}
}

// endLeftovers makes sure that no tool of an earlier run still changes the data
// directory.
func (m *Manager) endLeftovers(ctx context.Context) error {
	lock, err := m.lockWork(ctx)
	if err != nil {
		return err
	}
	return classed(ErrUnavailable, "release work lock", lock.Close())
}

// killLeftovers kills the tools that hold the lock file open and returns how many.
// Only PostgreSQL's programs are: an agent holds the file for an instant as well.
func killLeftovers(lock string) int {
	killed := 0
	for _, pid := range processes() {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil || !slices.Contains([]string{"initdb", "postgres", "pg_basebackup", "pg_rewind"}, filepath.Base(exe)) {
			continue
		}
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && to == lock {
				if syscall.Kill(pid, syscall.SIGKILL) == nil {
					killed++
				}
				break
			}
		}
	}
	return killed
}

// processes lists the pids of this machine, as far as this user sees them.
func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// tail is a writer that keeps the end of what is written to it.
type tail struct {
	max int
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = slices.Delete(t.buf, 0, over)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(bytes.ToValidUTF8(t.buf, []byte("?"))) }

// lastLines joins the last n lines of a tool's output for an error message.
func lastLines(s string, n int) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, " | ")
}
