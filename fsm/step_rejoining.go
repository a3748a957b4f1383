package fsm

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/regent/events"
)

// The ladder's bounds: how often a rung is tried against one timeline of the
// upstream before the next one. A server that doesn't start may suffer from its
// configuration, which a copy doesn't cure: two minutes of pauses come before it.
const (
	maxStarts  = 8
	maxRewinds = 2
	maxStalls  = 3
)

// rejoiningRules lead a member whose PostgreSQL is down, or doesn't stream, back
// to the holder's history: judge by ancestry (S23), then follow, rewind, or clone;
// what was followed must stream, or the next rung is taken.
func rejoiningRules() []rule {
	rules := []rule{shutdownRule(), foreignRule(), toleratedRule(), pausedForeignRule(), rogueRule(), adoptRule(), {
		id: "judge-void", when: func(s *State) (bool, string) {
			if !s.doing(Judge{}) || s.leader().Name == s.Rejoin.Leader {
				return false, "no judgement against a former leader is under way"
			}
			return true, string(s.Rejoin.Leader) + " doesn't lead any more; comparing with it is left off"
		},
		do: func(e *effects) {
			// It may be dead, and its silence long; a race must not wait for that.
			e.abandon()
			e.Rejoin.Verdict = nil
		},
		status: rejoinStatus,
	}, {
		id: "busy", when: func(s *State) (bool, string) {
			switch {
			case s.Op != nil:
				return true, s.Op.Kind + " is under way"
			case s.unseen():
				return true, "looking at what the last operation has left"
			default:
				return false, "no operation is under way"
			}
		},
		status: rejoinStatus,
	}, pausedStoppedRule(), {
		id: "release-without-server", when: func(s *State) (bool, string) {
			switch {
			case !s.holds():
				return false, "the leader key isn't ours"
			case s.pg().Running:
				return false, "PostgreSQL runs"
			case s.pg().Data.Content != events.DataCluster:
				return true, "the leader key is ours, and there is no data to start PostgreSQL from: another may lead"
			case s.Rejoin.Starts == 0:
				return false, "PostgreSQL has not failed to start"
			default:
				return true, "the leader key is ours, and PostgreSQL does not start: another may lead"
			}
		},
		do: func(e *effects) { e.once(ReleaseLeader{Lease: e.Lease.ID}) },
		status: func(s *State) string {
			if empty(s) {
				return "released leader key voluntarily as data dir empty and currently leader"
			}
			return "removed leader key after trying and failing to start postgres"
		},
	}, {
		id: "pause-after-failure", when: func(s *State) (bool, string) {
			if s.Now >= s.Rejoin.NotBefore {
				return false, "no attempt has just failed"
			}
			return true, "pausing after a failed attempt: " + s.Rejoin.Why
		},
		status: func(s *State) string {
			if s.Rejoin.Starts > 0 {
				return "failed to start postgres"
			}
			return "pausing after a failed attempt: " + s.Rejoin.Why
		},
	}, {
		id: "up", trigger: ReplicaStarted,
		when: func(s *State) (bool, string) {
			switch {
			case !s.standbyUp():
				return false, "PostgreSQL does not run as a standby"
			case s.Rejoin.Reinit && s.otherLeads():
				return false, "an operator asked for a new copy"
			case s.Rejoin.Stage == "start":
				return true, "PostgreSQL runs as a standby of " + string(s.Rejoin.Leader)
			case s.holds():
				return true, "the leader key is ours, and PostgreSQL runs as a standby"
			case s.pg().Streaming && !s.unjudged():
				return true, "PostgreSQL runs as a standby, and streams"
			case !s.otherLeads():
				return true, "nobody leads, and PostgreSQL runs as a standby"
			case s.verdict() == events.VerdictFollow && s.Rejoin.Stalls <= maxStalls:
				return true, "our history is a prefix of the upstream's: it can be followed"
			default:
				return false, "its history is to be judged first"
			}
		},
		do: func(e *effects) {
			if up := e.upstream(); e.Rejoin.Stage != "start" && up != nil && e.pg().ConfiguredUpstream == up.Addr() {
				e.Rejoin.Stalls++ // it follows already, and doesn't stream
			}
			e.Rejoin.Stage, e.Rejoin.Verdict, e.Rejoin.Starts = "", nil, 0
		},
		status: secondaryStatus,
	}, {
		id: "confirm", when: func(s *State) (bool, string) { return s.unsure() },
		do:     func(e *effects) { e.lookAgain() },
		status: func(*State) string { return "starting as a secondary" },
	}, resumeRule(), {
		id: "start-alone", trigger: StandbyStartNeeded,
		when: func(s *State) (bool, string) {
			switch {
			case empty(s):
				return false, "there is no data to start"
			case s.pg().Running:
				return false, "PostgreSQL runs"
			case s.otherLeads() && !s.Settings.Tags.NoStream:
				return false, string(s.leader().Name) + " leads"
			case s.pg().Data.Content == events.DataBroken:
				return false, "the data directory can't be used: " + s.pg().Data.Problem
			case s.Store.DownSince != 0:
				return true, "the store does not answer, and a standby can at least be read from"
			default:
				return true, "there is nobody to follow"
			}
		},
		do: func(e *effects) {
			e.Rejoin.Starts++
			e.Rejoin.Stage = "start-alone"
			e.Postgres.Wrote = e.Postgres.Wrote || e.pg().Data.WasPrimary()
			e.operate(StartStandby{})
		},
		status: func(*State) string { return "starting as a secondary" },
	}, {
		id: "still-starting", when: func(s *State) (bool, string) {
			if s.Rejoin.Reinit {
				return false, "an operator asked for a new copy"
			}
			return s.unresponsive()
		},
		status: func(*State) string { return "PostgreSQL is still starting up" },
	}, {
		id: "wait-for-primary", when: func(s *State) (bool, string) {
			m, ok := s.view().Member(s.leader().Name)
			if ok && m.IsPrimary() && s.primary() != nil {
				return false, string(m.Name) + " is a primary"
			}
			if s.leader().Name == "" {
				return true, "waiting until somebody leads"
			}
			return true, "waiting until " + string(s.leader().Name) + " is a primary"
		},
		status: func(*State) string { return "waiting for the leader to become a primary" },
	}}
	rules = append(append(rules, pausedRunningRule()), ladderRules()...)
	return append(rules, rule{
		id: "stuck", when: func(s *State) (bool, string) {
			_, text := s.needsClone()
			return true, "no way back is left without an operator: " + text
		},
		status: func(*State) string { return "unable to rejoin without losing local data; reinitialize this member" },
	})
}

// verdict of the last judgement, if it was made against the holder of today.
func (s *State) verdict() events.Verdict {
	if s.Rejoin.Verdict == nil || s.Rejoin.Leader != s.leader().Name {
		return ""
	}
	return s.Rejoin.Verdict.Verdict
}

// ladderRules are the rungs.
func ladderRules() []rule {
	return []rule{
		{
			id: "stop-to-clone", when: func(s *State) (bool, string) {
				need, text := s.needsClone()
				ok, _ := s.cloneable()
				if !need || !ok || !s.pg().Running {
					return false, "no copy is due beside a running PostgreSQL"
				}
				return true, "PostgreSQL runs, and a copy is to replace its data: " + text
			},
			do: func(e *effects) {
				mode := "fast"
				if e.Rejoin.Reinit {
					mode = "immediate" // nothing of it is to be kept
				}
				e.operate(Stop{Mode: mode, Patience: 5 * time.Second})
			},
			status: rejoinStatus,
		},
		{
			id: "clone", trigger: CloneNeeded,
			when: func(s *State) (bool, string) {
				need, text := s.needsClone()
				if !need {
					return false, text
				}
				ok, source := s.cloneable()
				if !ok {
					return false, source
				}
				return true, text
			},
			do: func(e *effects) { e.beginClone() },
			status: func(s *State) string {
				if s.Rejoin.Reinit {
					return cloneStatus(s)
				}
				return "reinitializing due to diverged timelines"
			},
		},
		reinitWaitingRule(),
		{
			id: "judge-later", when: func(s *State) (bool, string) {
				if s.Now >= s.Rejoin.JudgeAfter || !s.sameLeadership() {
					return false, "no comparison has just failed"
				}
				return true, s.unanswered()
			},
			status: rejoinStatus,
		},
		{
			id: "judge", when: func(s *State) (bool, string) {
				switch s.verdict() {
				case "", events.VerdictWait:
					return true, "comparing our history with that of " + string(s.leader().Name)
				default:
					return false, "judged: " + s.Rejoin.Verdict.Why
				}
			},
			do:     func(e *effects) { e.judge() },
			status: rejoinStatus,
		},
		{
			id: "follow", when: func(s *State) (bool, string) {
				return s.verdict() == events.VerdictFollow && !s.pg().Running, "verdict: " + string(s.verdict())
			},
			do: func(e *effects) {
				e.Rejoin.Stage = "start"
				e.Rejoin.Starts++
				e.operate(StartStandby{Upstream: e.upstream()})
			},
			status: func(*State) string { return "starting as a secondary" },
		},
		{
			id: "stop-to-rewind", when: func(s *State) (bool, string) {
				return s.rewindable() && s.pg().Running, "PostgreSQL runs: " + fmt.Sprint(s.pg().Running)
			},
			do: func(e *effects) {
				e.operate(Stop{Mode: "fast", Patience: 5 * time.Second})
			},
			status: rejoinStatus,
		},
		{
			id: "await-checkpoint", when: func(s *State) (bool, string) {
				m, _ := s.view().Member(s.leader().Name)
				if !s.rewindable() || !m.CheckpointPending {
					return false, "no rewind waits for a checkpoint"
				}
				return true, "waiting for the first checkpoint of " + string(m.Name) + " on its new timeline"
			},
			status: func(s *State) string {
				return "Waiting for checkpoint on " + string(s.leader().Name) + " before rewind"
			},
		},
		{
			id: "rewind", when: func(s *State) (bool, string) {
				if !s.rewindable() {
					return false, "pg_rewind is not the way"
				}
				return true, "our history forked off: " + s.Rejoin.Verdict.Why
			},
			do: func(e *effects) {
				e.Rejoin.Stage = "rewind"
				e.Rejoin.Rewinds++
				e.operate(Rewind{Upstream: *e.primary()})
			},
			status: func(s *State) string { return "running pg_rewind from " + string(s.leader().Name) },
		},
	}
}

// rewindable: the verdict asks for a rewind, and it may still help.
func (s *State) rewindable() bool {
	return s.verdict() == events.VerdictRewind && s.Settings.UsePgRewind && s.pg().Data.CanRewind && s.Rejoin.Rewinds < maxRewinds
}

// needsClone: is only a full copy left, and is it allowed?
func (s *State) needsClone() (bool, string) {
	r := s.Rejoin
	var text string
	switch {
	case r.Reinit:
		return true, "an operator asked for a new copy"
	case empty(s):
		return true, "no data here"
	case s.verdict() == events.VerdictClone:
		text = "pg_rewind can't help: " + r.Verdict.Why
	case s.verdict() == events.VerdictRewind && !s.rewindable():
		text = "the histories have diverged, and pg_rewind failed or is not possible: " + orNone(r.Why)
	case r.Clones > 0:
		return false, "a copy has been made already, and another would not help: " + orNone(r.Why)
	case r.Stalls > maxStalls:
		text = fmt.Sprintf("followed %d times, and it never streamed", r.Stalls)
	case r.Starts > maxStarts:
		text = fmt.Sprintf("started %d times, and it never came up: %s", r.Starts, r.Why)
	default:
		return false, "other rungs are left"
	}
	if !s.Settings.RemoveDataDir {
		return false, text + "; a full copy would remove the data directory, which remove_data_directory_on_diverged_timelines does not allow"
	}
	return true, text
}

// judge starts a judgement, always against the primary: a standby that is to be
// followed may itself still be on the way. Against a new timeline of the upstream every rung is new.
func (e *effects) judge() {
	up := e.primary()
	if up == nil {
		return
	}
	m, _ := e.view().Member(e.leader().Name)
	if tl := m.Timeline; tl != e.Rejoin.Timeline {
		e.Rejoin = RejoinWork{Timeline: tl}
	}
	if !e.sameLeadership() {
		e.Rejoin.Unanswered, e.Rejoin.JudgeAfter = 0, 0
	}
	e.Rejoin.Stage, e.Rejoin.Leader, e.Rejoin.Verdict = "judge", e.leader().Name, nil
	e.Rejoin.Since = e.Store.LeaderSince
	e.operate(Judge{Upstream: *up})
}

// outcomeRejoin takes in the end of a rung.
func (e *effects) outcomeRejoin(ev events.ActionFinished) {
	done := ev.Class == events.Done
	if !done {
		e.Rejoin.Why = ev.Why
	}
	switch ev.Action {
	case Judge{}.Kind():
		if done {
			e.Rejoin.Unanswered, e.Rejoin.JudgeAfter = 0, 0
			e.Rejoin.Verdict = ev.Result.Divergence
			switch e.verdict() {
			case events.VerdictWait:
				e.Rejoin.NotBefore, e.Rejoin.Why = e.Now.Add(200*time.Millisecond), e.Rejoin.Verdict.Why
			case events.VerdictFollow:
				e.Postgres.Wrote, e.Postgres.Judged = false, e.Rejoin.Since
			}
		} else {
			e.Rejoin.Unanswered++
			wait := min(e.backoff(e.Rejoin.Unanswered), e.Settings.LoopWait)
			e.Rejoin.JudgeAfter = e.Now.Add(max(wait, time.Second/2))
		}
	case Rewind{}.Kind():
		// Whatever pg_rewind says, the histories are compared again (S23).
		e.Rejoin.Stage, e.Rejoin.Verdict = "", nil
		if !done {
			e.Rejoin.NotBefore = e.Now.Add(e.backoff(e.Rejoin.Rewinds))
		}
	case Clone{}.Kind():
		e.Rejoin.Stage = "clone"
		if done {
			e.Rejoin.Stage, e.Rejoin.Why, e.Rejoin.Reinit = "cloned", "", false
			e.Postgres.Wrote = false
		}
	case StartStandby{}.Kind():
		if !done {
			e.Rejoin.Stage, e.Rejoin.Verdict = "", nil
			e.Rejoin.NotBefore = e.Now.Add(e.backoff(e.Rejoin.Starts))
		}
	case Follow{}.Kind():
		if !done && e.Phase == Following {
			e.Rejoin.NotBefore = e.Now.Add(e.backoff(1))
		}
	}
}

// backoff grows with the number of failures, up to a minute.
func (s *State) backoff(failures int) time.Duration {
	return min(500*time.Millisecond<<min(max(failures-1, 0), 7), time.Minute)
}

// sameLeadership: the last judgement was against the holder of today, since it holds.
func (s *State) sameLeadership() bool {
	return s.Rejoin.Leader == s.leader().Name && s.Rejoin.Since == s.Store.LeaderSince
}

// unanswered says that judgements fail, in words that stay the same while they do.
func (s *State) unanswered() string {
	return fmt.Sprintf("comparing our history with that of %s fails, and is tried again: %s", s.Rejoin.Leader, s.Rejoin.Why)
}

func rejoinStatus(s *State) string {
	switch {
	case s.Rejoin.Unanswered > 0 && s.sameLeadership() && (s.Op == nil || s.doing(Judge{})):
		return s.unanswered()
	case s.doing(Rewind{}):
		return "running pg_rewind from " + string(s.Rejoin.Leader)
	case s.doing(Clone{}):
		return cloneStatus(s)
	default:
		return "starting as a secondary"
	}
}

// dropFailed removes candidates that have been tried.
func dropFailed(list []events.NodeName, failed []events.NodeName) []events.NodeName {
	return slices.DeleteFunc(slices.Clone(list), func(n events.NodeName) bool { return slices.Contains(failed, n) })
}
