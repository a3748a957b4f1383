package fsm

// Phase is what the agent is busy with, in an operator's words. Maintenance mode,
// synchronous mode and "store unreachable since" are state, not phases.
type Phase string

// The phases.
const (
	Init          Phase = "init"          // nothing observed yet
	Joining       Phase = "joining"       // observed; finding this member's place
	Bootstrapping Phase = "bootstrapping" // creating a new cluster
	Cloning       Phase = "cloning"       // copying the data directory from a peer
	Starting      Phase = "starting"      // starting PostgreSQL as a standby
	Following     Phase = "following"     // a standby of the holder
	Rejoining     Phase = "rejoining"     // finding a way back to the holder's history
	Racing        Phase = "racing"        // no holder; comparing with the peers
	Promoting     Phase = "promoting"     // lease held; leaving recovery
	Leading       Phase = "leading"       // lease held; accepting writes
	Reviving      Phase = "reviving"      // lease held; PostgreSQL down, restarting in place
	Demoting      Phase = "demoting"      // stopping PostgreSQL and giving the lease away
	Restarting    Phase = "restarting"    // an operator's restart, role kept
	Stopping      Phase = "stopping"      // the agent is ending
	Stopped       Phase = "stopped"       // the agent has ended
)

// Phases in the order in which a person would tell the story.
func Phases() []Phase {
	return []Phase{
		Init, Joining, Bootstrapping, Cloning, Starting, Following, Rejoining, Racing,
		Promoting, Leading, Reviving, Demoting, Restarting, Stopping, Stopped,
	}
}

// Trigger labels an edge. The empty trigger is "no transition".
type Trigger string

// The triggers. A guard's result is part of the name, so that the diagram tells
// the truth; none of them is also the name of a phase.
const (
	WorldObserved      Trigger = "world_observed"
	InitializeClaimed  Trigger = "initialize_claimed"
	Bootstrapped       Trigger = "bootstrapped"
	BootstrapFailed    Trigger = "bootstrap_failed"
	CloneNeeded        Trigger = "clone_needed"
	Cloned             Trigger = "cloned"
	CloneFailed        Trigger = "clone_failed"
	ReplicaFound       Trigger = "replica_found"
	PrimaryAdopted     Trigger = "primary_adopted"
	PrimaryUnclaimed   Trigger = "primary_unclaimed"
	PrimaryTolerated   Trigger = "primary_tolerated"
	LetGo              Trigger = "let_go"
	StandbyStartNeeded Trigger = "standby_start_needed"
	RejoinNeeded       Trigger = "rejoin_needed"
	ReviveNeeded       Trigger = "revive_needed"
	ReplicaStarted     Trigger = "replica_started"
	StartFailed        Trigger = "start_failed"
	LeaderChanged      Trigger = "leader_changed"
	HistoryUnsure      Trigger = "history_unsure"
	NotStreaming       Trigger = "not_streaming"
	LeaderGone         Trigger = "leader_gone"
	HandedOver         Trigger = "handed_over"
	RaceLost           Trigger = "race_lost"
	RaceAbandoned      Trigger = "race_abandoned"
	RaceWon            Trigger = "race_won"
	Promoted           Trigger = "promoted"
	PromoteFailed      Trigger = "promote_failed"
	LeadershipLost     Trigger = "leadership_lost"
	BeliefEnding       Trigger = "belief_ending"
	PostgresCrashed    Trigger = "postgres_crashed"
	PostgresLost       Trigger = "postgres_lost"
	CrashFailover      Trigger = "crash_failover"
	StartTimedOut      Trigger = "start_timed_out"
	DataLost           Trigger = "data_lost"
	Revived            Trigger = "revived"
	RoguePrimary       Trigger = "rogue_primary"
	NotPrimary         Trigger = "not_primary"
	SwitchoverAccepted Trigger = "switchover_accepted"
	RestartAccepted    Trigger = "restart_accepted"
	ReinitAccepted     Trigger = "reinit_accepted"
	Restarted          Trigger = "restarted"
	Demoted            Trigger = "demoted"
	ForeignCluster     Trigger = "foreign_cluster"
	ShutdownAsked      Trigger = "shutdown_asked"
	ShutDown           Trigger = "shut_down"
)
