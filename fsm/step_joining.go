package fsm

import (
	"fmt"
	"time"

	"github.com/pgregent/regent/events"
)

// joiningRules find this member's place: new cluster, new copy, or back to what it was.
func joiningRules() []rule {
	rules := append([]rule{shutdownRule(), foreignRule(), pausedForeignRule()}, joiningRunningRules()...)
	rules = append(rules, reinitRule(), pausedStoppedRule(), rule{
		id: "data-broken", when: func(s *State) (bool, string) {
			d := s.pg().Data
			switch {
			case d.Content != events.DataBroken:
				return false, "the data directory is " + d.Content
			case d.SystemID.Valid() && s.otherLeads():
				// Its control file can be read, so it is our own verb that broke off. Whether a
				// copy may replace it is decided where that was ordered.
				return false, "the data directory is this cluster's, " + d.Problem + ", and " + string(s.leader().Name) + " leads"
			default:
				return true, "the data directory can't be used: " + d.Problem
			}
		},
		status: func(*State) string {
			return "data dir for the cluster is not empty, but system ID is invalid; consider doing reinitialize"
		},
	}, rule{
		id: "pause-after-failure", when: func(s *State) (bool, string) {
			if s.Now >= s.Rejoin.NotBefore {
				return false, "no attempt has just failed"
			}
			return true, "pausing after a failed attempt: " + s.Rejoin.Why
		},
		status: func(s *State) string {
			if s.Rejoin.Why == claimFailed {
				return claimFailed
			}
			return "pausing after a failed attempt: " + s.Rejoin.Why
		},
	})
	rules = append(rules, joiningEmptyRules()...)
	rules = append(rules, joiningStoppedRules()...)
	return append(rules, rule{
		id: "waiting", when: always("nothing to do with what is known so far"),
		status: func(*State) string { return "waiting for leader to bootstrap" },
	})
}

// foreign: the store's cluster and the data directory's are not the same.
func (s *State) foreign() bool {
	mine, theirs := s.pg().Data.SystemID, s.view().Initialize.SystemID
	return mine.Valid() && theirs.Valid() && mine != theirs
}

// foreignRule ends an agent whose data is another cluster's. A primary that accepts
// writes under the lease is let be: it is the store's key that is wrong then.
func foreignRule() rule {
	text := func(s *State) string {
		return fmt.Sprintf("system ID mismatch, node %s belongs to a different cluster: %s != %s",
			s.Self, s.view().Initialize.SystemID, s.pg().Data.SystemID)
	}
	return rule{
		id: "foreign-cluster", trigger: ForeignCluster,
		when: func(s *State) (bool, string) {
			switch {
			case s.paused() && restful(s.Phase):
				return false, "maintenance mode is on"
			case !s.foreign():
				return false, "the data directory's system identifier is not at odds with the store's"
			case s.primaryUp() && s.believes() && s.Phase != Joining:
				return false, "the initialize key is at odds with the primary under the lease"
			default:
				return true, text(s)
			}
		},
		do: func(e *effects) { e.beginStop(1, text(e.State)) },
	}
}

func empty(s *State) bool { return s.pg().Data.Content == events.DataEmpty }

// joiningEmptyRules: there is no data here.
func joiningEmptyRules() []rule {
	return []rule{
		{
			id: "release-without-data", when: func(s *State) (bool, string) {
				if !empty(s) || !s.holds() {
					return false, "no lease is held without data"
				}
				return true, "the leader key is ours, but the data directory is empty"
			},
			do: func(e *effects) { e.once(ReleaseLeader{Lease: e.Lease.ID}) },
			status: func(*State) string {
				return "released leader key voluntarily as data dir empty and currently leader"
			},
		},
		{
			id: "clone", trigger: CloneNeeded,
			when: func(s *State) (bool, string) {
				if !empty(s) {
					return false, "there is data"
				}
				return s.cloneable()
			},
			do:     func(e *effects) { e.beginClone() },
			status: cloneStatus,
		},
		{
			id: "claimed", trigger: InitializeClaimed,
			when: func(s *State) (bool, string) {
				return s.Boots.Stage == "claim" && s.Boots.Claim != 0, "the right to create the cluster: " + orNone(s.Boots.Stage)
			},
			do: func(e *effects) {
				e.Boots.Stage = "initdb"
				e.operate(Bootstrap{})
			},
			status: func(*State) string { return "trying to bootstrap a new cluster" },
		},
		{
			id: "claim", when: claimable,
			do: func(e *effects) {
				e.Boots = BootstrapWork{Stage: "claim"}
				e.once(ClaimInitialize{})
			},
			status: func(*State) string { return "trying to bootstrap a new cluster" },
		},
		{
			id: "clear-dead-claim", when: deadClaim,
			do: func(e *effects) { e.once(ClearInitialize{Version: e.view().Initialize.Version}) },
		},
		{
			id: "waiting-for-primary", when: func(s *State) (bool, string) {
				return told(empty(s), "no data here, and no primary to copy from yet", "there is data here")
			},
			status: func(*State) string { return "waiting for leader to bootstrap" },
		},
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// claimable: may this member try to create the cluster?
func claimable(s *State) (bool, string) {
	v := s.view()
	switch {
	case !empty(s):
		return false, "there is data"
	case v.Leader.Locked():
		return false, "a leader exists"
	case v.Initialize.Version != 0:
		return false, "the cluster exists, or is being created"
	case !s.Settings.MayBootstrap:
		return false, "the configuration has no bootstrap section"
	case s.Settings.Tags.NoFailover:
		return false, "tagged nofailover"
	case s.pg().Watchdog != "":
		return false, noWatchdog + s.pg().Watchdog
	case s.Lease.ID == "":
		return false, "no lease yet"
	case s.Settings.Pause:
		return false, "maintenance mode is on"
	default:
		return true, "no cluster exists in the store, and there is no data here"
	}
}

// deadClaim: an empty initialize key whose writer is gone for good (S17).
func deadClaim(s *State) (bool, string) {
	i := s.view().Initialize
	switch {
	case i.Version == 0 || i.SystemID != "":
		return false, "no claim stands"
	case i.By == s.Self && s.Boots.Stage == "" && empty(s):
		return true, "the claim is our own, from an attempt that is over"
	}
	for _, g := range s.Gone {
		if g.Name == i.By && s.Now >= g.At.Add(2*s.Settings.TTL) {
			return true, string(i.By) + ", which claimed the right to create the cluster, has been gone for two ttl"
		}
	}
	return false, "the member that claimed it may still be at work"
}

// adoptRule: a primary runs, and the lease is ours. That is how an agent finds its
// primary when it starts, or after an operation whose outcome it did not learn.
func adoptRule() rule {
	return rule{
		id: "adopt-primary", trigger: PrimaryAdopted,
		when: func(s *State) (bool, string) {
			switch {
			case !s.primaryUp() || s.unseen():
				return false, "no primary runs here"
			case !s.believes():
				return false, "the leader key is not confirmed as ours"
			case s.Phase != Joining && !s.Postgres.Promoted:
				return false, "this agent did not promote it"
			default:
				return true, "the running primary and the confirmed leader key are ours"
			}
		},
		do: func(e *effects) {
			e.Race, e.Rejoin, e.Revive = RaceWork{}, RejoinWork{}, ReviveWork{}
			e.arm()
		},
		status: leaderStatus,
	}
}

// joiningRunningRules: PostgreSQL runs already (an agent was restarted).
func joiningRunningRules() []rule {
	return []rule{
		{
			id: "confirm", when: func(s *State) (bool, string) { return s.unsure() },
			do: func(e *effects) { e.lookAgain() },
		},
		resumeRule(),
		adoptRule(),
		{
			id: "acquire-for-running-primary", when: func(s *State) (bool, string) {
				switch {
				case !s.primaryUp():
					return false, "no primary runs here"
				case !s.unlocked() || s.Store.DownSince != 0:
					return false, "the leader key is taken, or the store doesn't answer"
				case s.Lease.ID == "":
					return true, "a primary runs here and the leader key is free; waiting for a lease"
				}
				if taken, text := s.syncTaken(); taken {
					return false, text
				}
				if text := s.failsafeBars(); text != "" && !s.Keeper.Armed {
					return false, text
				}
				if known := s.view().History.Timeline(); s.pg().Timeline < known {
					return false, fmt.Sprintf("its timeline %d is behind the cluster's, %d", s.pg().Timeline, known)
				}
				return true, "a primary runs here and the leader key is free"
			},
			do: func(e *effects) {
				if e.Lease.ID != "" {
					e.acquire()
				}
			},
		},
		toleratedRule(),
		{
			id: "unclaimed-primary", trigger: PrimaryUnclaimed,
			when: func(s *State) (bool, string) {
				return told(s.primaryUp(), "PostgreSQL accepts writes, and the leader key is not ours", "PostgreSQL accepts no writes")
			},
			do: func(e *effects) {
				e.beginDemotion(DemoteWork{Why: "a primary without the leader key", Mode: "fast"})
			},
			status: func(*State) string {
				return "demoting self because I do not have the lock and I was a leader"
			},
		},
		{
			id: "adopt-replica", trigger: ReplicaFound,
			when: func(s *State) (bool, string) {
				return told(s.standbyUp(), "PostgreSQL runs in recovery", "PostgreSQL doesn't run in recovery")
			},
			status: secondaryStatus,
		},
		{
			id: "holder-unresponsive", trigger: StartTimedOut,
			when: func(s *State) (bool, string) {
				silent, text := s.unresponsive()
				switch {
				case !s.believes() || !silent:
					return false, "the leader key isn't ours, or " + text
				case s.Settings.Pause:
					return false, text + ", but maintenance mode is on"
				case s.phaseAge() < s.Settings.PrimaryStartTimeout:
					return false, text + fmt.Sprintf(", %d seconds until timeout", int((s.Settings.PrimaryStartTimeout-s.phaseAge())/time.Second))
				case len(s.candidates(nil)) == 0:
					return false, text + ", but no replica can take over"
				default:
					return true, "the leader key is ours, PostgreSQL has not answered within primary_start_timeout, and a replica can take over"
				}
			},
			do: func(e *effects) {
				e.beginDemotion(DemoteWork{Why: "the primary did not answer in time", Mode: "kill"})
			},
			status: func(*State) string { return "stopped PostgreSQL because of startup timeout" },
		},
		{
			id: "still-starting", when: func(s *State) (bool, string) {
				return s.unresponsive()
			},
			status: func(*State) string { return "PostgreSQL is still starting up" },
		},
	}
}

// joiningStoppedRules: data, and no server.
func joiningStoppedRules() []rule {
	return []rule{
		{
			id: "revive", trigger: ReviveNeeded,
			when: func(s *State) (bool, string) {
				return told(s.believes() && !s.pg().Data.Standby, "the leader key is ours and the data is a primary's", "the leader key is not ours, or the data is a standby's")
			},
			do: func(e *effects) { e.beginRevival() },
		},
		{
			id: "rejoin", trigger: RejoinNeeded,
			when: func(s *State) (bool, string) {
				return s.otherLeads(), "leader is " + orNone(string(s.leader().Name))
			},
			status: func(*State) string { return "starting as a secondary" },
		},
		{
			id: "start-standby", trigger: StandbyStartNeeded,
			when: func(s *State) (bool, string) {
				return told(s.Store.Known, "nobody else leads", "nothing is known of the store")
			},
			do: func(e *effects) {
				e.Rejoin.Stage = "start-alone"
				e.operate(StartStandby{})
			},
			status: func(*State) string { return "starting as a secondary" },
		},
	}
}
