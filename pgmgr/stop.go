package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// StopOptions say how to stop. The zero value is a fast stop that waits for ever.
type StopOptions struct {
	// Mode to begin with; empty: fast.
	Mode keeper.StopMode
	// Checkpoint first, while the server still serves, so that the one at shutdown is
	// short. It is given up when it fails or after CheckpointTimeout (0: with ctx).
	Checkpoint        bool
	CheckpointTimeout time.Duration
	// ImmediateAfter escalates to an immediate stop, KillAfter to the kill-tree, each
	// counted from the step before; 0: never.
	ImmediateAfter, KillAfter time.Duration
	// OnShutDown is called once, on the caller's goroutine, as soon as a primary's
	// control file says "shut down": then no client session is left and none can
	// begin, although the last processes may still archive or wait for a standby
	// (S15). It gets what ShutdownLSN returns. The wait for the end, and its
	// escalation, go on after it returns.
	OnShutDown func(end, checkpoint events.LSN)
}

// controlPoll is how often a stop looks whether the control file has changed.
const controlPoll = 2 * time.Millisecond

// Stop stops the server and returns nil only when no process of the data directory
// is left (S1). A server that is down already is success. ErrUnknown: ctx ended
// first; the server goes on stopping.
func (m *Manager) Stop(ctx context.Context, o StopOptions) error {
	const op = "stop PostgreSQL"
	ks, err := m.pm.Status(ctx)
	if err != nil {
		return fromKeeper(op, err)
	}
	if pid := m.strangerPID(ks); ks.PID == 0 && pid != 0 {
		return classed(ErrRefused, op, fmt.Errorf("the keeper isn't in charge of the server that runs (pid %d)", pid))
	}
	if !ks.Alive {
		return nil
	}
	if o.Checkpoint && ks.PID != 0 && !ks.Fencing {
		m.checkpointBeforeStop(ctx, o.CheckpointTimeout)
	}
	mode := o.Mode
	if mode == "" {
		mode = keeper.StopFast
	}
	for {
		if err := m.pm.Stop(ctx, mode); err != nil {
			return fromKeeper(op, err)
		}
		next, patience := escalation(mode, o)
		err := m.awaitDown(ctx, patience, &o)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return classed(ErrUnknown, op, context.Cause(ctx))
		case !errors.Is(err, context.DeadlineExceeded):
			return fromKeeper(op, err)
		}
		m.log.Warn("the server doesn't stop in time", "mode", string(mode), "after", patience, "next", string(next))
		mode = next
	}
}

// escalation is the step after mode, and how long to wait before it; 0: for ever.
func escalation(mode keeper.StopMode, o StopOptions) (next keeper.StopMode, after time.Duration) {
	switch mode {
	case keeper.StopFast:
		if o.ImmediateAfter > 0 {
			return keeper.StopImmediate, o.ImmediateAfter
		}
		return keeper.StopKill, o.KillAfter
	case keeper.StopImmediate:
		return keeper.StopKill, o.KillAfter
	default:
		return keeper.StopKill, 0
	}
}

// awaitDown waits for the end of the whole server, at most d unless d is 0, and
// reports the shutdown checkpoint on the way.
func (m *Manager) awaitDown(ctx context.Context, d time.Duration, o *StopOptions) error {
	if d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	if o.OnShutDown == nil {
		return m.pm.WaitDown(ctx)
	}
	down := make(chan error, 1)
	waiting, stop := context.WithCancel(ctx)
	go func() { down <- m.pm.WaitDown(waiting) }()
	look := time.NewTicker(controlPoll)
	defer look.Stop()
	control := filepath.Join(m.config().DataDir, "global", "pg_control")
	var seen fileID
	for {
		select {
		case err := <-down:
			stop()
			m.reportShutDown(ctx, o)
			return err
		case <-look.C:
			// A write that this misses, two within one tick of the clock, is seen at the end.
			if id, err := identify(control); err == nil && id != seen {
				seen = id
				m.reportShutDown(ctx, o)
			}
		}
	}
}

// reportShutDown calls the hook if the time has come, once.
func (m *Manager) reportShutDown(ctx context.Context, o *StopOptions) {
	if o.OnShutDown == nil {
		return
	}
	end, checkpoint, err := m.ShutdownLSN(ctx)
	if err != nil {
		return // not shut down yet, or not cleanly
	}
	report := o.OnShutDown
	o.OnShutDown = nil
	report(end, checkpoint)
}

// checkpointBeforeStop is a courtesy: its failure is logged and the stop goes on.
func (m *Manager) checkpointBeforeStop(ctx context.Context, d time.Duration) {
	if d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	began := time.Now()
	if err := m.Checkpoint(ctx); err != nil {
		m.log.Warn("no checkpoint before the stop", "err", err, "took", time.Since(began))
	}
}

// Checkpoint runs CHECKPOINT and returns when it is complete; on a standby it is a
// restartpoint. It may take as long as the disk needs: bound it with ctx.
func (m *Manager) Checkpoint(ctx context.Context) error {
	return m.withLocal(ctx, "checkpoint", func(conn *pgconn.PgConn) error {
		_, err := conn.Exec(ctx, "SET statement_timeout = 0; CHECKPOINT").ReadAll()
		return err
	})
}

// withLocal runs f on a new superuser session. Errors of f that carry no class
// become unavailable, or unknown when the context or the connection ended.
func (m *Manager) withLocal(ctx context.Context, op string, f func(*pgconn.PgConn) error) error {
	conn, err := m.connectVerb(ctx)
	if err != nil {
		return orClassed(ErrUnavailable, op, fmt.Errorf("connect to the local server: %w", err))
	}
	defer hangUp(conn)
	err = f(conn)
	if err != nil && !hasClass(err) && (ctx.Err() != nil || isConnLost(err)) {
		return classed(ErrUnknown, op, err)
	}
	return orClassed(ErrUnavailable, op, err)
}

// connectVerb opens a superuser session on this host's server.
func (m *Manager) connectVerb(ctx context.Context) (*pgconn.PgConn, error) {
	cfg := m.config()
	return cfg.connectLocal(ctx, cfg.local(appVerb))
}

// isRecovering asks whether the server is a standby.
func isRecovering(ctx context.Context, conn *pgconn.PgConn) (bool, error) {
	r, err := row(ctx, conn, "SELECT pg_catalog.pg_is_in_recovery()")
	if err != nil {
		return false, fmt.Errorf("ask for the role: %w", err)
	}
	return r[0] == "t", nil
}
