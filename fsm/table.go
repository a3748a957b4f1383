package fsm

// Edge is one line of the transition table: in any of From, Trigger leads to To.
type Edge struct {
	Trigger Trigger
	From    []Phase
	To      Phase
	// Why is one sentence for people: it stands in the documentation, in the
	// journal and in the answer of `regent why`.
	Why string
}

// Table is the one transition table. A trigger that a rule chooses where no edge
// stands for it is refused, journaled and counted; it never panics.
func Table() []Edge {
	return []Edge{
		// Finding a place.
		{WorldObserved, []Phase{Init}, Joining,
			"The store and the local PostgreSQL have both been observed since the agent started."},
		{InitializeClaimed, []Phase{Joining, Rejoining}, Bootstrapping,
			"No cluster exists yet, and this member won the right to create it."},
		{CloneNeeded, []Phase{Joining, Rejoining}, Cloning,
			"There is a primary to copy from, and no local data worth keeping."},
		{ReplicaFound, []Phase{Joining}, Following,
			"PostgreSQL already runs as a standby; it is adopted without a restart."},
		{PrimaryAdopted, []Phase{Joining, Starting, Following, Rejoining}, Leading,
			"PostgreSQL already runs as the primary and the leader key, confirmed by a renewal, is this member's."},
		{PrimaryUnclaimed, []Phase{Init, Joining}, Demoting,
			"PostgreSQL runs as a primary, but the leader key is not known to be this member's: it must not stay writable."},
		{PrimaryTolerated, []Phase{Joining, Starting, Following, Rejoining, Racing}, Leading,
			"Maintenance mode is on, and PostgreSQL is a primary: it stays one, with or without the leader key."},
		{RejoinNeeded, []Phase{Joining}, Rejoining,
			"Another member leads; the local history is judged against it before PostgreSQL starts."},
		{ReviveNeeded, []Phase{Joining}, Reviving,
			"The leader key is still this member's, and its PostgreSQL, a primary, is down."},
		{StandbyStartNeeded, []Phase{Joining, Rejoining}, Starting,
			"Nobody else leads: PostgreSQL is started as a standby, which is always safe, before any race."},

		// A new cluster, a new copy.
		{Bootstrapped, []Phase{Bootstrapping}, Leading,
			"The new cluster is initialised, writable under the lease, and recorded in the store."},
		{BootstrapFailed, []Phase{Bootstrapping}, Stopping,
			"Creating the cluster failed; the claim is withdrawn and the agent ends with the reason."},
		{Cloned, []Phase{Cloning}, Starting,
			"The copy is complete."},
		{CloneFailed, []Phase{Cloning}, Joining,
			"The copy failed; the situation is looked at anew, after a pause."},

		// Being a replica.
		{ReplicaStarted, []Phase{Starting, Rejoining}, Following,
			"PostgreSQL accepts connections as a standby."},
		{StartFailed, []Phase{Starting, Restarting}, Rejoining,
			"PostgreSQL did not come up; the way back to the primary's history is looked for."},
		{LeaderChanged, []Phase{Following}, Following,
			"Another member leads, or the upstream differs: the standby is re-pointed by a reload."},
		{HistoryUnsure, []Phase{Following}, Rejoining,
			"Another member leads, and only a comparison tells whether our history is a part of its own."},
		{NotStreaming, []Phase{Following}, Rejoining,
			"The standby has not been streaming for too long; its history may have diverged."},
		{PostgresLost, []Phase{Following, Racing}, Rejoining,
			"The standby's PostgreSQL is down."},
		{RoguePrimary, []Phase{Starting, Following, Racing, Rejoining}, Demoting,
			"PostgreSQL accepts writes, and this agent never promoted it: it is fenced at once."},

		// Taking over.
		{LeaderGone, []Phase{Following}, Racing,
			"The leader key is free, and this member may lead."},
		{RaceLost, []Phase{Racing}, Following,
			"Another member took the leader key."},
		{RaceAbandoned, []Phase{Racing}, Following,
			"This member may not lead now (store unreachable, paused, or no longer eligible)."},
		{RaceWon, []Phase{Racing}, Promoting,
			"The leader key is this member's, taken in one transaction guarded by what eligibility was judged on."},
		{HandedOver, []Phase{Following}, Promoting,
			"The leader key was moved to this member's lease by the former holder, or is still its own."},
		{Promoted, []Phase{Promoting}, Leading,
			"PostgreSQL has left recovery."},
		{PromoteFailed, []Phase{Promoting}, Demoting,
			"The promotion did not succeed in time; the server is stopped and the lease released, so that another may lead."},

		// Leading, and what can go wrong.
		{LeadershipLost, []Phase{Bootstrapping, Promoting, Leading, Reviving, Restarting}, Demoting,
			"The store refused the lease, or another holder was read: stop at once."},
		{BeliefEnding, []Phase{Bootstrapping, Promoting, Leading, Reviving, Restarting}, Demoting,
			"No renewal was confirmed until the stop budget before the belief's end; commits must end before it does."},
		{PostgresCrashed, []Phase{Leading}, Reviving,
			"The primary's PostgreSQL is down; it is restarted in place while the lease is kept."},
		{CrashFailover, []Phase{Leading, Reviving}, Demoting,
			"primary_start_timeout is 0 and a replica can take over: fail over instead of restarting."},
		{StartTimedOut, []Phase{Joining, Reviving, Restarting}, Demoting,
			"The primary did not come up within primary_start_timeout, and a replica can take over."},
		{StartFailed, []Phase{Reviving}, Demoting,
			"The primary has ended by itself at each start (a full disk, say), which trying doesn't mend, and a replica can take over."},
		{DataLost, []Phase{Leading, Reviving}, Demoting,
			"The primary's data directory is empty: there is nothing to restart, and another must lead."},
		{LetGo, []Phase{Leading, Reviving}, Joining,
			"Maintenance mode is on, and PostgreSQL is not running as a primary: the leader key is given up, and nothing is started."},
		{Revived, []Phase{Reviving}, Leading,
			"The primary is up again, on the same timeline, under the same lease."},
		{NotPrimary, []Phase{Leading}, Promoting,
			"The lease is held, but PostgreSQL is in recovery."},
		{SwitchoverAccepted, []Phase{Leading, Reviving}, Demoting,
			"An operator asked for another leader, and one is able to take over."},
		{RestartAccepted, []Phase{Leading, Following}, Restarting,
			"An operator asked for a restart of PostgreSQL."},
		{Restarted, []Phase{Restarting}, Leading,
			"The restarted primary is up, under the lease it never gave up."},
		{ReinitAccepted, []Phase{Joining, Starting, Following}, Rejoining,
			"An operator wants this replica built anew: PostgreSQL is stopped, and a copy takes its data's place."},
		{ReplicaFound, []Phase{Restarting}, Following,
			"The restarted standby is up."},
		{Demoted, []Phase{Demoting}, Rejoining,
			"PostgreSQL is proven down, and the lease is handed over, released or lost."},

		// The end.
		{ForeignCluster, []Phase{
			Joining, Bootstrapping, Starting, Following, Rejoining, Racing, Leading, Reviving, Restarting,
		}, Stopping,
			"The data directory belongs to another cluster than the store's."},
		{ShutdownAsked, []Phase{
			Init, Joining, Bootstrapping, Cloning, Starting, Following, Rejoining, Racing,
			Promoting, Leading, Reviving, Demoting, Restarting,
		}, Stopping, "The agent was asked to end; it stops its PostgreSQL and hands the lease over first."},
		{ShutDown, []Phase{Stopping}, Stopped,
			"PostgreSQL is down, and nothing in the store names this member as holder any more."},
	}
}
