package fsm

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
)

// needed: the phase is safe only under the lease, from its first moment.
func needed(*State) bool { return true }

// promotingRules wait until PostgreSQL has left recovery.
func promotingRules() []rule {
	rules := append([]rule{shutdownRule()}, mustHold(needed)...)
	return append(rules,
		rule{
			id: "promoted", trigger: Promoted,
			when: func(s *State) (bool, string) {
				if !s.primaryUp() || s.unseen() {
					return false, "PostgreSQL has not been seen as a primary yet"
				}
				return true, "PostgreSQL has left recovery"
			},
			do: func(e *effects) {
				e.Race, e.Unfit = RaceWork{}, Unfit{}
				e.refresh()
			},
			status: leaderStatus,
		},
		rule{
			id: "promoting", when: func(s *State) (bool, string) {
				if !s.unseen() {
					return false, "the promotion has ended"
				}
				return true, "PostgreSQL is leaving recovery"
			},
			status: func(*State) string { return "promoted self to leader by acquiring session lock" },
		},
		rule{
			id: "failed", trigger: PromoteFailed,
			when: always("the promotion ended, and PostgreSQL is no primary"),
			do: func(e *effects) {
				e.promotionFailed()
				e.beginDemotion(DemoteWork{Why: "the promotion failed", Mode: "fast"})
			},
			status: func(*State) string { return "not promoting because failed to promote" },
		},
	)
}

// leadingRules: the primary under its lease.
func leadingRules() []rule {
	rules := append([]rule{shutdownRule(), foreignRule()}, pausedLeadingRules()...)
	rules = append(rules, mustHold(needed)...)
	rules = append(rules,
		dataLostRule(), crashFailoverRule(),
		rule{
			id: "crashed", trigger: PostgresCrashed,
			when: func(s *State) (bool, string) {
				if s.pg().Running {
					return false, "PostgreSQL runs"
				}
				if d := s.Postgres.Down; d != nil {
					return true, fmt.Sprintf("PostgreSQL is down (exit code %d, signal %d)", d.Code, d.Signal)
				}
				return true, "PostgreSQL is down"
			},
			do:     func(e *effects) { e.beginRevival() },
			status: func(*State) string { return "starting primary after failure" },
		},
		claimRule(func(s *State) bool { return s.standbyUp() && !s.busy() }),
		rule{
			id: "not-primary", trigger: NotPrimary,
			when: func(s *State) (bool, string) {
				if !s.standbyUp() || s.busy() {
					return false, "PostgreSQL is no standby"
				}
				return true, "PostgreSQL is in recovery, and the leader key is ours"
			},
			do:     func(e *effects) { e.promote() },
			status: func(*State) string { return "promoted self to leader because I had the session lock" },
		},
		rule{
			id: "key-missing", when: func(s *State) (bool, string) {
				if !s.unlocked() || s.Store.View.Revision < s.Store.Floor {
					return false, "the leader key is there"
				}
				if s.Lease.ID == "" {
					return true, "the leader key has gone with its lease, and nobody else leads; waiting for another lease"
				}
				return true, "the leader key is gone, and nobody else leads; taking it back"
			},
			do: func(e *effects) {
				if e.Lease.ID != "" && !e.InFlight(RefreshView{}) { // one is after an attempt that was refused
					e.acquire()
				}
			},
		},
		switchoverRule(), checkRequestRule(), refuseSwitchoverRule(), dropScheduleRule(),
		rule{
			id: "restart", trigger: RestartAccepted,
			when:   func(s *State) (bool, string) { return s.restartAsked() },
			do:     func(e *effects) { e.beginRestart() },
			status: func(*State) string { return "restart initiated" },
		},
	)
	rules = append(append(rules, syncRules()...), failsafeRule())
	return append(rules,
		rule{
			id: "unresponsive", when: func(s *State) (bool, string) { return s.unresponsive() },
			status: func(*State) string { return "Error communicating with PostgreSQL. Will try again later" },
		},
		rule{
			id: "leading", when: func(s *State) (bool, string) {
				return true, fmt.Sprintf("the leader key is ours, believed for %s more",
					s.beliefEnd().Sub(s.Now).Round(time.Millisecond))
			},
			status: leaderStatus,
		},
	)
}

// dataLostRule: the server is down and its data directory empty.
func dataLostRule() rule {
	return rule{
		id: "data-lost", trigger: DataLost,
		when: func(s *State) (bool, string) {
			if s.pg().Running || s.unseen() || !empty(s) {
				return false, "there is a server, or data to start one from"
			}
			return true, "the leader key is ours, but the data directory is empty"
		},
		do: func(e *effects) {
			e.beginDemotion(DemoteWork{Why: "the data directory is empty", Mode: "kill"})
		},
		status: func(*State) string {
			return "released leader key voluntarily as data dir empty and currently leader"
		},
	}
}

// crashFailoverRule is primary_start_timeout 0: no restart while somebody can take
// over. While nobody can, the restart is tried, and the wish stays open.
func crashFailoverRule() rule {
	return rule{
		id: "crash-failover", trigger: CrashFailover,
		when: func(s *State) (bool, string) {
			switch {
			case s.pg().Ready || (s.Phase == Leading && s.pg().Running):
				return false, "PostgreSQL runs"
			case s.Settings.Pause:
				return false, "maintenance mode is on"
			case s.Settings.PrimaryStartTimeout > 0:
				return false, "primary_start_timeout is not 0"
			case len(s.candidates(nil)) == 0:
				return false, "no replica can take over"
			default:
				return true, "PostgreSQL is down, and primary_start_timeout is 0"
			}
		},
		do: func(e *effects) {
			e.beginDemotion(DemoteWork{Why: "the primary crashed, primary_start_timeout is 0", Mode: "kill"})
		},
		status: func(*State) string { return "stopped PostgreSQL to fail over after a crash" },
	}
}

// switchoverRule accepts an operator's wish for another leader.
func switchoverRule() rule {
	return rule{
		id: "switchover", trigger: SwitchoverAccepted,
		when: func(s *State) (bool, string) {
			ok, text, _ := s.judgeSwitchover()
			return ok, text
		},
		do: func(e *effects) {
			_, text, to := e.judgeSwitchover()
			f := e.view().Failover
			e.beginDemotion(DemoteWork{Why: text, Mode: "fast", HandOff: true, To: to, Asked: f.Candidate, Anyone: f.Leader == ""})
		},
		status: func(s *State) string { return s.requestWord() + ": demoting myself" },
	}
}

// checkRequestRule looks again before a wish is refused: the holder's knowledge of
// its standbys may be a heartbeat old, and a candidate may just have come.
func checkRequestRule() rule {
	return rule{
		id: "check-request", when: func(s *State) (bool, string) {
			f := s.view().Failover
			if wait, text := s.postponed(); wait {
				return false, text
			}
			if !f.Pending() || s.missed() != "" || f.Version == s.Store.Answered || (s.Postgres.At > s.Store.AskedAt && s.Store.Read > s.Store.AskedAt) {
				return false, "what is known is newer than the request"
			}
			return true, "an operator asked for another leader; looking again at who could take over"
		},
		do: func(e *effects) {
			if e.Store.Read <= e.Store.AskedAt {
				e.refresh()
			}
			if e.Postgres.At <= e.Store.AskedAt {
				e.order(ObservePostgres{})
			}
		},
		status: leaderStatus,
	}
}

// refuseSwitchoverRule clears a wish that can't be granted, and says why.
func refuseSwitchoverRule() rule {
	return rule{
		id: "refuse-switchover", when: func(s *State) (bool, string) {
			f := s.view().Failover
			ok, text, _ := s.judgeSwitchover()
			if wait, text := s.postponed(); wait {
				return false, text
			}
			if ok || !f.Pending() || f.Version == s.Store.Answered {
				return false, "nothing to refuse"
			}
			return true, text
		},
		do:     func(e *effects) { e.once(ClearFailover{Version: e.view().Failover.Version}) },
		status: func(*State) string { return "Cleaning up failover key" },
	}
}

// judgeSwitchover checks the request key against what the holder knows, and names
// the candidate to hand over to.
func (s *State) judgeSwitchover() (ok bool, text string, to events.NodeName) {
	f, word := s.view().Failover, s.requestWord()
	kind := strings.TrimPrefix(word, "manual ")
	able := s.candidates(s.pg().Standbys)
	if f.Leader == "" && f.Candidate != "" {
		able = s.able(s.pg().Standbys) // the operator knows that it isn't synchronous
	}
	later, until := s.postponed()
	switch {
	case !f.Pending():
		return false, "nobody asked for another leader", ""
	case f.Version == s.Store.Answered:
		return false, "the request has been answered", ""
	case later:
		return false, until, ""
	case s.missed() != "":
		return false, s.missed(), ""
	case f.Leader != "" && f.Leader != s.Self:
		return false, fmt.Sprintf("%s: leader name does not match: %s != %s", word, f.Leader, s.Self), ""
	case f.Candidate == s.Self:
		return false, word + ": I am already the leader, no need to " + kind, ""
	case s.Settings.Pause && f.Candidate == "":
		return false, strings.ToUpper(word[:1]) + word[1:] + " is possible only to a specific candidate in a paused state", ""
	}
	for _, n := range able {
		if f.Candidate == "" || n == f.Candidate {
			return true, fmt.Sprintf("%s: to %s, I am %s", word, n, s.Self), n
		}
	}
	if f.Candidate != "" && f.Leader != "" && s.outsider(f.Candidate) {
		return false, fmt.Sprintf("%s candidate=%s does not match with sync_standbys=%s", word, f.Candidate,
			strings.Join(asStrings(s.view().Sync.Standbys), ",")), ""
	}
	return false, word + ": no healthy members found, " + kind + " is not possible", ""
}

// requestWord is Patroni's word for the request.
func (s *State) requestWord() string {
	if s.view().Failover.Leader != "" {
		return "switchover"
	}
	return "manual failover"
}

// beginRevival restarts a crashed primary in place.
func (e *effects) beginRevival() {
	limit := e.Settings.PrimaryStartTimeout
	if limit <= 0 {
		limit = 24 * time.Hour // nobody can take over: keep trying
	}
	if e.Revive.Deadline == 0 { // else the agent has restarted meanwhile (S21)
		e.Revive = ReviveWork{Began: e.Now, Deadline: e.Now.Add(limit)}
	}
	e.Revive.Tries++
	e.startPrimary()
}

// reviveTries is how many starts may fail in a row before a replica is to take over. What
// keeps a server from starting (a full disk, a broken configuration) rarely passes by
// itself; what does pass, memory or a port that are not free yet, passes within these.
const reviveTries = 3

// revivingRules: the primary is down, the lease is kept while it is restarted.
func revivingRules() []rule {
	rules := append([]rule{shutdownRule(), foreignRule()}, mustHold(needed)...)
	return append(rules,
		givingUpRule(), letGoRule(),
		rule{
			id: "revived", trigger: Revived,
			when: func(s *State) (bool, string) {
				return told(s.primaryUp() && !s.busy(), "PostgreSQL is up", "PostgreSQL is no primary yet")
			},
			do:     func(e *effects) { e.Revive = ReviveWork{} },
			status: leaderStatus,
		},
		rule{
			id: "standby-up", trigger: Revived,
			when: func(s *State) (bool, string) {
				return told(s.standbyUp() && !s.busy(), "PostgreSQL came up in recovery", "PostgreSQL is not up in recovery")
			},
			do: func(e *effects) { e.Revive = ReviveWork{} },
		},
		dataLostRule(), crashFailoverRule(), switchoverRule(), checkRequestRule(), refuseSwitchoverRule(),
		rule{
			id: "failing", trigger: StartFailed,
			when: func(s *State) (bool, string) {
				switch {
				case s.Revive.Tries < reviveTries || s.Revive.Why == "" || s.busy() || s.pg().Running:
					return false, fmt.Sprintf("no %d starts have failed", reviveTries)
				case s.Settings.Pause:
					return false, "PostgreSQL doesn't start, but the cluster is paused"
				case len(s.candidates(nil)) == 0:
					return false, "PostgreSQL doesn't start, but no replica can take over"
				default:
					return true, fmt.Sprintf("start %d failed as those before, and a replica can take over: %s", s.Revive.Tries, s.Revive.Why)
				}
			},
			do: func(e *effects) {
				e.beginDemotion(DemoteWork{Why: "the primary can't be started", Mode: "kill"})
			},
			status: func(*State) string { return "released leader key after trying and failing to start postgres" },
		},
		rule{
			id: "timed-out", trigger: StartTimedOut,
			when: func(s *State) (bool, string) {
				switch {
				case !s.Revive.TimedOut && s.Now < s.Revive.Deadline:
					return false, fmt.Sprintf("PostgreSQL is still starting up, %d seconds until timeout",
						int(s.Revive.Deadline.Sub(s.Now)/time.Second))
				case s.Settings.Pause:
					return false, "primary start has timed out, but maintenance mode is on"
				case len(s.candidates(nil)) == 0:
					return false, "primary start has timed out, but no replica can take over"
				default:
					return true, "primary_start_timeout is over, and a replica can take over"
				}
			},
			do: func(e *effects) {
				e.beginDemotion(DemoteWork{Why: "the primary did not start in time", Mode: "kill"})
			},
			status: func(*State) string { return "stopped PostgreSQL because of startup timeout" },
		},
		rule{
			id: "again", when: func(s *State) (bool, string) {
				if s.unseen() || s.pg().Running || s.Now < s.Revive.RetryAt {
					return false, "a start is under way, or the pause after a failed one is not over"
				}
				return true, fmt.Sprintf("start %d failed: %s", s.Revive.Tries, s.Revive.Why)
			},
			do: func(e *effects) {
				e.Revive.Tries++
				e.Revive.Why = ""
				e.startPrimary()
			},
			status: func(*State) string { return "starting primary after failure" },
		},
		rule{
			id: "starting", when: always("PostgreSQL is starting"),
			status: func(s *State) string {
				if left := s.Revive.Deadline.Sub(s.Now); left > 0 {
					return fmt.Sprintf("PostgreSQL is still starting up, %d seconds until timeout", int(left/time.Second))
				}
				return "primary start has timed out, but continuing to wait because failover is not possible"
			},
		},
	)
}

// outcomeStartPrimary: a start of the primary has ended.
func (e *effects) outcomeStartPrimary(ev events.ActionFinished) {
	if ev.Action != (StartPrimary{}).Kind() || ev.Class == events.Done {
		return
	}
	if e.Phase == Reviving {
		e.Revive.Why = ev.Why
		e.Revive.RetryAt = e.Now.Add(e.backoff(e.Revive.Tries))
	}
}
