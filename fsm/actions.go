package fsm

import (
	"time"

	"github.com/pgregent/regent/events"
)

// Action is something to be done, as plain data: no closures, channels or
// contexts. An executor carries it out and reports exactly one outcome with the
// action's id, except for the actions marked "no outcome".
type Action interface {
	// Kind names the action's kind, as in the journal.
	Kind() string
	lane() lane
}

// Ordered is an action with its identity.
type Ordered struct {
	ID events.ActionID `json:"id"`
	// Needs is the lease without which the action must not be carried out. Its
	// executor gives up at the belief's end, Until.
	Needs  events.LeaseID `json:"needs,omitempty"`
	Until  events.Instant `json:"until,omitempty"`
	Action Action         `json:"-"`
}

// lane says what an action must not run beside.
type lane int

const (
	// laneFree: no restriction; at most one action of a kind is in flight.
	laneFree lane = iota
	// lanePostgres: operations on the server or its data directory, one at a time.
	lanePostgres
	// laneSilent: no outcome comes back.
	laneSilent
)

// ---- store ----

// RefreshView reads the store linearizably; a ClusterObserved comes back beside the outcome.
type RefreshView struct{}

// GrantLease asks for a lease of this ttl.
type GrantLease struct {
	TTL time.Duration `json:"ttl"`
}

// RenewLease renews; its outcome is LeaseRenewed, RenewalFailed or LeaseLost.
type RenewLease struct {
	Lease   events.LeaseID `json:"lease"`
	Timeout time.Duration  `json:"timeout"` // of this try (S7)
}

// AcquireLeader takes the leader key in one transaction: the key absent, and what
// eligibility was judged on as it was read (S14).
type AcquireLeader struct {
	Lease events.LeaseID  `json:"lease"`
	Sync  events.Revision `json:"sync"` // 0: sync must be absent
	// Config is the version of the config key, 0: it must be absent. By it synchronous mode is on or
	// off, and no move to another store has begun (ADR 0024).
	Config events.Revision `json:"config,omitempty"`
	// Failsafe is the version of the failsafe key, 0: it must be absent. It names who may lead (S12).
	Failsafe events.Revision `json:"failsafe,omitempty"`
}

// ReleaseLeader deletes the leader key if it is this member's, status first.
type ReleaseLeader struct {
	Lease  events.LeaseID `json:"lease"`
	Optime events.LSN     `json:"optime,omitempty"` // 0: leave the status key alone
}

// HandOver writes the final position and moves the leader key to another
// member's lease, in one guarded transaction (S15).
type HandOver struct {
	To      events.NodeName `json:"to"`
	ToLease events.LeaseID  `json:"to_lease"`
	Lease   events.LeaseID  `json:"lease"`
	Optime  events.LSN      `json:"optime"`
	Config  events.Revision `json:"config,omitempty"` // as it was read, like AcquireLeader's
}

// AskPosition asks a candidate what it has flushed, until it has At or Timeout is over.
type AskPosition struct {
	Name    events.NodeName `json:"name"`
	APIURL  string          `json:"api_url"`
	At      events.LSN      `json:"at"`
	Timeout time.Duration   `json:"timeout"`
}

// ProbePeers asks all of them at once; one PeerObserved each, then the outcome.
type ProbePeers struct {
	Peers   []PeerAddr    `json:"peers"`
	Timeout time.Duration `json:"timeout"`
}

// PeerAddr is where a peer's REST API answers.
type PeerAddr struct {
	Name   events.NodeName `json:"name"`
	APIURL string          `json:"api_url"`
	// Postgres is asked itself if the member's agent doesn't answer: it may be a primary
	// that maintenance mode left without one (S11).
	Postgres *events.Upstream `json:"postgres,omitempty"`
}

// PublishMember writes this member's key under its lease.
type PublishMember struct {
	Member events.Member `json:"member"`
}

// ClaimInitialize creates the empty initialize key, if absent.
type ClaimInitialize struct{}

// ClearInitialize deletes an empty initialize key left by a dead bootstrapper (S17).
type ClearInitialize struct {
	Version events.Revision `json:"version"`
}

// WriteInitialize puts the system identifier: create-only when Version is 0, else
// if the key is still at Version.
type WriteInitialize struct {
	SystemID events.SystemID `json:"system_id"`
	Version  events.Revision `json:"version,omitempty"`
}

// WriteConfig creates the config key, if absent.
type WriteConfig struct {
	JSON string `json:"json"`
}

// WriteStatus publishes the holder's position and the slots to keep.
type WriteStatus struct {
	Optime      events.LSN     `json:"optime"`
	Slots       []SlotPosition `json:"slots,omitempty"`
	RetainSlots []string       `json:"retain_slots,omitempty"`
	Lease       events.LeaseID `json:"lease"`
}

// SlotPosition is a slot's position as published in the status key.
type SlotPosition struct {
	Name string     `json:"name"`
	LSN  events.LSN `json:"lsn"`
}

// WriteHistory brings the history key up to the current timeline.
type WriteHistory struct {
	Timeline events.Timeline `json:"timeline"`
	Version  events.Revision `json:"version,omitempty"`
}

// ClearFailover empties the request key, if it is still at Version.
type ClearFailover struct {
	Version events.Revision `json:"version"`
}

// RequestFailover writes an operator's wish to the request key.
type RequestFailover struct {
	From events.NodeName `json:"from,omitempty"`
	To   events.NodeName `json:"to,omitempty"`
	// At is when, as the request key has it; empty: now.
	At string `json:"at,omitempty"`
}

// WriteSync puts the sync key, with this member as the leader, or deletes it: in one
// transaction with the leader key being this member's, and "sync" as it was read (S14).
type WriteSync struct {
	Standbys []events.NodeName `json:"standbys,omitempty"`
	Delete   bool              `json:"delete,omitempty"`
	Version  events.Revision   `json:"version,omitempty"` // 0: sync must be absent
	Lease    events.LeaseID    `json:"lease"`
}

// RevokeLease ends this member's lease, and its keys with it: the last act.
type RevokeLease struct {
	Lease events.LeaseID `json:"lease"`
}

// ---- PostgreSQL ----

// ObservePostgres asks for an observation now. No outcome; PostgresObserved follows.
type ObservePostgres struct{}

// Bootstrap runs initdb.
type Bootstrap struct{}

// PostBootstrap creates roles and passwords in the new cluster.
type PostBootstrap struct{}

// Clone copies the data directory from a peer.
type Clone struct {
	From events.Upstream `json:"from"`
	// Replace: what the data directory holds may be removed for it.
	Replace bool `json:"replace,omitempty"`
}

// StartStandby starts PostgreSQL in recovery, following Upstream, if any.
type StartStandby struct {
	Upstream *events.Upstream `json:"upstream,omitempty"`
}

// StartPrimary starts PostgreSQL writable, armed first (S3).
type StartPrimary struct {
	Fence Fence `json:"fence"`
}

// Stop stops PostgreSQL; done means that the whole server is down (S1).
type Stop struct {
	Mode       string `json:"mode"` // fast, immediate, kill
	Checkpoint bool   `json:"checkpoint,omitempty"`
	// Patience before the next harsher mode.
	Patience time.Duration `json:"patience"`
}

// Promote leaves recovery, armed first (S3). In synchronous mode, what commits wait for
// is put in force before that; nil: it is the configuration's.
type Promote struct {
	Fence Fence             `json:"fence"`
	Sync  *events.SyncNames `json:"sync,omitempty"`
}

// SetSyncNames puts synchronous_standby_names in force on the primary. Done means that
// each commit beyond the reported position waits for all the names.
type SetSyncNames struct {
	Sync events.SyncNames `json:"sync"`
}

// Follow re-points the running standby by reload; nil detaches it.
type Follow struct {
	Upstream *events.Upstream `json:"upstream,omitempty"`
}

// Judge compares histories with the upstream's (S23).
type Judge struct {
	Upstream events.Upstream `json:"upstream"`
}

// Rewind runs pg_rewind against the upstream; PostgreSQL is stopped before it.
type Rewind struct {
	Upstream events.Upstream `json:"upstream"`
}

// Checkpoint makes the first checkpoint on a new timeline.
type Checkpoint struct{}

// SyncSlots creates missing member slots and drops those in Drop, if inactive.
type SyncSlots struct {
	Want []string `json:"want"`
	Drop []string `json:"drop,omitempty"`
}

// ExtendFence moves the keeper's deadline. Its outcome matters only when refused.
type ExtendFence struct {
	Fence Fence `json:"fence"`
}

// Disarm takes the keeper's deadline away for a reason that held at that version of
// the config key (S11).
type Disarm struct {
	Reason string          `json:"reason"`
	Config events.Revision `json:"config"`
}

// Fence is what arms the keeper. Config is the version of the config key that asked for
// a deadline: a keeper that was disarmed at a later one refuses.
type Fence struct {
	Revision events.Revision `json:"revision"`
	Deadline events.Instant  `json:"deadline"`
	Budget   time.Duration   `json:"budget"`
	Config   events.Revision `json:"config,omitempty"`
}

// Cancel ends a running PostgreSQL operation; it reports nothing any more. No outcome.
type Cancel struct {
	ID events.ActionID `json:"id"`
}

// ---- the agent ----

// SetTimer replaces the machine's one timer. No outcome; the named deadline's event follows.
type SetTimer struct {
	Name string         `json:"name"`
	At   events.Instant `json:"at"`
}

// Respond answers an operator's request. No outcome.
type Respond struct {
	ID   string `json:"id"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
	// Durable: not before what led to it is on disk; if it can't be, the answer is no (S12).
	Durable bool `json:"durable,omitempty"`
}

// Exit ends the agent. No outcome.
type Exit struct {
	Code int    `json:"code"`
	Text string `json:"text,omitempty"`
}
