package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr/keeper"
)

const (
	// promotePoll is the pause between two looks at whether recovery has ended.
	promotePoll = 2 * time.Millisecond
	// firstWake is how long recovery is given before its process is woken; each next
	// time it is given twice as long, up to lastWake.
	firstWake = 5 * time.Millisecond
	lastWake  = time.Second
)

// Promote makes a standby the primary and returns its new timeline when it accepts
// writes. The keeper is armed with the grant before PostgreSQL hears of it (S3). A
// server that is a primary already only has its grant extended.
//
// It avoids the five-second trap: a startup process that hears of the promotion while
// it asks for a walreceiver gives that one up and sleeps wal_retrieve_retry_interval
// before it looks at anything else. So it is woken until recovery has ended.
// ErrRefused: the keeper refused (a past deadline, a fence), or no server runs.
// ErrUnknown: the signal was sent and recovery hasn't ended before ctx; the server may
// become a primary yet and is armed.
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
		rec, err := recoveryOf(ctx, conn)
		if err != nil {
			return err
		}
		if rec.running {
			if err := m.prepare(ctx, conn, rec, names); err != nil {
				return err
			}
		}
		if err := m.askPromotion(may, rec.running); err != nil {
			return fromKeeper("ask the keeper", err)
		}
		tl, err = awaitPromotion(ctx, conn, rec)
		if err != nil {
			return classed(ErrUnknown, "await the end of recovery", err)
		}
		return nil
	})
	return tl, err
}

// prepare makes a standby ready for its promotion. The control file is read only if there
// is something to look for: that takes a process of its own, and writers are waiting.
func (m *Manager) prepare(ctx context.Context, conn *pgconn.PgConn, rec recovery, names *events.SyncNames) error {
	if names != nil {
		if err := m.holdNames(ctx, conn, *names); err != nil {
			return err
		}
	}
	newer, err := m.config().newerHistories(rec.control.CheckpointTL)
	if err != nil {
		return nil // said when PostgreSQL is started
	}
	for tl, ancestors := range newer {
		if len(ancestors) > 0 && m.config().begun(tl, ancestors[len(ancestors)-1].LSN, rec.control) {
			continue
		}
		if control, err := m.Control(ctx); err == nil {
			m.dropHalfReceived(ctx, control)
		}
		break
	}
	return nil
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

// recovery is what a server says of its recovery.
type recovery struct {
	running bool
	startup int         // the process that replays; 0 if it isn't shown
	control ControlData // sizes, and the newest timeline as CheckpointTL; nothing else
}

func recoveryOf(ctx context.Context, conn *pgconn.PgConn) (recovery, error) {
	r, err := row(ctx, conn, `SELECT pg_catalog.pg_is_in_recovery(),
		(SELECT pid FROM pg_catalog.pg_stat_activity WHERE backend_type = 'startup' LIMIT 1),
		greatest(c.timeline_id, r.min_recovery_end_timeline), i.wal_block_size, i.bytes_per_wal_segment
		FROM pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_control_recovery() r, pg_catalog.pg_control_init() i`)
	if err != nil {
		return recovery{}, fmt.Errorf("ask for the role: %w", err)
	}
	return recovery{running: r[0] == "t", startup: atoi(r[1]), control: ControlData{
		CheckpointTL: events.Timeline(atoi(r[2])), WALBlockSize: atoi(r[3]), WALSegmentSize: atoi(r[4]),
	}}, nil
}

// wake makes the startup process look around, whatever it waits for: a reload of its
// configuration sets the latch that it sleeps on. Promotion wakes it once, and that may
// be too early.
func (r recovery) wake() {
	if r.startup > 0 {
		_ = syscall.Kill(r.startup, syscall.SIGHUP) // gone: recovery has ended
	}
}

// awaitPromotion returns the timeline as soon as the server has left recovery.
func awaitPromotion(ctx context.Context, conn *pgconn.PgConn, rec recovery) (events.Timeline, error) {
	patience, woken := firstWake, time.Now()
	for {
		r, err := row(ctx, conn, `SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery()
			THEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END`)
		if err != nil {
			return 0, fmt.Errorf("ask for the role: %w", err)
		}
		if tl := parseTimelineHex(r[0]); tl != 0 {
			return tl, nil
		}
		if time.Since(woken) >= patience {
			rec.wake()
			patience, woken = min(2*patience, lastWake), time.Now()
		}
		if err := pause(ctx, promotePoll); err != nil {
			return 0, err
		}
	}
}
