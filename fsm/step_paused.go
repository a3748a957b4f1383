package fsm

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/regent/events"
)

// What the phases do differently in maintenance mode: nothing is started, stopped,
// demoted or raced for that an operator has not asked for. A primary stays one, with or
// without the leader key; what isn't one gives the key up.

// pausedLeadingRules come before the rules that would demote.
func pausedLeadingRules() []rule {
	return []rule{
		pausedForeignRule(), givingUpRule(), letGoRule(),
		{
			id: "paused-without-lease", when: func(s *State) (bool, string) {
				switch {
				case !s.paused():
					return false, "maintenance mode is off"
				case s.believes():
					return false, "the leader key is ours"
				case s.holds():
					return true, "maintenance mode is on: PostgreSQL stays a primary, although the lease is not confirmed"
				default:
					_, text := s.mayTakeKey()
					return true, "maintenance mode is on: PostgreSQL stays a primary without the leader key; " + text
				}
			},
			do: func(e *effects) {
				if ok, _ := e.mayTakeKey(); ok && !e.InFlight(RefreshView{}) {
					e.acquire()
				}
			},
			status: func(s *State) string {
				switch {
				case s.Store.DownSince != 0:
					return "DCS is not accessible"
				case s.holds():
					return "continue to run as primary after failing to update leader lock in DCS"
				default:
					return "continue to run as primary without lock"
				}
			},
		},
	}
}

// restful phases are those in which maintenance mode keeps the agent from ending over
// another cluster's data. The others are in the middle of something.
func restful(p Phase) bool {
	switch p {
	case Joining, Starting, Following, Rejoining, Racing, Leading:
		return true
	default:
		return false
	}
}

// pausedForeignRule: with another cluster's data nothing can be done but to give the
// leader key up. When the mode ends, the agent does.
func pausedForeignRule() rule {
	return rule{
		id: "paused-foreign", when: func(s *State) (bool, string) {
			if !s.paused() || !s.foreign() || s.busy() {
				return false, "maintenance mode is off, or the data is the cluster's"
			}
			return true, "maintenance mode is on, and the data directory belongs to another cluster than the store's"
		},
		do:     func(e *effects) { e.letGo() },
		status: func(*State) string { return "released leader lock because the system identifier has changed" },
	}
}

// noPrimary: maintenance mode is on, and the server is not the primary that the leader
// key stands for.
func (s *State) noPrimary() (bool, string) {
	switch {
	case !s.paused():
		return false, "maintenance mode is off"
	case s.unseen() || !s.Postgres.Known:
		return false, "an operation is under way, or what it left has not been seen"
	case !s.pg().Running:
		return true, "maintenance mode is on, and PostgreSQL is down: it is not started"
	case s.standbyUp():
		return true, "maintenance mode is on, and PostgreSQL is in recovery"
	default:
		return false, "PostgreSQL is no standby, and not down"
	}
}

// givingUpRule gives the leader key up first: with it, a standby would be promoted.
func givingUpRule() rule {
	return rule{
		id: "paused-giving-up", when: func(s *State) (bool, string) {
			ok, text := s.noPrimary()
			if ok && !s.holds() {
				return false, "the leader key isn't ours"
			}
			if ok {
				text += "; the leader key is given up"
			}
			return ok, text
		},
		do:     func(e *effects) { e.letGo() },
		status: letGoStatus,
	}
}

func letGoStatus(s *State) string {
	if s.pg().Running {
		return "removed leader lock because postgres is not running as primary"
	}
	return "removed leader lock because postgres is not running"
}

// letGoRule looks for this member's place, which is not that of a primary.
func letGoRule() rule {
	return rule{
		id: "paused-not-primary", trigger: LetGo,
		when:   func(s *State) (bool, string) { return s.noPrimary() },
		do:     func(e *effects) { e.Revive = ReviveWork{} },
		status: letGoStatus,
	}
}

// letGo gives the leader key up without anything else.
func (e *effects) letGo() {
	if e.holds() {
		e.once(ReleaseLeader{Lease: e.Lease.ID})
	}
}

// mayTakeKey: may a primary that runs in maintenance mode take the leader key? The
// first one does.
func (s *State) mayTakeKey() (bool, string) {
	f, known := s.wish(), s.view().History.Timeline()
	_, alive := s.view().Member(f.Candidate)
	switch {
	case s.Store.DownSince != 0 || !s.Store.Known:
		return false, "the store doesn't answer"
	case s.Store.View.Revision < s.Store.Floor || s.leader().Name == s.Self:
		return false, "what became of the leader key is being read"
	case !s.unlocked():
		return false, "leader is " + orNone(string(s.leader().Name))
	case s.Lease.ID == "":
		return false, "there is no lease to take the leader key under yet"
	case !s.primaryUp() || s.foreign():
		return false, "it does not answer, or is another cluster's"
	case s.pg().Timeline < known:
		return false, fmt.Sprintf("its timeline %d is behind the cluster's, %d", s.pg().Timeline, known)
	case f.Candidate != "" && f.Candidate != s.Self && alive:
		return false, "an operator asked for " + string(f.Candidate)
	default:
		return true, "the leader key is free, and is taken"
	}
}

// toleratedRule: a primary that an operator made, or that has lost the leader key.
func toleratedRule() rule {
	return rule{
		id: "paused-primary", trigger: PrimaryTolerated,
		when: func(s *State) (bool, string) {
			switch {
			case !s.paused():
				return false, "maintenance mode is off"
			case !s.primaryUp() || s.unseen():
				return false, "PostgreSQL is no primary"
			default:
				return true, "maintenance mode is on, and PostgreSQL is a primary: it is left alone"
			}
		},
		do: func(e *effects) {
			e.Race, e.Rejoin, e.Revive = RaceWork{}, RejoinWork{}, ReviveWork{}
		},
		status: func(s *State) string {
			if s.believes() {
				return leaderStatus(s)
			}
			return "continue to run as primary without lock"
		},
	}
}

// finishing: the server was stopped by its agent, for something that an operator asked
// for and that isn't over: a switchover's old primary, a member that is built anew.
func (s *State) finishing() bool {
	d := s.Postgres.Down
	return d != nil && d.Ours && !d.Fenced
}

// pausedStoppedRule: what is down stays down.
func pausedStoppedRule() rule {
	return rule{
		id: "paused-down", when: func(s *State) (bool, string) {
			switch {
			case !s.Settings.Pause:
				return false, "maintenance mode is off"
			case s.pg().Running:
				return false, "PostgreSQL runs"
			case s.finishing() || s.Rejoin.Reinit:
				return false, "its agent stopped it, and has not finished"
			case slices.ContainsFunc(s.Requests, func(r Request) bool { return r.Kind == "start" }):
				return false, "an operator asked for it to be started"
			default:
				return true, "maintenance mode is on: PostgreSQL is down, and is not started"
			}
		},
		do: func(e *effects) { e.letGo() },
		status: func(s *State) string {
			if empty(s) {
				return "running with empty data directory"
			}
			return "postgres is not running"
		},
	}
}

// Startable: maintenance mode keeps PostgreSQL down, and an operator's restart starts it:
// as a standby, since nobody has said that this member is to lead.
func (s *State) Startable() bool {
	rests := (s.Phase == Joining || s.Phase == Rejoining) && !s.busy()
	return s.Settings.Pause && rests && s.Postgres.Known && !s.pg().Running && s.pg().Data.Content == events.DataCluster
}

// settleStart answers an operator's start when PostgreSQL is up, or will not be in time.
func (e *effects) settleStart(r Request) {
	limit := r.Timeout
	if limit <= 0 {
		limit = max(e.Settings.PrimaryStartTimeout, time.Minute)
	}
	switch {
	case e.pg().Ready && !e.busy() && (e.Phase == Following || e.Phase == Leading):
		e.settle(r.ID, true, "restarted successfully")
	case e.Phase == Stopping || e.Phase == Stopped || e.Now >= r.At.Add(limit):
		e.settle(r.ID, false, "postgres is still starting")
	}
}

// pausedRunningRule: what runs is neither stopped nor rewound.
func pausedRunningRule() rule {
	return rule{
		id: "paused-running", when: func(s *State) (bool, string) {
			if !s.Settings.Pause || !s.pg().Running || s.Rejoin.Reinit {
				return false, "maintenance mode is off, or PostgreSQL is down or to be replaced"
			}
			return true, "maintenance mode is on: PostgreSQL runs, and is left as it is"
		},
		status: secondaryStatus,
	}
}

// mayLeave: an agent that ends in maintenance mode leaves its server as it is, unless it
// is in the middle of something that it has begun with the server.
func (s *State) mayLeave() bool {
	half := s.Op != nil || s.Restart.ID != "" || s.Boots.Stage != "" && s.Boots.Stage != "done"
	return s.paused() && !half
}

// leavingRule takes the keeper's deadline away before the agent ends: it would stop the
// primary otherwise. If the keeper will not have it, the server is stopped in order.
func leavingRule() rule {
	return rule{
		id: "leaving", when: func(s *State) (bool, string) {
			switch {
			case !s.Demote.Leave:
				return false, "PostgreSQL is not to be left running"
			case !s.Keeper.Up || !s.Keeper.Armed || s.Keeper.Fencing || !s.pg().Running:
				return false, "no deadline stands that could end PostgreSQL"
			case s.Keeper.Refuses:
				return true, "the keeper does not give up its deadline (" + s.Keeper.Why + "); PostgreSQL is stopped in order"
			default:
				return true, "taking the keeper's deadline away before the agent ends"
			}
		},
		do: func(e *effects) {
			if e.Keeper.Refuses {
				e.beginDemotion(DemoteWork{Why: "the agent is ending", Mode: "fast", Exit: e.Demote.Exit, ExitText: e.Demote.ExitText})
			}
		},
		status: func(*State) string { return "stopping" },
	}
}

// wish is the operator's request that counts now. One for later says nothing yet.
func (s *State) wish() events.FailoverRequest {
	f := s.view().Failover
	if !f.Pending() || f.ScheduledAt != "" || f.Version == s.Store.Answered {
		return events.FailoverRequest{}
	}
	return f
}
