package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr/keeper"
)

const (
	// readyPoll is the pause between two attempts to connect to a starting server.
	readyPoll = 5 * time.Millisecond
	// logKept is how much of the server's log goes into the error of a failed start.
	logKept = 4 << 10
)

// StartOptions say what is to be started.
type StartOptions struct {
	// Standby: into recovery, following Upstream, or detached without one. Otherwise
	// as a primary, which needs a Grant or a Waiver.
	Standby  bool
	Upstream *events.Upstream
	// Grant arms the keeper before the server is started (S3).
	Grant *keeper.Grant
	// Waiver, in the Grant's place, lets a primary run without a deadline: in pause, or
	// with fencing off (S11).
	Waiver *keeper.Waiver
	// Timeout until the server accepts connections; 0: Config.StartTimeout.
	Timeout time.Duration
}

// Start writes the configuration, starts the server through the keeper, and returns
// nil when it accepts connections. When a server of the wanted kind runs already it
// waits for that, extends the grant or follows the upstream; a running server of the
// other kind is ErrRefused.
//
// ErrRefused also: the directory is unfinished, a foreign server runs in it, or a
// primary is wanted from a directory that was last in recovery or comes from a base
// backup, which would fork history without a new timeline: start it as a standby
// and promote. ErrUnavailable: the server ended while starting; the error has its
// last words. ErrUnknown: it runs and isn't ready after the timeout, or ctx ended.
func (m *Manager) Start(ctx context.Context, o StartOptions) error {
	const op = "start PostgreSQL"
	cfg := m.config()
	ks, err := m.pm.Status(ctx)
	if err != nil {
		return fromKeeper(op, err)
	}
	timeout := o.Timeout
	if timeout <= 0 {
		timeout = cfg.startTimeout()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if pid := m.strangerPID(ks); ks.PID == 0 && pid != 0 {
		return classed(ErrRefused, op, fmt.Errorf("a server that the keeper doesn't know runs in %s (pid %d)", cfg.DataDir, pid))
	}
	if ks.Alive {
		return m.startRunning(ctx, ks, o)
	}
	req, err := m.prepareStart(ctx, o)
	if err != nil {
		return err
	}
	logged := fileSize(req.LogFile)
	if _, err := m.pm.Start(ctx, req); err != nil {
		return fromKeeper(op, err)
	}
	return m.awaitReady(ctx, op, req.LogFile, logged)
}

// startRunning is Start when a server is there already.
func (m *Manager) startRunning(ctx context.Context, ks keeper.Status, o StartOptions) error {
	const op = "start PostgreSQL"
	if ks.PID == 0 || ks.Fencing {
		return classed(ErrRefused, op, errors.New("the previous server is still ending"))
	}
	if err := m.permit(ctx, o); err != nil {
		return fromKeeper(op, err)
	}
	if err := m.awaitReady(ctx, op, "", 0); err != nil {
		return err
	}
	err := m.withLocal(ctx, op, func(conn *pgconn.PgConn) error {
		recovering, err := isRecovering(ctx, conn)
		if err == nil && recovering != o.Standby {
			return classed(ErrRefused, "check the role", fmt.Errorf("it runs already, in recovery: %t", recovering))
		}
		return err
	})
	if err != nil || !o.Standby {
		return err
	}
	return m.Follow(ctx, o.Upstream)
}

// permit brings a running primary's deadline in line with what it is to be started with.
func (m *Manager) permit(ctx context.Context, o StartOptions) error {
	switch {
	case o.Standby:
		return nil
	case o.Grant != nil:
		return m.pm.Extend(ctx, *o.Grant)
	case o.Waiver != nil:
		return m.pm.Disarm(ctx, *o.Waiver)
	default:
		return nil
	}
}

// prepareStart checks the directory, brings files in line and makes the request.
func (m *Manager) prepareStart(ctx context.Context, o StartOptions) (keeper.StartRequest, error) {
	const op = "start PostgreSQL"
	none := keeper.StartRequest{}
	cfg := m.config()
	if err := m.endLeftovers(ctx); err != nil {
		return none, fmt.Errorf("%s: %w", op, err)
	}
	if k, ok := m.marked(); ok {
		return none, classed(ErrRefused, op, fmt.Errorf("the data directory was %s", k.describe()))
	}
	if err := m.checkDataVersion(ctx); err != nil {
		return none, err
	}
	control, err := m.Control(ctx)
	if err != nil {
		return none, err
	}
	role := RoleReplica
	if !o.Standby {
		role = RolePrimary
		if err := m.mayStartAsPrimary(control, o); err != nil {
			return none, err
		}
	} else {
		m.dropHalfReceived(ctx, control)
	}
	if _, err := m.WriteConfig(ctx, role, o.Upstream); err != nil {
		return none, err
	}
	if err := m.clearStalePID(); err != nil {
		return none, classed(ErrUnavailable, op, err)
	}
	version, err := m.ServerVersion(ctx)
	if err != nil {
		return none, err
	}
	params, _ := cfg.serverParameters(version)
	args, raised := cfg.commandLine(params, control, o.Standby)
	if len(raised) > 0 {
		m.log.Warn("parameters of the control file are higher than configured, a restart is pending", "raised", string(raised.document()))
	}
	m.setRaised(raised)
	adj, err := os.ReadFile(oomFile)
	if err != nil {
		adj = nil // another system, which adjusts nothing
	}
	req := keeper.StartRequest{Args: args, Env: serverEnv(string(adj)), LogFile: cfg.logFile(), Grant: o.Grant, Waiver: o.Waiver}
	req.Args[0] = cfg.programPath("postgres")
	return req, nil
}

// mayStartAsPrimary refuses what would make a second history on one timeline, and
// takes the signal files away otherwise.
func (m *Manager) mayStartAsPrimary(c ControlData, o StartOptions) error {
	const op = "start PostgreSQL as a primary"
	dir := m.config().DataDir
	switch {
	case o.Grant == nil && o.Waiver == nil:
		return classed(ErrRefused, op, errors.New("there is no grant"))
	case o.Upstream != nil:
		return classed(ErrRefused, op, errors.New("a primary has no upstream"))
	case c.WasStandby():
		return classed(ErrRefused, op, fmt.Errorf("it was last run as a standby (%q), so it has to be promoted", c.State))
	case exists(filepath.Join(dir, backupLabel)):
		return classed(ErrRefused, op, errors.New("it comes from a base backup or a rewind, so it has to be promoted"))
	}
	for _, name := range []string{standbySignal, recoverySignal} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return classed(ErrUnavailable, op, err)
		}
	}
	return classed(ErrUnavailable, op, syncDir(dir))
}

// clearStalePID removes a postmaster.pid whose pid belongs to another program of
// ours by now: PostgreSQL would take that for a running server. Any other stale
// file is left to PostgreSQL, whose own checks (shared memory) are the better ones.
func (m *Manager) clearStalePID() error {
	dir := m.config().DataDir
	pid := pidFile(dir)
	if pid <= 0 || m.foreignPostmaster() != 0 || !exists(fmt.Sprintf("/proc/%d", pid)) {
		return nil
	}
	m.log.Warn("removing a stale postmaster.pid", "pid", pid)
	if err := os.Remove(filepath.Join(dir, "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale postmaster.pid: %w", err)
	}
	return nil
}

// awaitReady returns when the server accepts connections, has ended, or ctx ends.
// The keeper's report of the end is waited for beside the attempts.
func (m *Manager) awaitReady(ctx context.Context, op, logFile string, logged int64) error {
	cfg := m.config()
	waiting, stop := context.WithCancel(ctx)
	down := make(chan error, 1)
	go func() { down <- m.pm.WaitDown(waiting) }()
	defer func() {
		stop()
		if down != nil {
			<-down
		}
	}()
	var last error
	for {
		conn, err := cfg.connectLocal(ctx, cfg.local(appVerb))
		if err == nil {
			hangUp(conn)
			return nil
		}
		if sqlCode(err) == codeTooManyConnections {
			return nil // it is up; whether there is room for us is another question
		}
		if errors.Is(err, ErrBroken) {
			return fmt.Errorf("%s: %w", op, err)
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err // an attempt cut short by our own deadline tells nothing
		}
		select {
		case err := <-down:
			down = nil
			if err != nil && ctx.Err() == nil {
				return fromKeeper(op, err)
			}
			if err == nil {
				return classed(ErrUnavailable, op, fmt.Errorf("the server ended while starting: %s", logSince(logFile, logged)))
			}
			return m.notReady(ctx, op, last)
		case <-ctx.Done():
			return m.notReady(ctx, op, last)
		case <-time.After(readyPoll):
		}
	}
}

func (m *Manager) notReady(ctx context.Context, op string, last error) error {
	why := "no attempt ended"
	if last != nil {
		why = whyNotReady(last)
	}
	return classed(ErrUnknown, op, fmt.Errorf("it runs and doesn't accept connections (%s): %w", why, context.Cause(ctx)))
}

func fileSize(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

// logSince is the end of what was logged after the file had the given size.
func logSince(path string, size int64) string {
	f, err := os.Open(path)
	if err != nil {
		return "it left no log"
	}
	defer func() { _ = f.Close() }()
	if now := fileSize(path); now-size > logKept {
		size = now - logKept
	}
	b, err := io.ReadAll(io.NewSectionReader(f, size, logKept))
	if err != nil || len(b) == 0 {
		return "it left no log"
	}
	return lastLines(string(b), 6)
}
