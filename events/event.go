package events

import "time"

// Event is a fact, in the past tense. The set of events is closed: only this
// package can add one, and a new one forces a decision in every phase (the
// handled/unhandled report of package fsm).
type Event interface {
	// Kind is the name under which the event is journaled.
	Kind() Kind
	sealed()
}

// Kind names a type of event.
type Kind string

// Entry is an event as the journal holds it: numbered, and stamped with the time
// at which the agent's loop took it in. At orders and measures; Wall is for people.
type Entry struct {
	Seq   uint64
	At    Instant
	Wall  int64 // nanoseconds since the Unix epoch
	Event Event
}

// ActionID identifies an action: the journal sequence number of the entry that
// led to it, and its index among that step's actions.
type ActionID struct {
	Seq   uint64 `json:"seq"`
	Index int    `json:"index"`
}

// Zero reports whether the id names no action.
func (a ActionID) Zero() bool { return a == ActionID{} }

// ---- the agent itself ----

// AgentStarted is the first fact of every run. Whatever the journal remembered of
// leases and running actions is void from here on (safety rules S10, S20).
type AgentStarted struct {
	Node     NodeName `json:"node"`
	Scope    string   `json:"scope"`
	Version  string   `json:"version"`
	Boot     string   `json:"boot"` // kernel boot id; another one voids every Instant (S9)
	Settings Settings `json:"settings"`
	// Run is unlike that of any other run of any agent.
	Run string `json:"run,omitempty"`
	// Arrived is the epoch of the move that has led to this store, as this member read
	// it in the store before; empty: none, or none that is remembered.
	Arrived string `json:"arrived,omitempty"`
}

// Tick is the heartbeat, every loop_wait: it catches what an edge missed.
type Tick struct{}

// TimerFired says that a deadline of the machine has come. Some deadlines have
// events of their own: PrimaryStartTimeout, LeaseLost (expired), Tick.
type TimerFired struct {
	Name string `json:"name"`
}

// Reconsider follows every step that fired a trigger, until the machine is at rest (S22).
type Reconsider struct{}

// TimeJumped says that the loop stood still (machine frozen or suspended, agent
// stopped): nothing that was believed before it is believed any more (S24).
type TimeJumped struct {
	By time.Duration `json:"by"`
}

// JournalDegraded says that the journal can't write, or can again when Why is empty.
type JournalDegraded struct {
	Why string `json:"why"`
}

// ShutdownRequested: the agent was asked to end (SIGTERM, SIGINT).
type ShutdownRequested struct {
	By string `json:"by"`
}

// ---- the store ----

// ClusterObserved is a whole view of the store.
type ClusterObserved struct {
	View ClusterView `json:"view"`
	// Read is when a linearizable read was sent; zero: pushed by a watch.
	Read Instant `json:"read,omitempty"`
}

// DCSUnavailable: calls to the store began to fail without an answer.
type DCSUnavailable struct {
	Why string `json:"why"`
}

// DCSRestored: the store answers again.
type DCSRestored struct{}

// LeaseAcquired: the leader key is this member's, attached to its lease.
type LeaseAcquired struct {
	ID       ActionID `json:"id"`
	Revision Revision `json:"revision"`
}

// LeaseRenewed: the store confirmed the lease. SentAt is from before the request
// left (S6); Keys were read linearizably afterwards (S8).
type LeaseRenewed struct {
	ID     ActionID      `json:"id"`
	Lease  LeaseID       `json:"lease"`
	TTL    time.Duration `json:"ttl"` // as granted
	SentAt Instant       `json:"sent_at"`
	Keys   []string      `json:"keys,omitempty"`
}

// RenewalFailed: no answer. It says nothing about the lease; the belief's deadline does.
type RenewalFailed struct {
	ID    ActionID `json:"id"`
	Class Class    `json:"class"`
	Why   string   `json:"why"`
}

// LossCause tells how a lease was lost.
type LossCause string

// The causes of LeaseLost.
const (
	// LossExpired: the belief's deadline came without a confirmed renewal.
	LossExpired LossCause = "expired"
	// LossTaken: another holder was read.
	LossTaken LossCause = "taken"
	// LossRefused: the store answered that the lease is not ours.
	LossRefused LossCause = "refused"
)

// LeaseLost: this member may not act under its lease any longer.
type LeaseLost struct {
	Cause LossCause `json:"cause"`
	Lease LeaseID   `json:"lease,omitempty"`
	By    NodeName  `json:"by,omitempty"` // the other holder, when taken
}

// ---- PostgreSQL on this host ----

// PostgresObserved is a whole observation. Began is when looking began: what an
// operation changed after that, the observation may not show yet.
type PostgresObserved struct {
	State PostgresState `json:"state"`
	Began Instant       `json:"began"`
}

// PostgresUp: the server accepts connections after a start.
type PostgresUp struct {
	PID int `json:"pid"`
}

// PostgresDown: no process of the data directory is left (S1).
type PostgresDown struct {
	PID    int  `json:"pid"`
	Code   int  `json:"code"`
	Signal int  `json:"signal,omitempty"`
	Ours   bool `json:"ours"`             // asked for by the agent or the keeper
	Fenced bool `json:"fenced,omitempty"` // the fence deadline ended it
}

// PrimaryStartTimeout: primary_start_timeout is over and PostgreSQL isn't up.
type PrimaryStartTimeout struct{}

// FenceBegun: the keeper is stopping the server by itself.
type FenceBegun struct {
	Why string `json:"why"`
}

// KeeperLost: the agent lost its keeper; KeeperFound: it has one (again).
type KeeperLost struct {
	Why string `json:"why"`
}

// KeeperFound says what the keeper reported when the agent connected.
type KeeperFound struct {
	PID      int     `json:"pid,omitempty"` // postmaster
	Armed    bool    `json:"armed,omitempty"`
	Deadline Instant `json:"deadline,omitempty"`
	Adopted  bool    `json:"adopted,omitempty"`
	// Waived is why the server runs without a deadline (WaivedPause,
	// WaivedFencingOff), as an agent before this one arranged; empty: nobody did.
	Waived string `json:"waived,omitempty"`
	// WaivedAt is the version of the config key at which that reason held.
	WaivedAt Revision `json:"waived_at,omitempty"`
}

// The reasons for a primary without a fence deadline, in the keeper's words.
const (
	WaivedPause      = "pause"
	WaivedFencingOff = "fencing_off"
)

// UnexpectedPrimary: PostgreSQL left recovery and this agent had not promoted it.
type UnexpectedPrimary struct {
	Timeline Timeline `json:"timeline,omitempty"`
}

// CleanShutdown: the primary that is being stopped has written its last checkpoint.
// No client session is left and none can begin, though archiving, and sending to
// standbys, may go on: the leadership may move on (S15). The end of the stop follows.
type CleanShutdown struct {
	ID  ActionID `json:"id"` // of the stop
	End LSN      `json:"end"`
}

// WalReceiverEnded: the standby stopped streaming.
type WalReceiverEnded struct {
	Upstream string `json:"upstream,omitempty"`
}

// SyncLost: a standby that commits waited for is gone.
type SyncLost struct {
	Standby NodeName `json:"standby"`
	Mode    string   `json:"mode"` // its sync_state: sync or quorum
}

// ---- peers ----

// PeerObserved is a peer's own answer to a probe that was sent after the cause of
// the probe, never a cached one (S16).
type PeerObserved struct {
	ID   ActionID `json:"id"` // the probe
	Peer Peer     `json:"peer"`
}

// Peer is what a member says of itself over its REST API.
type Peer struct {
	Name      NodeName `json:"name"`
	Reachable bool     `json:"reachable"`
	Why       string   `json:"why,omitempty"` // when unreachable
	State     string   `json:"state,omitempty"`
	Primary   bool     `json:"primary,omitempty"`
	Timeline  Timeline `json:"timeline,omitempty"`
	// Position is max(received, replayed), or a primary's; of a member that isn't
	// reachable because its server is down, what its control file vouches for.
	Position LSN  `json:"position,omitempty"`
	Tags     Tags `json:"tags"`
	// Barred: its host lacks what it needs to lead (a watchdog that is required).
	Barred bool `json:"barred,omitempty"`
}

// MayLead reports whether the peer, if it answers, is one to whom the lead may go.
func (p Peer) MayLead() bool { return !p.Tags.NoFailover && !p.Barred }

// FailsafeAsked: a primary that the store doesn't answer asks this member to promise that
// it won't lead for a while (S12). The answer is a Respond to ID.
type FailsafeAsked struct {
	ID   string   `json:"id"`
	From NodeName `json:"from"`
	// TTL is for how long; 0: for this member's own ttl, which is all that a Patroni asks for.
	TTL time.Duration `json:"ttl,omitempty"`
}

// FailsafeAnswered is what a member answered to this primary, or that it didn't.
type FailsafeAnswered struct {
	ID       ActionID `json:"id"` // the asking
	Member   NodeName `json:"member"`
	Accepted bool     `json:"accepted,omitempty"`
	Why      string   `json:"why,omitempty"` // if it wasn't
}

// ---- operators ----

// SwitchoverRequested: an operator wants the leadership to move while the primary lives.
type SwitchoverRequested struct {
	ID   string   `json:"id"`
	From NodeName `json:"from"`
	To   NodeName `json:"to,omitempty"`
	// ScheduledAt is when, RFC 3339; empty: now.
	ScheduledAt string `json:"scheduled_at,omitempty"`
}

// FailoverRequested: an operator wants the candidate to lead, primary alive or not.
type FailoverRequested struct {
	ID string   `json:"id"`
	To NodeName `json:"to"`
}

// RestartRequested: an operator wants PostgreSQL restarted in its role.
type RestartRequested struct {
	ID string `json:"id"`
	// Timeout of the start; 0: primary_start_timeout.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Schedule makes it a restart at a later time, under conditions; nil: now.
	Schedule *RestartSchedule `json:"schedule,omitempty"`
}

// RestartSchedule is a restart at a later time. What is judged at that time: the
// role, the server's version, whether a restart is pending.
type RestartSchedule struct {
	// At is when, as the operator wrote it (RFC 3339), Wall the same in nanoseconds
	// since the Unix epoch.
	At   string `json:"at"`
	Wall int64  `json:"wall"`
	// Role that the member must have then; empty: any.
	Role string `json:"role,omitempty"`
	// OlderThan: only a server of an older version is restarted; 0: any. Version is
	// the same as written.
	OlderThan int    `json:"older_than,omitempty"`
	Version   string `json:"version,omitempty"`
	// Pending: only if a restart is pending.
	Pending bool          `json:"pending,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
	// StartedAt is the server's start time when the restart was asked for: one that
	// was restarted since needs no other.
	StartedAt string `json:"started_at,omitempty"`
}

// RestartWithdrawn: an operator doesn't want the scheduled restart any more.
type RestartWithdrawn struct {
	ID string `json:"id"`
}

// ReinitRequested: an operator wants this replica built anew.
type ReinitRequested struct {
	ID string `json:"id"`
	// Force cancels what is under way on the server.
	Force bool `json:"force,omitempty"`
	// FromLeader: copy from nobody but the leader.
	FromLeader bool `json:"from_leader,omitempty"`
}

// PauseChanged: maintenance mode was switched, as read in the dynamic configuration.
type PauseChanged struct {
	Paused   bool     `json:"paused"`
	Revision Revision `json:"revision"`
}

// ConfigChanged carries the settings in force from now on.
type ConfigChanged struct {
	Settings Settings `json:"settings"`
}

// ---- outcomes ----

// ActionFinished is the one outcome of an action that has no event of its own.
type ActionFinished struct {
	ID     ActionID `json:"id"`
	Action string   `json:"action"` // its kind
	Class  Class    `json:"class"`
	Why    string   `json:"why,omitempty"`
	Result Result   `json:"result"`
}

// Result carries what an action found out; which fields are set depends on its kind.
type Result struct {
	Lease    LeaseID       `json:"lease,omitempty"`
	TTL      time.Duration `json:"ttl,omitempty"`
	SentAt   Instant       `json:"sent_at,omitempty"`
	Revision Revision      `json:"revision,omitempty"`
	Timeline Timeline      `json:"timeline,omitempty"`
	EndLSN   LSN           `json:"end_lsn,omitempty"`  // end of the shutdown checkpoint
	Position LSN           `json:"position,omitempty"` // what a candidate flushed; where the WAL was when the names were in force
	// Held: the target's leader key hangs on the lease, or the target is settled (ADR 0024).
	Held       bool           `json:"held,omitempty"`
	Divergence *Divergence    `json:"divergence,omitempty"`
	Postgres   *PostgresState `json:"postgres,omitempty"` // observed when the action ended
}
