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
	// connectPause is the pause before a server is asked again that took no connection.
	connectPause = 10 * time.Millisecond
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
	if names != nil {
		if err := m.holdBefore(ctx, op, *names); err != nil {
			return 0, err
		}
	}
	// Writers are waiting: nothing that isn't needed for the order comes before it.
	recovering := m.isStandbyDir()
	if recovering {
		m.sortTimelines(ctx)
	}
	if err := m.askPromotion(may, recovering); err != nil {
		return 0, fromKeeper("ask the keeper", err)
	}
	tl, err := m.promoted(ctx)
	if err != nil {
		return 0, classed(ErrUnknown, "await the end of recovery", err)
	}
	return tl, nil
}

// promoted waits until the server that was told to has left recovery. One that takes no
// connection yet is tried again for as long as it lives.
func (m *Manager) promoted(ctx context.Context) (tl events.Timeline, err error) {
	for {
		connected := false
		err = m.withLocal(ctx, "promote", func(conn *pgconn.PgConn) (err error) {
			connected = true
			tl, err = awaitPromotion(ctx, conn)
			return err
		})
		if err == nil || connected || pause(ctx, connectPause) != nil {
			return tl, err
		}
		if ks, alive := m.pm.Status(ctx); alive != nil || !ks.Alive {
			return 0, err
		}
	}
}

// holdBefore makes sure of what commits will wait for, while it is still a standby.
func (m *Manager) holdBefore(ctx context.Context, op string, names events.SyncNames) error {
	return m.withLocal(ctx, op, func(conn *pgconn.PgConn) error {
		recovering, err := isRecovering(ctx, conn)
		if err != nil || !recovering {
			return err
		}
		return m.holdNames(ctx, conn, names)
	})
}

// sortTimelines drops what half-received timelines left. The control file is read only if
// there may be one: that takes a process of its own.
func (m *Manager) sortTimelines(ctx context.Context) {
	known := m.knownControl()
	newer, err := m.config().newerHistories(known.Timeline())
	if err != nil {
		return // said when PostgreSQL is started
	}
	for tl, ancestors := range newer {
		if len(ancestors) > 0 && m.config().begun(tl, ancestors[len(ancestors)-1].LSN, known) {
			continue
		}
		if control, err := m.Control(ctx); err == nil {
			m.dropHalfReceived(ctx, control)
		}
		return
	}
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

// startupProcess is the one that replays; 0 if there is none, or it isn't shown.
func startupProcess(ctx context.Context, conn *pgconn.PgConn) (pid int, err error) {
	r, err := row(ctx, conn, `SELECT max(pid) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'startup'`)
	if err != nil {
		return 0, fmt.Errorf("look for the startup process: %w", err)
	}
	return atoi(r[0]), nil
}

// wake makes the startup process look around, whatever it waits for: a reload of its
// configuration sets the latch that it sleeps on. Promotion wakes it once, and that may
// be too early.
func wake(startup int) {
	if startup > 0 {
		_ = syscall.Kill(startup, syscall.SIGHUP) // gone: recovery has ended
	}
}

// awaitPromotion returns the timeline as soon as the server has left recovery.
func awaitPromotion(ctx context.Context, conn *pgconn.PgConn) (events.Timeline, error) {
	startup, patience, woken := 0, firstWake, time.Now()
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
			if startup == 0 {
				if startup, err = startupProcess(ctx, conn); err != nil {
					return 0, err
				}
			}
			wake(startup)
			patience, woken = min(2*patience, lastWake), time.Now()
		}
		if err := pause(ctx, promotePoll); err != nil {
			return 0, err
		}
	}
}
