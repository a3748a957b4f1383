package fsm

import (
	"fmt"
	"time"

	"github.com/pgregent/regent/events"
)

// patience is how long a standby may be without a stream before its history is
// judged; each judgement that found nothing wrong makes the next one later.
const patience = 2 * time.Second

// followingRules: a standby, doing well until an edge says otherwise.
func followingRules() []rule {
	rules := []rule{leavingSyncRule(), shutdownRule(), foreignRule(), toleratedRule(), pausedForeignRule(), rogueRule(), adoptRule(), postgresLostRule(), claimRule(needed), {
		id: "handed-over", trigger: HandedOver,
		when: func(s *State) (bool, string) {
			if !s.believes() {
				return false, "the leader key is not confirmed as ours"
			}
			return true, "the leader key hangs on our lease, confirmed by a renewal"
		},
		do: func(e *effects) {
			if e.view().Failover.Leader != e.Self {
				e.answerWish()
			}
			e.promote()
		},
		status: func(*State) string { return "promoted self to leader because I had the session lock" },
	}, {
		id: "confirm", when: func(s *State) (bool, string) {
			if s.leader().Name != s.Self {
				return false, "leader is " + orNone(string(s.leader().Name))
			}
			_, text := s.unsure()
			return true, text
		},
		do:     func(e *effects) { e.lookAgain() },
		status: secondaryStatus,
	}, reinitRule(), dropScheduleRule(), {
		id: "restart", trigger: RestartAccepted,
		when:   func(s *State) (bool, string) { return s.restartAsked() },
		do:     func(e *effects) { e.beginRestart() },
		status: func(*State) string { return "restart initiated" },
	}}
	rules = append(rules, upstreamRules()...)
	return append(rules,
		rule{
			id: "leader-gone", trigger: LeaderGone,
			when: func(s *State) (bool, string) {
				if !s.unlocked() {
					return false, "leader is " + orNone(string(s.leader().Name))
				}
				if ok, text := s.mayRace(); !ok {
					return false, text
				}
				return true, "the leader key is free"
			},
			do:     func(e *effects) { e.beginRace() },
			status: func(*State) string { return "the leader key is free, comparing with the other members" },
		},
		rule{
			id: "unresponsive", when: func(s *State) (bool, string) { return s.unresponsive() },
			status: func(*State) string { return "Error communicating with PostgreSQL. Will try again later" },
		},
		rule{
			id: "following", when: func(s *State) (bool, string) {
				if ok, text := s.mayRace(); s.unlocked() && !ok {
					return true, "nobody leads, and this member may not: " + text
				}
				if !s.pg().Streaming {
					return true, "not streaming, configured upstream: " + orNone(s.pg().ConfiguredUpstream)
				}
				return true, "streaming from " + orNone(s.pg().Upstream)
			},
			status: func(s *State) string {
				if s.unlocked() && (s.Settings.Tags.NoFailover || s.pg().Watchdog != "") {
					return "following a different leader because I am not allowed to promote"
				}
				if barred, _ := s.syncBars(); s.unlocked() && barred {
					return "following a different leader because i am not the healthiest node"
				}
				return secondaryStatus(s)
			},
		},
	)
}

// postgresLostRule: the standby's server is down.
func postgresLostRule() rule {
	return rule{
		id: "postgres-lost", trigger: PostgresLost,
		when: func(s *State) (bool, string) {
			if s.pg().Running || s.busy() {
				return false, "PostgreSQL runs"
			}
			if d := s.Postgres.Down; d != nil {
				return true, fmt.Sprintf("PostgreSQL is down (exit code %d, signal %d)", d.Code, d.Signal)
			}
			return true, "PostgreSQL is down"
		},
		status: func(*State) string { return "starting as a secondary" },
	}
}

// upstreamRules keep the standby on the right upstream, and streaming.
func upstreamRules() []rule {
	return []rule{
		{
			id: "busy", when: func(s *State) (bool, string) {
				if s.Op == nil {
					return false, "no operation is under way"
				}
				return true, s.Op.Kind + " is under way"
			},
			status: secondaryStatus,
		},
		{
			id: "history-unsure", trigger: HistoryUnsure,
			when: func(s *State) (bool, string) {
				up := s.upstream()
				switch {
				case up == nil || !s.standbyUp() || s.pg().ConfiguredUpstream == up.Addr():
					return false, "no other upstream is to be followed"
				case s.unjudged():
					return true, "whether our history is a part of " + string(s.leader().Name) + "'s is to be found out before it is followed"
				default:
					return false, "our history is known to be a part of the new leader's"
				}
			},
			status: secondaryStatus,
		},
		{
			id: "leader-changed", trigger: LeaderChanged,
			when: func(s *State) (bool, string) {
				up := s.upstream()
				switch {
				case up == nil:
					return false, "there is no other upstream"
				case !s.standbyUp():
					return false, "PostgreSQL does not answer"
				case s.pg().ConfiguredUpstream == up.Addr():
					return false, "already pointed at " + string(up.Name)
				case s.Now < s.Rejoin.NotBefore:
					return false, "pausing after a failed attempt: " + s.Rejoin.Why
				default:
					return true, fmt.Sprintf("upstream should be %s (%s), is %s", up.Name, up.Addr(), orNone(s.pg().ConfiguredUpstream))
				}
			},
			do: func(e *effects) {
				e.Rejoin.Leader = e.leader().Name
				e.operate(Follow{Upstream: e.upstream()})
			},
			status: secondaryStatus,
		},
		{
			id: "not-streaming", trigger: NotStreaming,
			when: func(s *State) (bool, string) {
				m, known := s.view().Member(s.leader().Name)
				switch {
				case !s.otherLeads():
					return false, "nobody else leads"
				case s.Settings.Pause:
					return false, "maintenance mode is on"
				case s.pg().Streaming || s.Settings.Tags.NoStream:
					return false, "it streams"
				case !s.standbyUp():
					return false, "PostgreSQL does not answer"
				case !known || !m.IsPrimary():
					return false, "the leader's PostgreSQL is not a primary yet"
				case s.Now < s.patienceEnd():
					return false, "it has not been without a stream for long"
				default:
					return true, fmt.Sprintf("no stream from %s for %s", s.leader().Name,
						s.Now.Sub(max(s.Postgres.StreamedAt, s.Since, s.Store.LeaderSince)).Round(time.Millisecond))
				}
			},
		},
	}
}

// unjudged: following the leader without a comparison could write its WAL over ours.
// Two promotions that didn't know of each other give their timelines the same number,
// so a number is proof only while the leader's is the higher one, or while it is still
// a standby of ours.
func (s *State) unjudged() bool {
	switch {
	case !s.otherLeads(), s.Postgres.Judged != 0 && s.Postgres.Judged == s.Store.LeaderSince, s.fromLeader():
		return false
	}
	m, _ := s.view().Member(s.leader().Name)
	ours := s.pg().Timeline
	return s.Postgres.Wrote || ours > m.Timeline || ours == m.Timeline && m.IsPrimary()
}

// fromLeader reports whether the leader streams to this member, and was never followed
// without need of a judgement.
func (s *State) fromLeader() bool {
	up := s.primary()
	return up != nil && s.pg().Streaming && s.pg().Upstream == up.Addr() && !s.Postgres.Wrote
}

// patienceEnd is when a standby without a stream is judged.
func (s *State) patienceEnd() events.Instant {
	from := max(s.Postgres.StreamedAt, s.Since, s.Store.LeaderSince)
	return from.Add(patience * time.Duration(1<<min(s.Rejoin.Stalls, 5)))
}

// noWatchdog bars a member from leading before it has won and its keeper refuses.
const noWatchdog = "the watchdog is required and doesn't work: "

// mayRace: may this member lead at all, now?
func (s *State) mayRace() (bool, string) {
	back, whyBack := s.standsBack()
	barred, whyBarred := s.syncBars()
	switch {
	case s.Settings.Tags.NoFailover:
		return false, "tagged nofailover"
	case s.Settings.Tags.FailoverPriority < 0:
		return false, "failover_priority forbids it"
	case s.pg().Watchdog != "":
		return false, noWatchdog + s.pg().Watchdog
	case s.Settings.Pause && s.wish().Candidate != s.Self:
		return false, "maintenance mode is on"
	case s.Now < s.resumedEnd():
		return false, "maintenance mode has just ended, and not every member knows it yet"
	case back:
		return false, whyBack
	case barred:
		return false, whyBarred
	case s.moveBars() != "":
		return false, s.moveBars()
	case s.failsafeBars() != "":
		return false, s.failsafeBars()
	case s.Lease.ID == "":
		return false, "no lease yet"
	case s.Store.DownSince != 0:
		return false, "the store does not answer"
	case !s.standbyUp():
		return false, "PostgreSQL does not answer in recovery"
	case !s.view().Initialize.SystemID.Valid() && s.view().Initialize.Version != 0:
		return false, "the cluster is still being created"
	case s.Shutdown != "":
		return false, "the agent is ending"
	default:
		return true, ""
	}
}

// resumedEnd is until when nobody races after maintenance mode: a member that has not
// heard of its end keeps a primary without a lease (S11).
func (s *State) resumedEnd() events.Instant {
	if s.Pause.Left != nil && s.Store.ResumedAt != 0 {
		return s.Store.ResumedAt.Add(s.Settings.TTL) // its agent may be about to take charge again
	}
	for _, m := range s.view().Members {
		if m.Pause && m.Name != s.Self && s.Store.ResumedAt != 0 {
			return s.Store.ResumedAt.Add(s.Settings.TTL)
		}
	}
	return 0
}

// promote leaves recovery under the lease.
func (e *effects) promote() {
	e.Race, e.Rejoin, e.Revive = RaceWork{}, RejoinWork{}, ReviveWork{}
	e.Failsafe.Promise = FailsafePromise{} // over, or its holder has handed the key over
	e.Postgres.Promoted, e.Postgres.Wrote, e.Keeper.Armed = true, true, true
	e.Keeper.Sent, e.Keeper.Revision = e.beliefEnd(), e.Holder.Revision
	e.operate(Promote{Fence: e.fence(), Sync: e.beforePromotion()})
}
