package fsm

import (
	"slices"
	"time"

	"github.com/pgregent/regent/events"
)

// StateSchema is the version of State's JSON form in journal snapshots (S20).
const StateSchema = 1

// State is everything the machine knows. It is a value: Step returns a changed
// copy, and what slices and pointers refer to is replaced, never changed in place,
// so that a copy may be read by anyone at any time.
type State struct {
	Schema   int             `json:"schema"`
	Seq      uint64          `json:"seq"` // of the last entry absorbed
	Now      events.Instant  `json:"now"`
	Wall     int64           `json:"wall"`
	Boot     string          `json:"boot,omitempty"`
	Self     events.NodeName `json:"self"`
	Scope    string          `json:"scope"`
	Version  string          `json:"version"`
	Settings events.Settings `json:"settings"`
	Run      string          `json:"run,omitempty"`     // of the agent (see events.AgentStarted)
	Arrived  string          `json:"arrived,omitempty"` // the move that led to this store
	Phase    Phase           `json:"phase"`
	Since    events.Instant  `json:"since"` // when the phase was entered
	Chain    int             `json:"chain"` // Reconsiders in a row (S22)
	Defects  int             `json:"defects,omitempty"`
	NextTick events.Instant  `json:"next_tick"`
	Timer    SetTimer        `json:"timer"` // the one armed in the shell
	Flight   []Flight        `json:"flight,omitempty"`
	Op       *Flight         `json:"op,omitempty"` // the PostgreSQL operation under way
	Shutdown string          `json:"shutdown,omitempty"`
	Requests []Request       `json:"requests,omitempty"`
	Journal  string          `json:"journal,omitempty"` // why the journal is degraded

	Store    StoreState    `json:"store"`
	Lease    Lease         `json:"lease"`
	Holder   Holder        `json:"holder"`
	Postgres Postgres      `json:"postgres"`
	Keeper   Keeper        `json:"keeper"`
	Pause    Pause         `json:"pause"`
	Move     MoveWork      `json:"move"`
	Boots    BootstrapWork `json:"bootstrap"`
	Race     RaceWork      `json:"race"`
	Demote   DemoteWork    `json:"demote"`
	Rejoin   RejoinWork    `json:"rejoin"`
	Revive   ReviveWork    `json:"revive"`
	Restart  RestartWork   `json:"restart"`
	// Schedule is a restart to come; nil: none.
	Schedule *events.RestartSchedule `json:"schedule,omitempty"`
	Unfit    Unfit                   `json:"unfit"`
	Failsafe FailsafeWork            `json:"failsafe"`
	Sync     SyncWork                `json:"sync"`
	Publish  Published               `json:"publish"`
	Slots    []SlotSeen              `json:"slots,omitempty"`
	Gone     []MemberGone            `json:"gone,omitempty"` // members whose key vanished, while bootstrapping matters (S17)

	// Last is the decision in force, for `regent why` and the REST API.
	Last Decision `json:"last"`
}

// Flight is an action without outcome yet.
type Flight struct {
	ID    events.ActionID `json:"id"`
	Kind  string          `json:"kind"`
	Since events.Instant  `json:"since"`
}

// Request is an operator's request that waits for its end.
type Request struct {
	ID      string          `json:"id"`
	Kind    string          `json:"kind"` // switchover, failover, restart, start
	From    events.NodeName `json:"from,omitempty"`
	To      events.NodeName `json:"to,omitempty"`
	Timeout time.Duration   `json:"timeout,omitempty"` // of a restart or start
	At      events.Instant  `json:"at,omitempty"`      // when it came, of a start
	// Written is the action that writes it to the request key.
	Written events.ActionID `json:"written"`
}

// StoreState is the store as last seen.
type StoreState struct {
	Known bool               `json:"known"`
	View  events.ClusterView `json:"view"`
	At    events.Instant     `json:"at"` // when the view was taken in
	// Read is when the last linearizable read that has been answered was sent.
	Read events.Instant `json:"read,omitempty"`
	// Floor: this member's own writes to the leader key happened at this revision;
	// older views are past.
	Floor   events.Revision `json:"floor,omitempty"`
	FloorAt events.Instant  `json:"floor_at,omitempty"`
	// LeaderSince is when the leader key was first seen as it is.
	LeaderSince events.Instant `json:"leader_since,omitempty"`
	// AskedAt is when the request key was first seen as it is.
	AskedAt events.Instant `json:"asked_at,omitempty"`
	// Answered is the version of the request key that has been dealt with.
	Answered events.Revision `json:"answered,omitempty"`
	// ResumedAt is when maintenance mode was seen to be over.
	ResumedAt events.Instant `json:"resumed_at,omitempty"`
	// TendedAt is when a write of a shared key ended; the next one waits for a view
	// that shows what came of it, which is at Tended if it is known to have happened.
	TendedAt events.Instant  `json:"tended_at,omitempty"`
	Tended   events.Revision `json:"tended,omitempty"`
	// RetryAt holds back the next read after one that failed.
	RetryAt events.Instant `json:"retry_at,omitempty"`
	// DownSince is when the store stopped answering; 0: it answers.
	DownSince events.Instant `json:"down_since,omitempty"`
	Why       string         `json:"why,omitempty"`
}

// Lease is this member's own lease, which carries its member key and, when it
// holds the leadership, the leader key.
type Lease struct {
	ID  events.LeaseID `json:"id,omitempty"`
	TTL time.Duration  `json:"ttl,omitempty"` // as granted
	// Trust is how much of TTL counts for the belief: no more than the ttl that is set
	// now, so that a shorter one is obeyed before there is a lease of it.
	Trust time.Duration `json:"trust,omitempty"`
	// Asked is the ttl that was asked for; Next is a lease of another ttl that is to
	// take this one's place.
	Asked time.Duration `json:"asked,omitempty"`
	Next  *Lease        `json:"next,omitempty"`
	// Moving: the leader key may hang on Next by now.
	Moving bool           `json:"moving,omitempty"`
	Sent   events.Instant `json:"sent,omitempty"`
	// Tried is when the last renewal was sent, answered or not.
	Tried    events.Instant `json:"tried,omitempty"`
	Failures int            `json:"failures,omitempty"` // renewals failed in a row
	// Leads: the last renewal showed the leader key attached to the lease.
	Leads bool `json:"leads,omitempty"`
	// Void is a lease under this member's name that the store said is gone.
	Void events.LeaseID `json:"void,omitempty"`
	// Former are the leases of the run before, if that was since the machine booted: the
	// leader key may still hang on one of them (S10).
	Former []events.LeaseID `json:"former,omitempty"`
	// GrantAfter holds back the next attempt to get a lease.
	GrantAfter events.Instant `json:"grant_after,omitempty"`
}

// Holder says since which revision this member holds the leader key; zero: it doesn't.
type Holder struct {
	Revision events.Revision `json:"revision,omitempty"`
	Since    events.Instant  `json:"since,omitempty"`
	// Lost tells why the leadership ended last.
	Lost events.LossCause `json:"lost,omitempty"`
}

// Postgres is the local server as last observed.
type Postgres struct {
	Known bool                 `json:"known"`
	At    events.Instant       `json:"at"`
	State events.PostgresState `json:"state"`
	// Down is the last exit of a whole server, until one is seen to run again.
	Down *events.PostgresDown `json:"down,omitempty"`
	// Promoted: this agent promoted the server (or started it as a primary) that
	// is running now; what else is a primary is a rogue.
	Promoted bool `json:"promoted,omitempty"`
	// Wrote: since its history was last judged the server was a primary, so it may have
	// WAL that nobody else has. What a standby streams from an upstream that lacks it
	// is written over it, and a comparison comes too late then (S23).
	Wrote bool `json:"wrote,omitempty"`
	// Judged is the leadership (its LeaderSince) of whose history ours was last found
	// to be a part.
	Judged events.Instant `json:"judged,omitempty"`
	// After: observations that began before it are past (an operation ended then).
	After events.Instant `json:"after,omitempty"`
	// Look is when to observe again before the next heartbeat.
	Look events.Instant `json:"look,omitempty"`
	// SlotsAgain and CheckpointAgain: such an attempt has just been made, and what
	// came of it is to be seen first.
	SlotsAgain      events.Instant `json:"slots_again,omitempty"`
	CheckpointAgain events.Instant `json:"checkpoint_again,omitempty"`
	// StreamedAt is when streaming was last seen.
	StreamedAt events.Instant `json:"streamed_at,omitempty"`
}

// Keeper is the keeper as the agent knows it.
type Keeper struct {
	Up      bool   `json:"up"`
	Why     string `json:"why,omitempty"`
	Armed   bool   `json:"armed,omitempty"`
	Adopted bool   `json:"adopted,omitempty"`
	Fencing bool   `json:"fencing,omitempty"`
	// Sent is the last deadline asked for, Revision the leadership it was asked under.
	Sent     events.Instant  `json:"sent,omitempty"`
	Revision events.Revision `json:"revision,omitempty"`
	// DisarmAfter holds back the next attempt to take the deadline away; Refuses: the
	// last one was refused.
	DisarmAfter events.Instant `json:"disarm_after,omitempty"`
	Refuses     bool           `json:"refuses,omitempty"`
}

// BootstrapWork is how far the creation of a cluster is.
type BootstrapWork struct {
	Stage string `json:"stage,omitempty"` // claim, initdb, acquire, start, roles, record, done
	// Claim is the version of the initialize key as claimed.
	Claim events.Revision `json:"claim,omitempty"`
	// ReadFirst: the record was refused then; the store is read before another try.
	ReadFirst events.Instant `json:"read_first,omitempty"`
	Why       string         `json:"why,omitempty"` // of a failure
}

// RaceWork is how far a race is.
type RaceWork struct {
	Stage    string          `json:"stage,omitempty"` // detach, probe, wait, acquire
	Began    events.Instant  `json:"began,omitempty"`
	Probe    events.ActionID `json:"probe"`
	Peers    []events.Peer   `json:"peers,omitempty"`
	Verdict  string          `json:"verdict,omitempty"`
	Orphan   events.NodeName `json:"orphan,omitempty"` // a primary that answered in the last round
	RetryAt  events.Instant  `json:"retry_at,omitempty"`
	Deferred bool            `json:"deferred,omitempty"` // a peer of equal rank was given its head start
}

// DemoteWork is how far giving up the leadership is.
type DemoteWork struct {
	Stage   string         `json:"stage,omitempty"` // stop, ask, move, verify, release, done
	StageAt events.Instant `json:"stage_at,omitempty"`
	Why     string         `json:"why,omitempty"`
	Mode    string         `json:"mode,omitempty"`
	HandOff bool           `json:"hand_off,omitempty"` // try to give the lease to a candidate
	// Offer: the same after a stop that had a reason of its own, if the lease outlives it.
	Offer bool `json:"offer,omitempty"`
	// Shut: the server has written its last checkpoint; its last processes may live.
	Shut  bool            `json:"shut,omitempty"`
	To    events.NodeName `json:"to,omitempty"`    // the candidate asked for, or chosen
	Asked events.NodeName `json:"asked,omitempty"` // by an operator
	// Anyone: whom the operator asked for need not be a synchronous standby.
	Anyone bool              `json:"anyone,omitempty"`
	End    events.LSN        `json:"end,omitempty"`
	Until  events.Instant    `json:"until,omitempty"`  // of waiting for the candidate
	Failed []events.NodeName `json:"failed,omitempty"` // candidates that did not answer
	// Standbys as connected before the stop: whom to ask.
	Standbys []events.StandbyState `json:"standbys,omitempty"`
	// Leave: the agent ends, and leaves PostgreSQL and the lease as they are.
	Leave    bool           `json:"leave,omitempty"`
	Kills    int            `json:"kills,omitempty"`    // stops that failed
	RetryAt  events.Instant `json:"retry_at,omitempty"` // of the next stop after one that failed
	Exit     int            `json:"exit,omitempty"`     // exit code of the agent, when it is ending
	ExitText string         `json:"exit_text,omitempty"`
}

// RejoinWork is the ladder back to the holder's history. It survives a restart of
// the agent (S21), so that no rung is retried for ever.
type RejoinWork struct {
	Stage   string             `json:"stage,omitempty"`  // judge, stop, rewind, clone, start, start-alone
	Leader  events.NodeName    `json:"leader,omitempty"` // whom the work is for
	Since   events.Instant     `json:"since,omitempty"`  // LeaderSince when the judgement began
	Source  events.NodeName    `json:"source,omitempty"` // of the copy
	Verdict *events.Divergence `json:"verdict,omitempty"`
	// Tries counts attempts per rung against this leader's timeline.
	Timeline  events.Timeline `json:"timeline,omitempty"`
	Rewinds   int             `json:"rewinds,omitempty"`
	Clones    int             `json:"clones,omitempty"`
	Starts    int             `json:"starts,omitempty"`
	Stalls    int             `json:"stalls,omitempty"` // followed, but never streamed
	NotBefore events.Instant  `json:"not_before,omitempty"`
	// Unanswered counts judgements in a row that failed, as a rule because the leader
	// can't be reached; JudgeAfter holds back the next one.
	Unanswered int            `json:"unanswered,omitempty"`
	JudgeAfter events.Instant `json:"judge_after,omitempty"`
	Why        string         `json:"why,omitempty"`
	// Reinit: an operator wants a new copy; FromLeader: of the leader's data.
	Reinit     bool `json:"reinit,omitempty"`
	FromLeader bool `json:"from_leader,omitempty"`
}

// ReviveWork is the restart of a crashed primary (start deadline kept: S21).
type ReviveWork struct {
	Began    events.Instant `json:"began,omitempty"`
	Deadline events.Instant `json:"deadline,omitempty"`
	TimedOut bool           `json:"timed_out,omitempty"`
	Tries    int            `json:"tries,omitempty"`
	RetryAt  events.Instant `json:"retry_at,omitempty"`
	Why      string         `json:"why,omitempty"`
}

// RestartWork is an operator's restart.
type RestartWork struct {
	Stage   string `json:"stage,omitempty"` // stop, stop-failed, start, started
	ID      string `json:"id,omitempty"`
	Primary bool   `json:"primary,omitempty"`
	// Timeout of the start; 0: primary_start_timeout.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Published is what the store last got from this member.
type Published struct {
	Member events.Member  `json:"member"`
	Lease  events.LeaseID `json:"lease,omitempty"`
	// Position and Status: written since the last heartbeat.
	Position bool `json:"position,omitempty"`
	Status   bool `json:"status,omitempty"`
	// Again: a write failed; not before this.
	Again events.Instant `json:"again,omitempty"`
}

// SlotSeen is when the member of a slot was last seen.
type SlotSeen struct {
	Name string         `json:"name"`
	At   events.Instant `json:"at"`
}

// MemberGone is when a member's key was first seen missing.
type MemberGone struct {
	Name events.NodeName `json:"name"`
	At   events.Instant  `json:"at"`
}

// InFlight reports whether an action of that kind has no outcome yet.
func (s *State) InFlight(a Action) bool {
	return slices.ContainsFunc(s.Flight, func(f Flight) bool { return f.Kind == a.Kind() })
}

// busy reports whether a PostgreSQL operation is under way.
func (s *State) busy() bool { return s.Op != nil }

// unseen reports whether an operation is under way, or the server has not been
// observed since the last one ended: what is known of it is from before.
func (s *State) unseen() bool { return s.busy() || s.Postgres.At < s.Postgres.After }

// doing reports whether the operation under way is of a's kind.
func (s *State) doing(a Action) bool { return s.Op != nil && s.Op.Kind == a.Kind() }

// view is the last cluster view.
func (s *State) view() events.ClusterView { return s.Store.View }

// leader is the leader key as last read.
func (s *State) leader() events.Leader { return s.Store.View.Leader }

// otherLeads reports whether the leader key names another member.
func (s *State) otherLeads() bool {
	l := s.leader()
	return s.Store.Known && l.Locked() && l.Name != s.Self
}

// unlocked reports whether the leader key is known to be free.
func (s *State) unlocked() bool { return s.Store.Known && !s.leader().Locked() }

// pg is the last observation of the server.
func (s *State) pg() events.PostgresState { return s.Postgres.State }

// primaryUp reports whether the local server accepts writes.
func (s *State) primaryUp() bool { return s.pg().Running && s.pg().Ready && !s.pg().InRecovery }

// standbyUp reports whether the local server runs in recovery and answers.
func (s *State) standbyUp() bool { return s.pg().Running && s.pg().Ready && s.pg().InRecovery }

// position is how far the local WAL goes, for ranking.
func (s *State) position() events.LSN {
	if p := s.pg(); p.InRecovery {
		return max(p.Received, p.Replayed)
	}
	return s.pg().Position
}

// phaseAge is how long the machine has been in its phase.
func (s *State) phaseAge() time.Duration { return s.Now.Sub(s.Since) }
