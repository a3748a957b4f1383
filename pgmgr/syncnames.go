package pgmgr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/events"
)

const (
	gucSyncNames = "synchronous_standby_names"
	// gucSyncHeld marks a configuration whose synchronous_standby_names is ours and not the
	// user's. It is in the configuration so that a restarted agent, or server, has both.
	gucSyncHeld = "regent.synchronous_mode"

	// syncLoad bounds the wait for all who go by the setting to have read it, syncProof the
	// wait for a commit that waits.
	syncLoad  = 2 * time.Second
	syncProof = time.Second
	syncPoll  = time.Millisecond
)

// heldNames is what synchronous mode wants in the configuration; not on: it wants nothing
// there, and the user's own setting counts.
type heldNames struct {
	on   bool
	text string
}

// heldFor is what a configuration for that role holds. On a primary it is kept as it is:
// only SetSyncNames changes it, since whatever is waited for must not be forgotten because
// something else was reloaded or the server restarted. A replica has what commits are to
// wait for when it leaves recovery.
func (m *Manager) heldFor(cfg Config, role Role) heldNames {
	if role == RoleReplica {
		return heldNames{on: cfg.Sync, text: events.SyncNames{Hold: cfg.SyncStrict}.Text()}
	}
	b, err := os.ReadFile(cfg.confPath("postgresql.conf"))
	if err != nil {
		return heldNames{on: cfg.Sync}
	}
	held := heldNames{on: cfg.Sync}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, "=")
		switch strings.TrimSpace(name) {
		case gucSyncHeld:
			held.on = true
		case gucSyncNames:
			held.text = unquoteGUC(strings.TrimSpace(value))
		}
	}
	return held
}

// unquoteGUC reads what quoteGUC wrote. Standbys' names have no line ends.
func unquoteGUC(v string) string {
	v = strings.TrimSuffix(strings.TrimPrefix(v, "'"), "'")
	return strings.NewReplacer(`\\`, `\`, `''`, `'`).Replace(v)
}

// lines are those of the configuration file; the last of a name is what counts in it.
func (h heldNames) lines() string {
	if !h.on {
		return ""
	}
	return fmt.Sprintf("\n# synchronous mode\n%s = 'on'\n%s = %s\n", gucSyncHeld, gucSyncNames, quoteGUC(h.text))
}

// SetSyncNames puts synchronous_standby_names in force on the running primary, and
// returns a WAL position: each commit beyond it waits for all the names. Without names, or
// with the user's own setting, it returns when the setting is in force; the position says
// nothing then.
//
// A setting is not in force everywhere at once. Commits wait or don't by what the
// checkpointer has read, which may take minutes of an earlier checkpoint; whose answer they
// wait for is up to the walsenders. So both are looked at: no walsender of somebody else
// counts any more, and a commit has been seen to wait.
//
// ErrRefused: the server is a standby. ErrUnavailable also: it is not known to be in force
// everywhere, or no commit was seen to wait yet. Doing it again changes nothing that is right.
func (m *Manager) SetSyncNames(ctx context.Context, want events.SyncNames) (events.LSN, error) {
	const op = "set " + gucSyncNames
	var at events.LSN
	err := m.withLocal(ctx, op, func(conn *pgconn.PgConn) error {
		recovering, err := isRecovering(ctx, conn)
		if err != nil {
			return err
		}
		if recovering {
			return classed(ErrRefused, "check the role", errors.New("the server is a standby"))
		}
		if err := m.loadNames(ctx, conn, RolePrimary, want); err != nil {
			return err
		}
		if len(want.Names) == 0 {
			return nil
		}
		if err := m.seeCommitWait(ctx, conn); err != nil {
			return err
		}
		// Everything that was acknowledged without the names was flushed before this.
		r, err := row(ctx, conn, "SELECT pg_catalog.pg_current_wal_flush_lsn()")
		if err != nil {
			return fmt.Errorf("ask for the position: %w", err)
		}
		at, err = events.ParseLSN(r[0])
		return err
	})
	return at, err
}

// loadNames writes the setting, has it read, and waits until it counts.
func (m *Manager) loadNames(ctx context.Context, conn *pgconn.PgConn, role Role, want events.SyncNames) error {
	changed, err := m.writeConfig(ctx, role, nil, heldNames{on: !want.Own, text: want.Text()})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, syncLoad)
	defer cancel()
	for first := true; ; first = false {
		loaded, what, err := namesLoaded(ctx, conn, want)
		if err != nil || loaded && !(first && changed) {
			return err
		}
		if first {
			if err := m.signalReload(ctx); err != nil {
				return err
			}
		}
		if err := pause(ctx, syncPoll); err != nil {
			return classed(ErrUnavailable, "await the setting", fmt.Errorf("%s: %w", what, err))
		}
	}
}

// namesLoaded asks whether the setting is in force, for this session and for every
// walsender; what says where it isn't.
func namesLoaded(ctx context.Context, conn *pgconn.PgConn, want events.SyncNames) (loaded bool, what string, err error) {
	r, err := row(ctx, conn, `SELECT pg_catalog.current_setting('`+gucSyncNames+`'),
		COALESCE(pg_catalog.current_setting('`+gucSyncHeld+`', true), ''),
		(SELECT COALESCE(pg_catalog.json_agg(application_name ORDER BY application_name), '[]')::pg_catalog.text
			FROM pg_catalog.pg_stat_replication WHERE sync_priority > 0)`)
	if err != nil {
		return false, "", fmt.Errorf("ask for the setting: %w", err)
	}
	if want.Own {
		return r[1] != "on", "the setting of synchronous mode is still in force", nil
	}
	if r[0] != want.Text() || r[1] != "on" {
		return false, fmt.Sprintf("%q is in force", r[0]), nil
	}
	var counting []string
	if err := json.Unmarshal([]byte(r[2]), &counting); err != nil {
		return false, "", fmt.Errorf("read the walsenders' names: %w", err)
	}
	for _, name := range counting {
		wanted := slices.ContainsFunc(want.Names, func(n events.NodeName) bool { return strings.EqualFold(string(n), name) })
		if !wanted {
			return false, fmt.Sprintf("the walsender of %s still counts", name), nil
		}
	}
	return true, "", nil
}

// seeCommitWait returns when a commit, made now, was seen to wait for a standby. On a
// standby that is near, waiting takes a fraction of a millisecond, so one session commits
// over and over while another looks.
func (m *Manager) seeCommitWait(ctx context.Context, conn *pgconn.PgConn) error {
	const op = "see a commit wait"
	probe, err := m.connectVerb(ctx)
	if err != nil {
		return fmt.Errorf("%s: connect: %w", op, err)
	}
	defer hangUp(probe)
	pid := strconv.Itoa(int(probe.PID()))
	ctx, cancel := context.WithTimeout(ctx, syncProof)
	defer cancel()
	enough, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- commitUntil(ctx, probe, enough) }()
	seen, asked := false, error(nil)
	for !seen && asked == nil && ctx.Err() == nil {
		var r []string
		r, asked = row(ctx, conn, `SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity
			WHERE pid = $1::pg_catalog.int4 AND wait_event = 'SyncRep'`, pid)
		seen = asked == nil && r[0] != "0"
	}
	close(enough)
	select {
	case err = <-ended: // the standby is there
	case <-time.After(closeTimeout / 2):
		cancel()
		err = <-ended
	}
	if !seen {
		return classed(ErrUnavailable, op, errors.Join(asked, err))
	}
	return m.release(context.WithoutCancel(ctx), conn, pid)
}

// release ends the session of a commit that still waits: a standby that is away keeps it.
func (m *Manager) release(ctx context.Context, conn *pgconn.PgConn, pid string) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	_, err := row(ctx, conn, `SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity
		WHERE pid = $1::pg_catalog.int4 AND wait_event = 'SyncRep'`, pid)
	if err != nil {
		return fmt.Errorf("end the session of the probe: %w", err)
	}
	return nil
}

// commitUntil commits transactions that change nothing, until that is enough. PostgreSQL
// waits only for those that have written WAL; locking a row that nobody ever touches does.
func commitUntil(ctx context.Context, conn *pgconn.PgConn, enough <-chan struct{}) error {
	const (
		quietly = `SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_duration = off;
			SET default_transaction_read_only = off; SET synchronous_commit = 'on'`
		commit = "BEGIN; SELECT 1 FROM pg_catalog.pg_am WHERE amname = 'heap' FOR KEY SHARE; COMMIT;"
	)
	if _, err := conn.Exec(ctx, quietly).ReadAll(); err != nil {
		return err
	}
	for {
		if _, err := conn.Exec(ctx, strings.Repeat(commit, 8)).ReadAll(); err != nil {
			return err
		}
		select {
		case <-enough:
			return errNoWait
		case <-time.After(syncPoll): // others have to commit as well
		}
	}
}

var errNoWait = errors.New("commits don't wait yet")

// holdNames makes sure, on a standby that is about to be promoted, of what commits will
// wait for.
func (m *Manager) holdNames(ctx context.Context, conn *pgconn.PgConn, want events.SyncNames) error {
	loaded, _, err := namesLoaded(ctx, conn, want)
	if err != nil || loaded {
		return err
	}
	return m.loadNames(ctx, conn, RoleReplica, want)
}
