package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr/keeper"
)

const (
	// promotePoll is the pause between two looks at whether recovery has ended.
	promotePoll = 2 * time.Millisecond
	// slowRetry is the wal_retrieve_retry_interval from which a promotion would
	// noticeably wait for it.
	slowRetry = 250 * time.Millisecond
)

// Promote makes a standby the primary and returns its new timeline when it accepts
// writes. The keeper is armed with the grant before PostgreSQL hears of it (S3). A
// server that is a primary already only has its grant extended.
//
// It avoids the five-second trap: a startup process that has just lost its
// upstream sleeps wal_retrieve_retry_interval before it looks at anything else, so
// a long one is lowered first. ErrRefused: the keeper refused (a past deadline, a
// fence), or no server runs. ErrUnknown: the signal was sent and recovery hasn't
// ended before ctx; the server may become a primary yet and is armed.
//
// names, if given, is what commits will wait for: it is in force before the keeper is
// asked, or the server isn't promoted.
func (m *Manager) Promote(ctx context.Context, grant keeper.Grant, names *events.SyncNames) (events.Timeline, error) {
	return m.promote(ctx, names, permission{
		promote: func() error { return m.pm.Promote(ctx, grant) },
		renew:   func() error { return m.pm.Extend(ctx, grant) },
	})
}

// PromoteWaived is Promote without a deadline: in pause, or with fencing off. The
// keeper notes why (S11).
func (m *Manager) PromoteWaived(ctx context.Context, w keeper.Waiver) (events.Timeline, error) {
	return m.promote(ctx, nil, permission{
		promote: func() error { return m.pm.PromoteWaived(ctx, w) },
		renew:   func() error { return m.pm.Disarm(ctx, w) },
	})
}

// permission is how the keeper is told that the server may accept writes: together
// with the order to promote, or alone when that isn't needed any more.
type permission struct{ promote, renew func() error }

func (m *Manager) promote(ctx context.Context, names *events.SyncNames, may permission) (events.Timeline, error) {
	const op = "promote"
	ks, err := m.pm.Status(ctx)
	if err != nil {
		return 0, fromKeeper(op, err)
	}
	if !ks.Alive || ks.PID == 0 {
		return 0, classed(ErrRefused, op, errors.New("no server runs"))
	}
	var tl events.Timeline
	err = m.withLocal(ctx, op, func(conn *pgconn.PgConn) error {
		recovering, err := m.disarmTrap(ctx, conn)
		if err != nil {
			return err
		}
		if recovering && names != nil {
			if err := m.holdNames(ctx, conn, *names); err != nil {
				return err
			}
		}
		if recovering {
			if control, err := m.Control(ctx); err == nil {
				m.dropHalfReceived(ctx, control)
			}
		}
		if err := m.askPromotion(may, recovering); err != nil {
			return fromKeeper("ask the keeper", err)
		}
		tl, err = awaitPromotion(ctx, conn)
		if err != nil {
			return classed(ErrUnknown, "await the end of recovery", err)
		}
		return nil
	})
	return tl, err
}

// askPromotion has the keeper arm the server and, unless recovery is over or ending
// already, tell it to promote. PostgreSQL removes the signal file a little before it
// says that it has left recovery; in between it only needs the grant.
func (m *Manager) askPromotion(may permission, recovering bool) error {
	if recovering && m.isStandbyDir() {
		err := may.promote()
		if !errors.Is(err, keeper.ErrRefused) || m.isStandbyDir() {
			return err
		}
	}
	return may.renew()
}

// disarmTrap makes sure that the retry interval in force is short, and says whether
// there is a recovery to end at all.
func (m *Manager) disarmTrap(ctx context.Context, conn *pgconn.PgConn) (recovering bool, err error) {
	recovering, interval, err := retryState(ctx, conn)
	if err != nil || !recovering || interval < slowRetry {
		return recovering, err
	}
	m.log.Info("lowering wal_retrieve_retry_interval for the promotion", "was", interval)
	// ALTER SYSTEM can't be used: a standby takes it, but it would outlive this. The
	// configuration of a detached standby is what is written, with the short interval.
	if err := m.detachFast(ctx); err != nil {
		return recovering, err
	}
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	for {
		recovering, interval, err = retryState(ctx, conn)
		if err != nil || !recovering || interval < slowRetry {
			return recovering, err
		}
		if err := pause(ctx, reloadPoll); err != nil {
			return recovering, classed(ErrUnavailable, "lower wal_retrieve_retry_interval", err)
		}
	}
}

// detachFast writes a configuration with the short interval, whatever the user's
// parameters say, and reloads.
func (m *Manager) detachFast(ctx context.Context) error {
	cfg := m.config()
	cfg.Parameters = withParameter(cfg.Parameters, "wal_retrieve_retry_interval", retryInterval)
	version, err := m.ServerVersion(ctx)
	if err != nil {
		return err
	}
	content, err := m.generateConf(ctx, cfg, version, RoleReplica, nil, m.heldFor(cfg, RoleReplica))
	if err != nil {
		return err
	}
	if _, err := writeFile(cfg.confPath("postgresql.conf"), []byte(content), 0o600); err != nil {
		return classed(ErrUnavailable, "write configuration", err)
	}
	return m.signalReload(ctx)
}

// withParameter returns a copy of the parameters with one set.
func withParameter(params map[string]string, name, value string) map[string]string {
	out := map[string]string{name: value}
	for n, v := range params {
		if n != name {
			out[n] = v
		}
	}
	return out
}

// retryState asks for the role and the retry interval in force.
func retryState(ctx context.Context, conn *pgconn.PgConn) (recovering bool, interval time.Duration, err error) {
	r, err := row(ctx, conn, `SELECT pg_catalog.pg_is_in_recovery(), setting FROM pg_catalog.pg_settings
		WHERE name = 'wal_retrieve_retry_interval'`)
	if err != nil {
		return false, 0, fmt.Errorf("ask for the role: %w", err)
	}
	return r[0] == "t", time.Duration(atoi(r[1])) * time.Millisecond, nil
}

// awaitPromotion returns the timeline as soon as the server has left recovery.
func awaitPromotion(ctx context.Context, conn *pgconn.PgConn) (events.Timeline, error) {
	for {
		r, err := row(ctx, conn, `SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery()
			THEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END`)
		if err != nil {
			return 0, fmt.Errorf("ask for the role: %w", err)
		}
		if tl := parseTimelineHex(r[0]); tl != 0 {
			return tl, nil
		}
		if err := pause(ctx, promotePoll); err != nil {
			return 0, err
		}
	}
}
