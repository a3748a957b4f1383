package fsm

import (
	"github.com/pgregent/regent/events"
)

// bootstrappingRules create a cluster: initdb, leader key, start writable under
// the lease (S3), roles, record. The lease comes before the first writable start,
// so that even a bootstrapper that hangs is fenced.
func bootstrappingRules() []rule {
	writable := func(s *State) bool {
		switch s.Boots.Stage {
		case "start", "roles", "record":
			return true
		default:
			return false
		}
	}
	rules := append([]rule{shutdownRule()}, mustHold(writable)...)
	return append(rules,
		rule{
			id: "failed", trigger: BootstrapFailed,
			when: func(s *State) (bool, string) {
				if s.Boots.Why == "" {
					return false, "no step has failed"
				}
				return true, s.Boots.Stage + " failed: " + s.Boots.Why
			},
			do: func(e *effects) {
				e.beginStop(1, "Failed to bootstrap cluster: "+e.Boots.Stage+": "+e.Boots.Why)
			},
			status: func(*State) string {
				return "removing initialize key after failed attempt to bootstrap the cluster"
			},
		},
		rule{
			id: "recorded", trigger: Bootstrapped,
			when: func(s *State) (bool, string) {
				return s.Boots.Stage == "done", "step: " + s.Boots.Stage
			},
			do:     func(e *effects) { e.Boots = BootstrapWork{} },
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

// advanceBootstrap starts the step at hand, unless it is under way.
func (e *effects) advanceBootstrap() {
	switch e.Boots.Stage {
	case "acquire":
		switch {
		case e.believes():
			e.Boots.Stage = "start"
			e.startPrimary()
		case e.Lease.ID != "" && !e.holds():
			e.once(AcquireLeader{Lease: e.Lease.ID, Sync: e.view().Sync.Version})
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
			e.once(WriteInitialize{SystemID: sys, Version: e.Boots.Claim})
		} else {
			e.once(ObservePostgres{})
		}
	}
}

// startPrimary starts PostgreSQL writable under the lease.
func (e *effects) startPrimary() {
	e.Postgres.Promoted, e.Keeper.Armed = true, true
	e.Keeper.Sent = e.beliefEnd()
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
			e.Rejoin.NotBefore, e.Rejoin.Why = e.Now.Add(e.Settings.LoopWait/2), "the claim was "+string(ev.Class)
			e.refresh()
		}
		return
	}
	if e.Phase != Bootstrapping {
		return
	}
	if !done && !(ev.Action == (WriteInitialize{}).Kind() && ev.Class != events.Refused) {
		e.Boots.Why = ev.Why
		return
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
	if e.Phase == Bootstrapping && ev.Class == events.Refused {
		e.Boots.Why = "the leader key was taken by another member"
	}
	if e.Phase == Racing {
		e.Race.Stage = "wait"
		e.Race.Verdict = "could not take the leader key: " + ev.Why
		e.Race.RetryAt = e.Now.Add(raceRetry)
	}
}
