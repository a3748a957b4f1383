package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgregent/regent/events"
)

const (
	standbySignal  = "standby.signal"
	recoverySignal = "recovery.signal"
	backupLabel    = "backup_label"
)

// observeData says what the data directory holds. Content that an interrupted
// bootstrap or clone left counts as empty, because the same verbs may make it
// anew without asking; Problem says so.
func (m *Manager) observeData(ctx context.Context) events.DataDir {
	cfg := m.config()
	var d events.DataDir
	empty, err := isEmpty(cfg.DataDir)
	switch {
	case err != nil:
		return events.DataDir{Content: events.DataBroken, Problem: err.Error()}
	case empty:
		return events.DataDir{Content: events.DataEmpty}
	}
	if k, ok := m.marked(); ok {
		d.Problem = k.describe()
		if k.disposable() {
			d.Content = events.DataEmpty
			return d
		}
	}
	c, err := m.Control(ctx)
	if err != nil {
		return events.DataDir{Content: events.DataBroken, Problem: err.Error()}
	}
	d.Content = events.DataCluster
	if d.Problem != "" {
		d.Content = events.DataBroken
	}
	d.SystemID, d.ControlState = c.SystemID, c.State
	d.CheckpointLSN, d.CheckpointTimeline = c.CheckpointLSN, c.CheckpointTL
	d.MinRecoveryLSN, d.MinRecoveryTL = c.MinRecoveryLSN, c.MinRecoveryTL
	d.CanRewind = c.CanRewind()
	d.Standby = m.isStandbyDir()
	return d
}

// isStandbyDir reports whether the next start would be into recovery.
func (m *Manager) isStandbyDir() bool {
	dir := m.config().DataDir
	return exists(filepath.Join(dir, standbySignal)) || exists(filepath.Join(dir, recoverySignal))
}

// IsDataDirEmpty reports whether the data directory is absent or has no entry.
func (m *Manager) IsDataDirEmpty() (bool, error) {
	empty, err := isEmpty(m.config().DataDir)
	return empty, classed(ErrBroken, "read data directory", err)
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(1)
	if len(names) == 0 && errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// RemoveDataDir empties the data directory, and the WAL directory if an option put
// it elsewhere; the directory itself stays, and so do tablespaces. Refused while a process runs in it or
// when it holds something that isn't PostgreSQL's. The control file goes first, so
// that what an interruption leaves can't be started; calling again completes it.
func (m *Manager) RemoveDataDir(ctx context.Context) error {
	const op = "remove data directory"
	empty, err := m.IsDataDirEmpty()
	if err != nil {
		return err
	}
	if empty {
		return m.unmark()
	}
	if err := m.mustBeDown(ctx, op); err != nil {
		return err
	}
	if _, marked := m.marked(); !marked && !looksLikeCluster(m.config().DataDir) {
		return classed(ErrRefused, op, fmt.Errorf("%s holds no PostgreSQL cluster", m.config().DataDir))
	}
	return m.wipe(ctx, op)
}

// looksLikeCluster recognizes a data directory, a damaged one too.
func looksLikeCluster(dir string) bool {
	return exists(filepath.Join(dir, "PG_VERSION")) || exists(filepath.Join(dir, "global", "pg_control"))
}

// mustBeDown refuses unless no process of the data directory is left: neither one
// the keeper knows, nor one that somebody else started. Tools left over from a
// killed agent are ended.
func (m *Manager) mustBeDown(ctx context.Context, op string) error {
	st, err := m.pm.Status(ctx)
	if err != nil {
		return fromKeeper(op, err)
	}
	if st.Alive {
		return classed(ErrRefused, op, fmt.Errorf("the server runs, or processes of it are left (pid %d)", max(st.PID, st.Foreign)))
	}
	if err := m.endLeftovers(ctx); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if pids := processesIn(m.config().DataDir); len(pids) > 0 {
		return classed(ErrRefused, op, fmt.Errorf("processes that the keeper doesn't know run in the data directory: %v", pids))
	}
	return nil
}

// processesIn lists the processes whose working directory is dir: every process of
// a PostgreSQL server has its data directory as that.
func processesIn(dir string) []int {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	var found []int
	for _, pid := range processes() {
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && cwd == dir {
			found = append(found, pid)
		}
	}
	return found
}

// foreignPostmaster is the pid of a server in the data directory that the keeper
// doesn't know, 0 if there is none. A pid file whose pid belongs to somebody else by
// now is stale and gives 0.
func (m *Manager) foreignPostmaster() int {
	pid := pidFile(m.config().DataDir)
	if pid <= 0 {
		return 0
	}
	dir := m.config().DataDir
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != dir {
		return 0
	}
	return pid
}

// ServerPort is the port of the server that runs in a data directory, or ran when the
// machine failed, by its pid file; 0 if there is none. It differs from the configured one
// between a reload and the restart that it waits for.
func ServerPort(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return 0
	}
	lines := strings.Split(string(b), "\n") // pid, directory, start time, port (pidfile.h)
	if len(lines) < 4 {
		return 0
	}
	port, err := strconv.Atoi(strings.TrimSpace(lines[3]))
	if err != nil || port < 1 || port > 65535 {
		return 0
	}
	return port
}

// pidFile is the pid in postmaster.pid, 0 if there is none.
func pidFile(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return pid
}

// wipe empties the data directory under a marker. The caller made sure that it may.
func (m *Manager) wipe(ctx context.Context, op string) error {
	dir := m.config().DataDir
	if k, ok := m.marked(); !ok || !k.disposable() {
		if err := m.mark(verbRemove); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(dir, "global", "pg_control")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return classed(ErrUnavailable, op, err)
	}
	if err := m.config().wipeWAL(); err != nil {
		return classed(ErrUnavailable, op, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return classed(ErrUnavailable, op, err)
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return classed(ErrUnavailable, op, context.Cause(ctx))
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return classed(ErrUnavailable, op, err)
		}
	}
	m.forgetControl()
	return m.unmark()
}

// forgetControl drops the cached control data: the directory is another one now.
func (m *Manager) forgetControl() {
	m.control.mu.Lock()
	defer m.control.mu.Unlock()
	m.control.valid = false
}

// walName matches what PostgreSQL puts into its WAL directory.
const walName = `^([0-9A-F]{24}(\.partial|\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history|archive_status|summaries|xlogtemp\.\d+)$`

// wipeWAL empties a WAL directory that the data directory links to, if it is the
// one that the options of initdb or base backup name. Other links (tablespaces
// too) are left: in a copy that somebody made by hand they lead to the original's
// files, and nothing tells whose those are.
func (c Config) wipeWAL() error {
	link := filepath.Join(c.DataDir, "pg_wal")
	target, err := os.Readlink(link)
	if err != nil {
		return nil // no link, nothing outside
	}
	ours := slices.ContainsFunc(slices.Concat(c.InitDB, c.Basebackup), func(o Option) bool {
		return o.Name == "waldir" && filepath.Clean(o.Value) == filepath.Clean(target)
	})
	if !ours {
		return nil
	}
	names := regexp.MustCompile(walName)
	entries, err := os.ReadDir(link)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("empty the WAL directory: %w", err)
	}
	for _, e := range entries {
		if !names.MatchString(e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(link, e.Name())); err != nil {
			return fmt.Errorf("empty the WAL directory: %w", err)
		}
	}
	return nil
}
