package fsm

import (
	"strings"
	"time"

	"github.com/pgregent/regent/events"
)

// restartAsked: an operator's restart that can begin now.
func (s *State) restartAsked() (bool, string) {
	if s.busy() || !s.pg().Ready || !s.restartable() {
		return false, "PostgreSQL can't be restarted now"
	}
	for _, r := range s.Requests {
		if r.Kind == "restart" {
			return true, "an operator asked for a restart"
		}
	}
	if due, _, text := s.scheduledRestart(); due || s.Schedule != nil {
		return due, text
	}
	return false, "nobody asked for a restart"
}

// restartable: without the lease a primary could not be started again (S3).
func (s *State) restartable() bool { return !s.primaryUp() || s.believes() && !s.foreign() }

// beginRestart stops PostgreSQL, checkpoint first.
func (e *effects) beginRestart() {
	w := RestartWork{Stage: "stop", ID: "scheduled", Primary: e.primaryUp()}
	if due, _, _ := e.scheduledRestart(); due {
		w.Timeout = e.Schedule.Timeout
		e.Schedule = nil
	}
	for _, r := range e.Requests {
		if r.Kind == "restart" {
			w.ID, w.Timeout = r.ID, r.Timeout
		}
	}
	e.Restart = w
	e.operate(Stop{Mode: "fast", Checkpoint: true, Patience: time.Minute})
}

// restartingRules: stop, start in the same role.
func restartingRules() []rule {
	rules := append([]rule{shutdownRule(), foreignRule()}, mustHold(func(s *State) bool { return s.Restart.Primary })...)
	up := func(s *State) bool {
		return (s.Restart.Stage == "started" || s.Restart.Stage == "stop-failed") && !s.unseen()
	}
	return append(rules,
		rule{
			id: "primary-up", trigger: Restarted,
			when: func(s *State) (bool, string) {
				return told(up(s) && s.primaryUp(), "the restarted primary is up", "no restarted primary is up")
			},
			do:     func(e *effects) { e.restarted() },
			status: leaderStatus,
		},
		rule{
			id: "standby-up", trigger: ReplicaFound,
			when: func(s *State) (bool, string) {
				return told(up(s) && s.standbyUp(), "the restarted standby is up", "no restarted standby is up")
			},
			do:     func(e *effects) { e.restarted() },
			status: secondaryStatus,
		},
		rule{
			id: "start", when: func(s *State) (bool, string) {
				down := s.Restart.Stage == "stop-failed" && !s.unseen() && !s.pg().Running
				return told(s.Restart.Stage == "start" || down, "PostgreSQL is down, and is to be started again", "PostgreSQL is not to be started now")
			},
			do: func(e *effects) {
				e.Restart.Stage = "started"
				if e.Restart.Primary {
					e.startPrimary()
				} else if up := e.upstream(); !e.unjudged() {
					e.operate(StartStandby{Upstream: up})
				} else {
					e.operate(StartStandby{})
				}
			},
			status: func(*State) string { return "restart in progress" },
		},
		rule{
			id: "timed-out", trigger: StartTimedOut,
			when: func(s *State) (bool, string) {
				limit := s.restartLimit()
				switch {
				case !s.Restart.Primary || limit <= 0 || s.phaseAge() < limit:
					return false, "there is time left"
				case len(s.candidates(nil)) == 0:
					return false, "no replica can take over"
				default:
					return true, "the restart takes longer than primary_start_timeout, and a replica can take over"
				}
			},
			do: func(e *effects) {
				e.beginDemotion(DemoteWork{Why: "the restarted primary did not come up in time", Mode: "kill"})
			},
			status: func(*State) string { return "stopped PostgreSQL because of startup timeout" },
		},
		rule{
			id: "working", when: func(s *State) (bool, string) {
				return told(s.unseen() || s.pg().Running, "a step of the restart is under way", "no step of the restart is under way")
			},
			status: func(s *State) string {
				if s.Restart.Primary {
					return "updated leader lock during restart"
				}
				return "restart in progress"
			},
		},
		rule{
			id: "failed", trigger: StartFailed,
			when:   always("PostgreSQL did not come up again"),
			do:     func(e *effects) { e.answerRestart(false, "restart failed") },
			status: func(*State) string { return "restart failed" },
		},
	)
}

// restartLimit is how long a restarted primary may take; 0 or less: for ever.
func (s *State) restartLimit() time.Duration {
	if s.Restart.Timeout > 0 {
		return s.Restart.Timeout
	}
	return s.Settings.PrimaryStartTimeout
}

// restarted ends the work. A stop that failed has changed nothing.
func (e *effects) restarted() {
	if e.Restart.Stage == "started" {
		e.answerRestart(true, "restarted successfully")
	} else {
		e.answerRestart(false, "restart failed")
	}
}

// answerRestart tells the operator.
func (e *effects) answerRestart(ok bool, text string) {
	id := e.Restart.ID
	e.Restart = RestartWork{}
	e.settle(id, ok, text)
}

// settle answers one request and forgets it.
func (e *effects) settle(id string, ok bool, text string) {
	var rest []Request
	for _, r := range e.Requests {
		if r.ID != id {
			rest = append(rest, r)
		}
	}
	e.Requests = rest
	e.order(Respond{ID: id, OK: ok, Text: text})
}

// outcomeRequest: an operator's wish was written to the request key, or not.
func (e *effects) outcomeRequest(ev events.ActionFinished) {
	for _, r := range e.Requests {
		if r.Written != ev.ID || r.Kind == "restart" {
			continue
		}
		text := "requested"
		switch ev.Class {
		case events.Done:
		case events.Unknown:
			text = strings.ToUpper(r.Kind[:1]) + r.Kind[1:] + " status unknown"
		default:
			text = "failed to write " + r.Kind + " key into DCS"
		}
		e.settle(r.ID, ev.Class == events.Done, text)
		return
	}
}
