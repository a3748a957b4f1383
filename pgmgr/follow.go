package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/events"
)

const (
	// reloadPoll is the pause between two looks at whether a reload was taken up.
	reloadPoll = 3 * time.Millisecond
	// reloadTimeout bounds that wait; a server takes up a reload in milliseconds.
	reloadTimeout = 5 * time.Second
)

// Follow makes a standby stream from upstream, or from nobody if it is nil, by a
// reload. It returns when the server has taken it up: the walreceiver of the former
// upstream is gone, and for nil no walreceiver is left, so that WAL arrives from
// nowhere (S16) and a promotion doesn't wait for a retry. It doesn't wait for the
// new stream. On a server that is down only the files are written.
//
// ErrRefused: the server is a primary, or older than PostgreSQL 13, which needs a
// restart for it.
func (m *Manager) Follow(ctx context.Context, upstream *events.Upstream) error {
	const op = "follow"
	ks, err := m.pm.Status(ctx)
	if err != nil {
		return fromKeeper(op, err)
	}
	if !ks.Alive {
		_, err := m.WriteConfig(ctx, RoleReplica, upstream)
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	return m.withLocal(ctx, op, func(conn *pgconn.PgConn) error {
		r, err := row(ctx, conn, `SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_version_num'),
			pg_catalog.current_setting('primary_conninfo'), pg_catalog.current_setting('primary_slot_name')`)
		if err != nil {
			return fmt.Errorf("ask for the role: %w", err)
		}
		version := atoi(r[1])
		if r[0] != "t" {
			return classed(ErrRefused, "change the upstream", errors.New("the server is a primary"))
		}
		want := m.config().recovery(version, RoleReplica, upstream)
		same := r[2] == want["primary_conninfo"] && r[3] == want["primary_slot_name"]
		if version < 130000 && !same {
			return classed(ErrRefused, "change the upstream", errors.New("PostgreSQL 12 needs a restart for it"))
		}
		changed, err := m.WriteConfig(ctx, RoleReplica, upstream)
		if err != nil {
			return err
		}
		if changed || !same {
			if err := m.signalReload(ctx); err != nil {
				return err
			}
		}
		return awaitUpstream(ctx, conn, want["primary_conninfo"])
	})
}

// awaitUpstream returns when the setting is in force and no walreceiver of another
// upstream is left.
func awaitUpstream(ctx context.Context, conn *pgconn.PgConn, want string) error {
	target := hostPort(want)
	for {
		r, err := row(ctx, conn, `SELECT pg_catalog.current_setting('primary_conninfo'),
			COALESCE((SELECT COALESCE(conninfo, 'starting') FROM pg_catalog.pg_stat_get_wal_receiver() WHERE pid IS NOT NULL), '')`)
		if err != nil {
			return fmt.Errorf("ask for the walreceiver: %w", err)
		}
		streams := r[1]
		if r[0] == want && (streams == "" || target != "" && hostPort(streams) == target) {
			return nil
		}
		if err := pause(ctx, reloadPoll); err != nil {
			return classed(ErrUnknown, "await the reload", fmt.Errorf("primary_conninfo in force goes to %q, the walreceiver to %q: %w",
				hostPort(r[0]), hostPort(streams), err))
		}
	}
}

// Reload makes a running server read its configuration files. It returns when the
// signal was sent. Call WriteConfig first.
func (m *Manager) Reload(ctx context.Context) error { return m.signalReload(ctx) }

// signalReload sends SIGHUP to the postmaster. The process is held by a pidfd while
// it is verified, so that a recycled pid is never hit.
func (m *Manager) signalReload(ctx context.Context) error {
	const op = "reload PostgreSQL"
	ks, err := m.pm.Status(ctx)
	if err != nil {
		return fromKeeper(op, err)
	}
	if ks.PID == 0 {
		return classed(ErrRefused, op, errors.New("no server runs"))
	}
	fd, err := unix.PidfdOpen(ks.PID, 0)
	if err != nil {
		return classed(ErrUnavailable, op, fmt.Errorf("open process %d: %w", ks.PID, err))
	}
	defer func() { _ = unix.Close(fd) }()
	if m.foreignPostmaster() != ks.PID {
		return classed(ErrUnavailable, op, fmt.Errorf("process %d isn't the postmaster of %s", ks.PID, m.config().DataDir))
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGHUP, nil, 0); err != nil {
		return classed(ErrUnavailable, op, fmt.Errorf("signal process %d: %w", ks.PID, err))
	}
	return nil
}

// pause waits, or returns the context's error when that ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
