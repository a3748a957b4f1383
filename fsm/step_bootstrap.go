package fsm

import (
	"github.com/pgregent/regent/events"
)

// claimFailed is Patroni's line for a member that didn't get to create the cluster.
const claimFailed = "failed to acquire initialize lock"

// bootstrappingRules create a cluster: initdb, leader key, start writable under
// the lease (S3), roles, record. The lease comes before the first writable start,
// so that even a bootstrapper that hangs is fenced.
func bootstrappingRules() []rule {
	writable := func(s *State) bool {
		switch s.Boots.Stage {
		case "start", "roles", "record":
			return true
		default:
			return s.primaryUp() // who started it?
		}
	}
	rules := append([]rule{shutdownRule(), foreignRule()}, mustHold(writable)...)
	return append(rules,
		rule{
			id: "failed", trigger: BootstrapFailed,
			when: func(s *State) (bool, string) {
				switch {
				case s.Boots.Why == "":
					return false, "no step has failed"
				case s.unseen():
					return false, "what the failed step has left is being looked at"
				}
				return true, s.Boots.Stage + " failed: " + s.Boots.Why
			},
			do: func(e *effects) {
				e.beginStop(1, "Failed to bootstrap cluster: "+e.Boots.Stage+": "+e.Boots.Why)
			},
			status: func(s *State) string {
				if !empty(s) {
					return "failed to bootstrap the cluster; the next start goes on with the data that is there"
				}
				return "removing initialize key after failed attempt to bootstrap the cluster"
			},
		},
		rule{
			id: "recorded", trigger: Bootstrapped,
			when: func(s *State) (bool, string) {
				mine := s.pg().Data.SystemID
				recorded := s.Boots.Stage == "record" && mine.Valid() && s.view().Initialize.SystemID == mine
				return told(s.Boots.Stage == "done" || recorded, "step: "+s.Boots.Stage, "the cluster is still being created, step: "+s.Boots.Stage)
			},
			do:     func(e *effects) { e.Boots = BootstrapWork{Stage: "done"} },
			status: func(*State) string { return "initialized a new cluster" },
		},
		rule{
			id: "working", when: func(s *State) (bool, string) {
				return true, "creating the cluster, step: " + s.Boots.Stage
			},
			do:     func(e *effects) { e.advanceBootstrap() },
			status: func(*State) string { return "bootstrap in progress" },
		},
	)
}

// resumeRule goes on with a bootstrap that was interrupted: by the loss of the
// lease, or by the agent's end. The claim is still this member's, and nobody else
// may create the cluster. Without this, members would wait for a bootstrapper that
// does something else, or a cluster without its roles would be recorded.
func resumeRule() rule {
	return rule{
		id: "resume-bootstrap", trigger: InitializeClaimed,
		when: func(s *State) (bool, string) {
			i := s.view().Initialize
			switch {
			case i.Version == 0 || i.SystemID != "" || i.By != s.Self || s.Boots.Stage == "done":
				return false, "no bootstrap of ours was interrupted"
			case s.pg().Data.Content != events.DataCluster || s.pg().Data.Standby || s.otherLeads():
				return false, "there is nothing of it to go on with"
			case s.pg().Running && !(s.primaryUp() && s.believes()):
				return false, "PostgreSQL runs, and not as the primary that it should be"
			default:
				return true, "the claim to create the cluster is ours, and its data is here"
			}
		},
		do: func(e *effects) {
			e.Boots = BootstrapWork{Stage: "acquire", Claim: e.view().Initialize.Version}
			if e.primaryUp() {
				e.Boots.Stage = "roles"
				e.arm()
			}
		},
		status: func(*State) string { return "trying to bootstrap a new cluster" },
	}
}

// advanceBootstrap starts the step at hand, unless it is under way.
func (e *effects) advanceBootstrap() {
	switch e.Boots.Stage {
	case "acquire":
		switch {
		case e.believes() && e.unclaimed():
			e.writeSync(nil, false)
		case e.believes():
			e.Boots.Stage = "start"
			e.startPrimary()
		case e.Store.Read < e.Boots.ReadFirst:
			e.refresh()
		case e.otherLeads():
			e.Boots.Why = "the leader key was taken by " + string(e.leader().Name)
		case e.Lease.ID != "" && !e.holds() && !e.claimed():
			e.acquire()
		}
	case "roles":
		if !e.busy() {
			e.operate(PostBootstrap{})
		}
	case "record":
		if sys := e.pg().Data.SystemID; sys.Valid() {
			if e.view().Config.Version == 0 && e.Settings.BootstrapConfig != "" {
				e.once(WriteConfig{JSON: e.Settings.BootstrapConfig})
			}
			if e.Store.Read < e.Boots.ReadFirst {
				e.refresh()
			} else {
				e.once(WriteInitialize{SystemID: sys, Version: e.Boots.Claim})
			}
		} else {
			e.once(ObservePostgres{})
		}
	}
}

// startPrimary starts PostgreSQL writable under the lease.
func (e *effects) startPrimary() {
	e.Postgres.Promoted, e.Keeper.Armed = true, true
	e.Keeper.Sent, e.Keeper.Revision = e.beliefEnd(), e.Holder.Revision
	e.operate(StartPrimary{Fence: e.fence()})
}

// outcomeBootstrap moves the bootstrap on when a step of it has ended.
func (e *effects) outcomeBootstrap(ev events.ActionFinished) {
	done := ev.Class == events.Done
	if ev.Action == (ClaimInitialize{}).Kind() {
		if done {
			e.Boots.Claim = ev.Result.Revision
		} else {
			e.Boots = BootstrapWork{}
			e.Rejoin.NotBefore, e.Rejoin.Why = e.Now.Add(e.Settings.LoopWait/2), claimFailed
			e.refresh()
		}
		return
	}
	if e.Phase != Bootstrapping {
		return
	}
	switch theirs := e.view().Initialize.SystemID; {
	case done:
	case ev.Action != (WriteInitialize{}).Kind():
		e.Boots.Why = ev.Why
	case ev.Class == events.Refused && theirs.Valid() && theirs != e.pg().Data.SystemID:
		e.Boots.Why = "another member has created the cluster meanwhile"
	case ev.Class == events.Refused:
		// The one before it, whose outcome nobody knew, may have been carried out.
		e.Boots.ReadFirst = e.Now
	}
	next := map[string]string{"initdb": "acquire", "start": "roles", "roles": "record", "record": "done"}
	if done {
		e.Boots.Stage = next[e.Boots.Stage]
	}
}

// outcomeAcquire: the leader key was not taken, or nobody knows.
func (e *effects) outcomeAcquire(ev events.ActionFinished) {
	if ev.Class != events.Done {
		e.Store.RetryAt = 0
		e.refresh()
	}
	if ev.Class == events.Unknown {
		e.Failsafe.Landing = e.Now.Add(e.Settings.TTL)
	}
	if e.Phase == Bootstrapping && ev.Class != events.Done {
		// Refused may mean: by our own try, whose outcome nobody knew.
		e.Boots.ReadFirst = e.Now
	}
	if e.Phase == Racing {
		e.Race.Stage = "wait"
		e.Race.Verdict = "could not take the leader key: " + ev.Why
		e.Race.RetryAt = e.Now.Add(raceRetry)
	}
}
