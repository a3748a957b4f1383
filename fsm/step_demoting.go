package fsm

import (
	"fmt"
	"time"

	"github.com/pgregent/regent/events"
)

// offerWait bounds the search for a member that has everything, after a stop that
// nobody asked for: the server is down, so nobody can still receive anything.
const offerWait = 300 * time.Millisecond

// beginDemotion starts giving up the leadership: PostgreSQL first (S1), the key after.
func (e *effects) beginDemotion(w DemoteWork) {
	w.Standbys = e.pg().Standbys
	w.Stage, w.StageAt = "stop", e.Now
	e.Demote = w
	if e.Restart.ID != "" {
		e.answerRestart(false, "restart failed")
	}
	e.Race, e.Revive = RaceWork{}, ReviveWork{}
	e.Rejoin.Stage, e.Rejoin.Verdict = "", nil
	if !e.pg().Running && !e.busy() && e.Postgres.Known {
		e.afterStop(0)
		return
	}
	e.operate(Stop{Mode: w.Mode, Checkpoint: w.HandOff, Patience: e.stopPatience(w.HandOff)})
}

// stopPatience bounds each step of a primary's stop. A clean one is worth waiting for, but
// not for ever: a standby that hangs, or an archiver, would keep everybody without a primary.
func (s *State) stopPatience(clean bool) time.Duration {
	switch {
	case s.Settings.PrimaryStopTimeout > 0:
		return s.Settings.PrimaryStopTimeout
	case clean:
		return max(s.Settings.StopWait, time.Second)
	default:
		return 5 * time.Second
	}
}

// beginStop is the same for an agent that ends.
func (e *effects) beginStop(code int, text string) {
	claim := e.Boots.Claim
	if e.Demote.Stage != "" && e.Demote.Stage != "done" {
		// The lease is being given up already; go on with that.
		e.Demote.Exit, e.Demote.ExitText = code, text
		return
	}
	if e.Shutdown != "" && e.mayLeave() {
		e.Demote = DemoteWork{Stage: "done", StageAt: e.Now, Why: "maintenance mode is on", Leave: true, Exit: code, ExitText: text}
		return
	}
	w := DemoteWork{Why: "the agent is ending", Mode: "fast", HandOff: e.holds() && e.primaryUp(), Exit: code, ExitText: text}
	e.beginDemotion(w)
	if claim != 0 && !e.view().Initialize.SystemID.Valid() && empty(e.State) {
		e.order(ClearInitialize{Version: claim})
	}
}

// afterStop: the server is down for good; what becomes of the key? end is the end
// of the shutdown checkpoint, zero if the stop wasn't clean.
func (e *effects) afterStop(end events.LSN) {
	d := &e.Demote
	d.StageAt, d.End = e.Now, end
	switch {
	case !e.holds():
		d.Stage = "done"
	case end != 0 && d.HandOff:
		d.Stage, d.Until = "ask", e.Now.Add(e.Settings.StopWait)
	case end != 0 && d.Offer:
		d.Stage, d.Until = "ask", e.Now.Add(min(e.Settings.StopWait, offerWait))
	default:
		d.Stage = "release"
	}
}

// cleanShutdown: nothing is written any more, so the search for a successor begins,
// although the last processes (an archiver, say) may take their time.
func (e *effects) cleanShutdown(ev events.CleanShutdown) {
	if e.Demote.Stage == "stop" && e.doing(Stop{}) && e.Op.ID == ev.ID && (e.Phase == Demoting || e.Phase == Stopping) {
		e.Demote.Shut = true
		e.afterStop(ev.End)
	}
}

// outcomeDemotion moves the demotion on when a step of it has ended.
func (e *effects) outcomeDemotion(ev events.ActionFinished) {
	if e.Phase != Demoting && e.Phase != Stopping {
		e.outcomeElsewhere(ev)
		return
	}
	done := ev.Class == events.Done
	switch ev.Action {
	case Stop{}.Kind():
		switch {
		case e.Demote.Stage != "stop": // the key is on its way already
		case done:
			e.afterStop(ev.Result.EndLSN)
		default:
			e.Demote.Kills++
			e.Demote.RetryAt = e.Now.Add(min(50*time.Millisecond<<min(e.Demote.Kills, 5), time.Second))
		}
	case AskPosition{}.Kind():
		if e.Demote.Stage != "ask" {
			return
		}
		if done {
			e.Demote.Stage, e.Demote.StageAt = "move", e.Now
		} else {
			e.Demote.Failed = append(append([]events.NodeName(nil), e.Demote.Failed...), e.Demote.To)
			e.Demote.To = ""
		}
	case HandOver{}.Kind():
		if e.Demote.Stage == "move" {
			e.outcomeHandOver(ev)
		} else {
			e.outcomeMove(ev) // began before the demotion
		}
	case ReleaseLeader{}.Kind():
		if done || ev.Class == events.Refused {
			e.released(ev)
		}
	}
}

// outcomeElsewhere: a key was released, or a server stopped, outside of a demotion.
func (e *effects) outcomeElsewhere(ev events.ActionFinished) {
	done := ev.Class == events.Done
	switch ev.Action {
	case HandOver{}.Kind():
		e.outcomeMove(ev)
	case ReleaseLeader{}.Kind():
		if done {
			e.released(ev)
		}
	case Stop{}.Kind():
		if e.Phase == Restarting {
			e.Restart.Stage = map[bool]string{true: "start", false: "stop-failed"}[done]
		}
		e.Rejoin.Why = ev.Why
	}
}

func (e *effects) outcomeHandOver(ev events.ActionFinished) {
	switch ev.Class {
	case events.Done:
		e.released(ev)
	case events.Refused:
		// The candidate's lease is gone, or the key is no longer ours: the next read tells.
		e.Demote.Failed = append(append([]events.NodeName(nil), e.Demote.Failed...), e.Demote.To)
		e.Demote.Stage, e.Demote.StageAt = "verify", e.Now
	default:
		// It may have happened. PostgreSQL stays down until the store has been read (S15).
		e.Demote.Stage, e.Demote.StageAt = "verify", e.Now
	}
}

// released: the key is not ours any more, and older views don't count.
func (e *effects) released(ev events.ActionFinished) {
	e.Lease.Leads = false
	e.Holder = Holder{}
	e.floor(ev.Result.Revision)
	e.Demote.Stage, e.Demote.StageAt = "done", e.Now
	e.refresh()
}

// demotingRules give the leadership up; what happens next is found out by rejoining.
func demotingRules() []rule {
	return append(append([]rule{shutdownRule()}, giveUpRules()...), rule{
		id: "demoted", trigger: Demoted,
		when:   always("PostgreSQL is down, and the lease is given up"),
		do:     func(e *effects) { e.Demote = DemoteWork{Stage: "done", Why: e.Demote.Why} },
		status: func(*State) string { return "demoted self" },
	})
}

// giveUpRules are the stages of giving up, in order.
func giveUpRules() []rule {
	return []rule{
		{
			id: "stopping-postgres", when: func(s *State) (bool, string) {
				if s.Demote.Stage != "stop" {
					return false, "the stop is over"
				}
				return true, "stopping PostgreSQL: " + s.Demote.Why
			},
			do: func(e *effects) {
				switch {
				case e.busy():
				case !e.pg().Running:
					e.afterStop(0)
				case e.Now < e.Demote.RetryAt:
				case e.Demote.Kills < 2:
					e.operate(Stop{Mode: e.Demote.Mode, Patience: e.stopPatience(false)})
				default:
					e.operate(Stop{Mode: "kill"})
				}
			},
			status: func(s *State) string { return "Demoting self (" + s.Demote.Mode + ")" },
		},
		{
			id: "running-again", when: func(s *State) (bool, string) {
				switch {
				case s.Demote.Leave:
					return false, "PostgreSQL is left as it is"
				case !s.pg().Running || s.busy():
					return false, "PostgreSQL is down"
				case s.Demote.Stage == "done" && s.Phase != Stopping:
					return false, "the lease is given up" // rejoining fences a rogue
				}
				return true, "PostgreSQL was started by somebody else; it is stopped again before the key is given up"
			},
			do: func(e *effects) {
				e.Demote.Stage, e.Demote.StageAt, e.Demote.Mode = "stop", e.Now, "fast"
				e.operate(Stop{Mode: "fast", Patience: e.stopPatience(false)})
			},
			status: func(s *State) string { return "Demoting self (" + s.Demote.Mode + ")" },
		},
		{
			id: "lease-over", when: func(s *State) (bool, string) {
				switch {
				case s.Demote.Stage == "done":
					return false, "the lease is given up"
				case !s.holds():
					return true, "the leader key is not ours any more"
				case s.Now < s.beliefEnd():
					return false, "the lease is still ours to give"
				default:
					return true, "the lease ended before it was given away"
				}
			},
			do: func(e *effects) {
				e.Demote.Stage = "done"
				e.lose(events.LossExpired)
				e.order(ObservePostgres{})
			},
		},
		{
			id: "asking-candidate", when: func(s *State) (bool, string) {
				if s.Demote.Stage != "ask" {
					return false, "no candidate is to be asked"
				}
				return true, fmt.Sprintf("asking candidates for everything up to %s", s.Demote.End)
			},
			do: func(e *effects) { e.askCandidate() },
		},
		{
			id: "moving-key", when: func(s *State) (bool, string) {
				return told(s.Demote.Stage == "move", "hand-over to "+orNone(string(s.Demote.To)), "no hand-over is under way")
			},
			do: func(e *effects) { e.moveKey() },
		},
		{
			id: "verifying", when: func(s *State) (bool, string) {
				return told(s.Demote.Stage == "verify", "finding out whether the key was moved", "there is no doubt where the key is")
			},
			do: func(e *effects) {
				switch {
				case e.Store.Read <= e.Demote.StageAt:
					e.refresh()
				case e.leader().Name == e.Self:
					e.release()
				default:
					e.Demote.Stage = "done"
					e.lose(events.LossTaken)
				}
			},
		},
		{
			id: "last-processes", when: func(s *State) (bool, string) {
				return told(s.doing(Stop{}), "the last processes of PostgreSQL are ending", "no stop is under way")
			},
		},
		{
			id: "releasing", when: func(s *State) (bool, string) {
				return told(s.Demote.Stage == "release", "the key is to be released", "the key is not to be released now")
			},
			do: func(e *effects) { e.once(ReleaseLeader{Lease: e.Lease.ID, Optime: e.Demote.End}) },
		},
	}
}

// askCandidate asks the best candidate left whether it has everything; the wait
// for all of them is bounded by stop_wait.
func (e *effects) askCandidate() {
	if e.InFlight(AskPosition{}) {
		return
	}
	d := &e.Demote
	able := e.candidates(d.Standbys)
	if d.Anyone && d.Asked != "" {
		able = e.able(d.Standbys)
	}
	left := dropFailed(able, d.Failed)
	if d.To == "" || !contains(left, d.To) {
		d.To = ""
		if len(left) > 0 && d.Asked == "" {
			d.To = left[0]
		}
	}
	if d.To == "" || e.Now >= d.Until {
		e.release()
		return
	}
	m, _ := e.view().Member(d.To)
	e.order(AskPosition{Name: d.To, APIURL: m.APIURL, At: d.End, Timeout: min(d.Until.Sub(e.Now), e.Settings.StopWait/2)})
}

// release gives the key to nobody in particular, which waits for the whole server's
// end (S1): a rule orders it then.
func (e *effects) release() {
	e.Demote.Stage, e.Demote.StageAt = "release", e.Now
	if !e.doing(Stop{}) {
		e.once(ReleaseLeader{Lease: e.Lease.ID, Optime: e.Demote.End})
	}
}

func contains(list []events.NodeName, n events.NodeName) bool {
	for _, x := range list {
		if x == n {
			return true
		}
	}
	return false
}

// moveKey hands the leader key to the candidate's lease; for a member that doesn't
// take part in that, a Patroni, the key is released instead (S15), which waits longer.
func (e *effects) moveKey() {
	m, ok := e.view().Member(e.Demote.To)
	if !ok || m.HandOff == "" {
		e.release()
		return
	}
	e.once(HandOver{To: m.Name, ToLease: m.HandOff, Lease: e.Lease.ID, Optime: e.Demote.End, Config: e.view().Config.Stored()})
}

// stoppingRules end the agent: like a demotion, then the lease, then the process.
func stoppingRules() []rule {
	return append(append([]rule{leavingRule()}, giveUpRules()...),
		rule{
			id: "revoking", when: func(s *State) (bool, string) {
				switch {
				case s.Demote.Leave:
					return false, "the lease is left to expire"
				case s.Lease.ID == "" && !s.orphaned():
					return false, "there is no lease to revoke"
				case s.Store.DownSince != 0 || s.Now < s.Store.RetryAt:
					return false, "the store does not answer; the lease will expire by itself"
				default:
					return true, "revoking the lease, and the member key with it"
				}
			},
			do: func(e *effects) {
				id := e.Lease.ID
				if id == "" {
					id = e.leader().Lease // of the run before this one, which ends before it was adopted
				}
				e.once(RevokeLease{Lease: id})
			},
		},
		rule{
			id: "ended", trigger: ShutDown,
			when: func(s *State) (bool, string) {
				if s.Demote.Leave {
					return true, "maintenance mode is on: PostgreSQL and the leader key are left as they are"
				}
				return true, "PostgreSQL is down, and the lease is given up"
			},
			do: func(e *effects) { e.order(Exit{Code: e.Demote.Exit, Text: e.Demote.ExitText}) },
			status: func(s *State) string {
				if s.Demote.Leave {
					return "Leader key is not deleted and Postgresql is not stopped due paused state"
				}
				return "stopped"
			},
		},
	)
}

// stoppedRules: nothing happens any more.
func stoppedRules() []rule {
	return []rule{{id: "ended", when: always("the agent has ended"), status: func(*State) string { return "stopped" }}}
}
