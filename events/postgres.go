package events

import (
	"encoding/json"
	"strings"
)

// PostgresState is one whole observation of the PostgreSQL on this host. It is
// level-triggered: each one replaces the last, so a lost or doubled one heals.
type PostgresState struct {
	// Data says what the data directory holds.
	Data DataDir `json:"data"`
	// Running: some process of the data directory is alive (safety rule S1).
	Running bool `json:"running"`
	// PID of the postmaster, 0 if none.
	PID int `json:"pid,omitempty"`
	// Ended is how the keeper's last server ended, nil while one runs or if none ended under
	// this keeper: an observation may come before the event that tells the same.
	Ended *PostgresDown `json:"ended,omitempty"`
	// Ready: it answered the monitoring query. Running and not Ready is starting,
	// stopping, hung, or out of connections; Why says which, as far as known.
	Ready bool   `json:"ready"`
	Why   string `json:"why,omitempty"`
	// InRecovery: a standby. Meaningful when Ready.
	InRecovery bool `json:"in_recovery,omitempty"`
	// Position: on a primary the flushed WAL position.
	Position LSN `json:"position,omitempty"`
	// Received is what the standby flushed, Replayed what it replayed.
	Received LSN `json:"received,omitempty"`
	Replayed LSN `json:"replayed,omitempty"`
	// ReplayPaused and ReplayedAt (of the last replayed transaction) feed the REST API.
	ReplayPaused bool   `json:"replay_paused,omitempty"`
	ReplayedAt   string `json:"replayed_at,omitempty"`
	// Timeline: a primary's current, a standby's received or replayed one.
	Timeline Timeline `json:"timeline,omitempty"`
	// Upstream of the walreceiver, from its effective primary_conninfo's
	// application_name-free host:port; Streaming: its status is "streaming".
	Upstream  string `json:"upstream,omitempty"`
	Streaming bool   `json:"streaming,omitempty"`
	// ConfiguredUpstream is host:port of the primary_conninfo in force.
	ConfiguredUpstream string `json:"configured_upstream,omitempty"`
	// CheckpointTimeline of the control file: smaller than Timeline right after a
	// promotion, until the first checkpoint.
	CheckpointTimeline Timeline `json:"checkpoint_timeline,omitempty"`
	ServerVersion      int      `json:"server_version,omitempty"`
	// StartedAt is the postmaster's start time as PostgreSQL prints it.
	StartedAt string `json:"started_at,omitempty"`
	// SyncNames is synchronous_standby_names of a primary, as in force; SyncHeld: it was
	// put there by synchronous mode, and isn't the configuration's own.
	SyncNames string `json:"sync_names,omitempty"`
	SyncHeld  bool   `json:"sync_held,omitempty"`
	// Standbys connected to this server.
	Standbys       []StandbyState `json:"standbys,omitempty"`
	Slots          []SlotState    `json:"slots,omitempty"`
	PendingRestart bool           `json:"pending_restart,omitempty"`
	// PendingReason is what the restart would change, in Patroni's form.
	PendingReason json.RawMessage `json:"pending_reason,omitempty"`
	// ClientBackends counts sessions of clients, ours excluded.
	ClientBackends int `json:"client_backends,omitempty"`
	// Watchdog is why the kernel's watchdog, which is required (watchdog.mode), doesn't
	// work, so that the keeper would refuse to make this server the primary; empty: it
	// works as far as is known, or nobody insists.
	Watchdog string `json:"watchdog,omitempty"`
}

// DataDir is what the control file and the signal files say, server up or not.
type DataDir struct {
	// Content is "empty", "cluster" (a readable control file) or "broken".
	Content  string   `json:"content"`
	Problem  string   `json:"problem,omitempty"`
	SystemID SystemID `json:"system_id,omitempty"`
	// Standby: standby.signal or recovery.signal is in place.
	Standby bool `json:"standby,omitempty"`
	// ControlState is pg_controldata's "Database cluster state" ("in production", "shut down", …).
	ControlState       string   `json:"control_state,omitempty"`
	CheckpointLSN      LSN      `json:"checkpoint_lsn,omitempty"`
	CheckpointTimeline Timeline `json:"checkpoint_timeline,omitempty"`
	MinRecoveryLSN     LSN      `json:"min_recovery_lsn,omitempty"`
	MinRecoveryTL      Timeline `json:"min_recovery_tl,omitempty"`
	// CanRewind: wal_log_hints or data checksums are on.
	CanRewind bool `json:"can_rewind,omitempty"`
}

// End is a position that the WAL surely reaches, and its timeline. There may be more
// behind it, unless the server was shut down cleanly.
func (d DataDir) End() (LSN, Timeline) {
	if d.MinRecoveryLSN > d.CheckpointLSN {
		return d.MinRecoveryLSN, max(d.MinRecoveryTL, d.CheckpointTimeline)
	}
	return d.CheckpointLSN, d.CheckpointTimeline
}

// WasPrimary reports whether the control file was last written by a server that was
// not in archive recovery.
func (d DataDir) WasPrimary() bool {
	return d.Content == DataCluster && !strings.Contains(d.ControlState, "archive recovery") &&
		d.ControlState != "shut down in recovery"
}

// The values of DataDir.Content.
const (
	DataEmpty   = "empty"
	DataCluster = "cluster"
	DataBroken  = "broken"
)

// StandbyState is a row of pg_stat_replication.
type StandbyState struct {
	User         string   `json:"user,omitempty"`
	Name         NodeName `json:"name"`
	Addr         string   `json:"addr,omitempty"`
	State        string   `json:"state"`
	Flushed      LSN      `json:"flushed,omitempty"`
	SyncState    string   `json:"sync_state,omitempty"`
	SyncPriority int      `json:"sync_priority,omitempty"`
}

// SlotState is a replication slot.
type SlotState struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	Active     bool   `json:"active,omitempty"`
	RestartLSN LSN    `json:"restart_lsn,omitempty"`
}

// Upstream is where a standby streams from.
type Upstream struct {
	Name NodeName `json:"name"`
	Host string   `json:"host"`
	Port int      `json:"port"`
}

// Verdict of judging this data directory's history against an upstream's (S23).
type Verdict string

// The verdicts.
const (
	// VerdictFollow: our history is a prefix of the upstream's; streaming will do.
	VerdictFollow Verdict = "follow"
	// VerdictRewind: we have WAL that the upstream's history doesn't have.
	VerdictRewind Verdict = "rewind"
	// VerdictClone: diverged, and pg_rewind can't work here.
	VerdictClone Verdict = "clone"
	// VerdictWait: the upstream can't be judged yet (still in recovery, or its
	// first checkpoint on the new timeline isn't there).
	VerdictWait Verdict = "wait"
)

// Divergence is a verdict with what it was read from.
type Divergence struct {
	Verdict          Verdict  `json:"verdict"`
	Why              string   `json:"why"`
	LocalTimeline    Timeline `json:"local_timeline,omitempty"`
	LocalLSN         LSN      `json:"local_lsn,omitempty"`
	UpstreamTimeline Timeline `json:"upstream_timeline,omitempty"`
	ForkLSN          LSN      `json:"fork_lsn,omitempty"`
}
