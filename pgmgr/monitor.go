package pgmgr

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/events"
)

const (
	// statementTimeout is the server's own limit for the monitoring query,
	// answerTimeout ours: a server that is stopped or swapping doesn't keep its own.
	statementTimeout = 2 * time.Second
	answerTimeout    = 2500 * time.Millisecond

	monitorStatement = "regent_monitor"
)

// monitor holds the one connection that heartbeats use, with the query prepared.
type monitor struct {
	// mu is held over the whole round trip: heartbeats queue.
	mu   sync.Mutex
	conn *pgconn.PgConn
	// loadTime is the last configuration load whose pending restarts are known:
	// pg_settings is the expensive part of the query and changes only with a load.
	loadTime string
	pending  changes
	// received remembers the highest timeline that a walreceiver of the server
	// started at startedAt had, for the time after it ended.
	startedAt string
	received  events.Timeline
}

// monitorSQL is everything a heartbeat needs in one statement and one row. The
// parameter is the configuration load that the caller knows already.
const monitorSQL = `
SELECT pg_catalog.row_to_json(o)::pg_catalog.text FROM (SELECT
  r.recovering,
  CASE WHEN NOT r.recovering THEN pg_catalog.pg_current_wal_flush_lsn() END AS flushed,
  CASE WHEN NOT r.recovering THEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_flush_lsn()), 1, 8) END AS timeline_hex,
  CASE WHEN r.recovering THEN pg_catalog.pg_last_wal_receive_lsn() END AS received,
  CASE WHEN r.recovering THEN pg_catalog.pg_last_wal_replay_lsn() END AS replayed,
  CASE WHEN r.recovering THEN pg_catalog.pg_is_wal_replay_paused() END AS replay_paused,
  pg_catalog.pg_last_xact_replay_timestamp()::pg_catalog.text AS replayed_at,
  (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()) AS checkpoint_timeline,
  (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()) AS recovery_timeline,
  pg_catalog.current_setting('server_version_num')::pg_catalog.int4 AS version,
  pg_catalog.pg_postmaster_start_time()::pg_catalog.text AS started_at,
  pg_catalog.current_setting('primary_conninfo') AS conninfo,
  pg_catalog.current_setting('` + gucSyncNames + `') AS sync_names,
  pg_catalog.current_setting('` + gucSyncHeld + `', true) AS sync_held,
  (SELECT pg_catalog.row_to_json(w) FROM (SELECT status, received_tli, conninfo FROM pg_catalog.pg_stat_get_wal_receiver() WHERE pid IS NOT NULL) w) AS receiver,
  (SELECT pg_catalog.json_agg(s) FROM (SELECT usename, application_name, client_addr, state, flush_lsn, sync_state, sync_priority
     FROM pg_catalog.pg_stat_replication ORDER BY application_name, pid) s) AS standbys,
  (SELECT pg_catalog.json_agg(s) FROM (SELECT slot_name, slot_type, active, restart_lsn
     FROM pg_catalog.pg_replication_slots WHERE NOT temporary ORDER BY slot_name) s) AS slots,
  pg_catalog.pg_conf_load_time()::pg_catalog.text AS loaded_at,
  CASE WHEN pg_catalog.pg_conf_load_time()::pg_catalog.text IS DISTINCT FROM $1::pg_catalog.text THEN EXISTS (
     SELECT 1 FROM pg_catalog.pg_settings WHERE ` + pendingWhere + `) END AS pending_restart,
  (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'
     AND pid <> pg_catalog.pg_backend_pid() AND application_name NOT IN ('` + appMonitor + `', '` + appVerb + `')) AS clients
  FROM (SELECT pg_catalog.pg_is_in_recovery() AS recovering) r) o`

// monitorRow is the answer. Pointers are null when the server isn't in the role
// that has the value.
type monitorRow struct {
	Recovering         bool            `json:"recovering"`
	Flushed            lsnText         `json:"flushed"`
	TimelineHex        *string         `json:"timeline_hex"`
	Received           lsnText         `json:"received"`
	Replayed           lsnText         `json:"replayed"`
	ReplayPaused       *bool           `json:"replay_paused"`
	ReplayedAt         *string         `json:"replayed_at"`
	CheckpointTimeline events.Timeline `json:"checkpoint_timeline"`
	RecoveryTimeline   events.Timeline `json:"recovery_timeline"`
	Version            int             `json:"version"`
	StartedAt          string          `json:"started_at"`
	Conninfo           string          `json:"conninfo"`
	SyncNames          string          `json:"sync_names"`
	SyncHeld           *string         `json:"sync_held"`
	Receiver           *struct {
		Status      string           `json:"status"`
		ReceivedTLI *events.Timeline `json:"received_tli"`
		Conninfo    *string          `json:"conninfo"`
	} `json:"receiver"`
	Standbys []struct {
		User         *string         `json:"usename"`
		Name         events.NodeName `json:"application_name"`
		Addr         *string         `json:"client_addr"`
		State        *string         `json:"state"`
		Flushed      lsnText         `json:"flush_lsn"`
		SyncState    *string         `json:"sync_state"`
		SyncPriority *int            `json:"sync_priority"`
	} `json:"standbys"`
	Slots []struct {
		Name       string  `json:"slot_name"`
		Type       string  `json:"slot_type"`
		Active     bool    `json:"active"`
		RestartLSN lsnText `json:"restart_lsn"`
	} `json:"slots"`
	LoadedAt       string `json:"loaded_at"`
	PendingRestart *bool  `json:"pending_restart"`
	Clients        int    `json:"clients"`
}

// lsnText is an LSN in PostgreSQL's form; null is zero.
type lsnText events.LSN

// UnmarshalJSON reads "X/Y" or null.
func (l *lsnText) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*l = 0
		return nil
	}
	s, err := strconv.Unquote(string(b))
	if err != nil {
		return fmt.Errorf("read LSN %s: %w", b, err)
	}
	v, err := events.ParseLSN(s)
	*l = lsnText(v)
	return err
}

// ask performs the round trip, connecting first if need be. A kept connection
// that turns out to be dead (the server was restarted) is replaced once.
func (mo *monitor) ask(ctx context.Context, cfg Config) (monitorRow, error) {
	mo.mu.Lock()
	defer mo.mu.Unlock()
	if mo.conn != nil {
		row, err := mo.query(ctx)
		if err == nil || !isConnLost(err) {
			return row, err
		}
	}
	if mo.conn == nil {
		if err := mo.connect(ctx, cfg); err != nil {
			return monitorRow{}, err
		}
	}
	return mo.query(ctx)
}

// connect opens the session: schema-qualified by its search_path as well, planned
// once, bounded by the server.
func (mo *monitor) connect(ctx context.Context, cfg Config) error {
	s := cfg.local(appMonitor)
	s.params = map[string]string{
		"statement_timeout": strconv.FormatInt(statementTimeout.Milliseconds(), 10),
		"search_path":       "pg_catalog", "plan_cache_mode": "force_generic_plan", "jit": "off", "datestyle": "ISO",
	}
	conn, err := cfg.connectLocal(ctx, s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if _, err := conn.Prepare(ctx, monitorStatement, monitorSQL, nil); err != nil {
		hangUp(conn)
		return err
	}
	mo.conn, mo.loadTime = conn, ""
	return nil
}

// query runs the prepared statement. Any failure but the server's own words drops
// the connection.
func (mo *monitor) query(ctx context.Context) (monitorRow, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	r, err := mo.read(ctx)
	var pending changes
	if err == nil && r.PendingRestart != nil && *r.PendingRestart {
		pending, err = askPending(ctx, mo.conn)
	}
	if err != nil {
		if sqlCode(err) == "" || mo.conn.IsClosed() {
			hangUp(mo.conn)
			mo.conn = nil
		}
		return monitorRow{}, err
	}
	if r.PendingRestart != nil {
		mo.loadTime, mo.pending = r.LoadedAt, pending
	}
	return r, nil
}

// read runs the prepared statement alone.
func (mo *monitor) read(ctx context.Context) (r monitorRow, err error) {
	res := mo.conn.ExecPrepared(ctx, monitorStatement, [][]byte{[]byte(mo.loadTime)}, nil, nil).Read()
	switch {
	case res.Err != nil:
		return r, res.Err
	case len(res.Rows) != 1:
		return r, errNoRow
	}
	err = json.Unmarshal(res.Rows[0][0], &r)
	return r, err
}

// timelineOf is the timeline of a standby: that of the WAL it receives, or after
// its walreceiver ended, the highest it had received. known is false when no
// walreceiver was seen since the server's start.
func (mo *monitor) timelineOf(r monitorRow) (tl events.Timeline, known bool) {
	mo.mu.Lock()
	defer mo.mu.Unlock()
	if mo.startedAt != r.StartedAt {
		mo.startedAt, mo.received = r.StartedAt, 0
	}
	if r.Receiver != nil && r.Receiver.ReceivedTLI != nil {
		mo.received = max(mo.received, *r.Receiver.ReceivedTLI)
	}
	return max(mo.received, r.RecoveryTimeline, r.CheckpointTimeline), mo.received != 0
}

// learn remembers a timeline that was found in another way.
func (mo *monitor) learn(tl events.Timeline) {
	mo.mu.Lock()
	defer mo.mu.Unlock()
	mo.received = max(mo.received, tl)
}

// pendingChanges are replaced, never changed.
func (mo *monitor) pendingChanges() changes {
	mo.mu.Lock()
	defer mo.mu.Unlock()
	return mo.pending
}

func (mo *monitor) close(context.Context) {
	mo.mu.Lock()
	defer mo.mu.Unlock()
	hangUp(mo.conn)
	mo.conn = nil
}
