package fsm

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/regent/events"
)

const (
	// probeTimeout bounds the questions to the peers; a dead host must not be waited out (S16).
	probeTimeout = 300 * time.Millisecond
	// raceRetry is when a race that could not be decided is run again.
	raceRetry = 200 * time.Millisecond
	// headStart is what a peer of equal position and better rank is given.
	headStart = 300 * time.Millisecond
)

// racingRules: detach from the old primary, ask the peers, and take the key if
// nobody is better. Rank orders who starts first; the guarded write decides (S14, S16).
func racingRules() []rule {
	return []rule{
		shutdownRule(), foreignRule(), toleratedRule(), pausedForeignRule(), rogueRule(), postgresLostRule(), claimRule(needed),
		{
			id: "won", trigger: RaceWon,
			when: func(s *State) (bool, string) {
				if !s.believes() {
					return false, "the leader key is not confirmed as ours"
				}
				return true, "the leader key is ours"
			},
			do: func(e *effects) {
				e.answerWish()
				e.promote()
			},
			status: func(*State) string { return "promoted self to leader by acquiring session lock" },
		},
		{
			id: "lost", trigger: RaceLost,
			when: func(s *State) (bool, string) {
				return s.otherLeads(), "leader is " + orNone(string(s.leader().Name))
			},
			do:     func(e *effects) { e.Race = RaceWork{} },
			status: func(*State) string { return "following new leader after trying and failing to obtain lock" },
		},
		{
			id: "abandoned", trigger: RaceAbandoned,
			when: func(s *State) (bool, string) {
				ok, text := s.mayRace()
				if ok || s.busy() {
					return false, "this member may lead"
				}
				return true, text
			},
			do: func(e *effects) { e.Race = RaceWork{} },
		},
		{
			id: "asking", when: func(s *State) (bool, string) {
				switch {
				case s.busy():
					return true, "leaving the old upstream before voting"
				case s.InFlight(ProbePeers{}):
					return true, "asking the peers for their positions"
				case s.InFlight(AcquireLeader{}):
					return true, "taking the leader key"
				case s.Store.Read < s.Race.Began && s.Race.Stage == "judge":
					return true, "reading the store once more"
				case s.Race.Stage == "wait" && s.Now < s.Race.RetryAt:
					return true, s.Race.Verdict
				default:
					return false, "all answers are in"
				}
			},
			do: func(e *effects) {
				if e.Race.Stage == "judge" && e.Store.Read < e.Race.Began {
					e.refresh()
				}
			},
			status: raceStatus,
		},
		{
			id: "ask", when: func(s *State) (bool, string) {
				return told(s.Race.Stage == "detach" || s.Race.Stage == "wait", "asking everybody for positions of now", "everybody has been asked")
			},
			do:     func(e *effects) { e.probe() },
			status: raceStatus,
		},
		{
			id: "defer", when: func(s *State) (bool, string) {
				better, text := s.betterThanMe()
				return better, text
			},
			do: func(e *effects) {
				_, e.Race.Verdict = e.betterThanMe()
				e.Race.Orphan = e.alivePrimary()
				e.Race.Stage, e.Race.RetryAt = "wait", e.Now.Add(raceRetry)
			},
			status: raceStatus,
		},
		{
			id: "head-start", when: func(s *State) (bool, string) {
				first, text := s.outranked()
				return first && !s.Race.Deferred, text
			},
			do: func(e *effects) {
				_, e.Race.Verdict = e.outranked()
				e.Race.Deferred = true
				e.Race.Stage, e.Race.RetryAt = "wait", e.Now.Add(headStart)
			},
			status: raceStatus,
		},
		{
			id: "take", when: always("nobody who answered is better placed"),
			do: func(e *effects) {
				e.Race.Stage = "acquire"
				e.acquire()
			},
			status: raceStatus,
		},
	}
}

// beginRace detaches from the old primary first: what it might still send must not
// change our position after the vote.
func (e *effects) beginRace() {
	e.Race = RaceWork{Stage: "detach", Began: e.Now}
	e.operate(Follow{})
}

// staleRace forgets the answers of a race after a freeze: while this member stood
// still, a primary may have come and gone (S16, S24).
func (e *effects) staleRace() {
	if e.Phase == Racing && e.Race.Stage != "detach" {
		e.Race.Stage, e.Race.RetryAt, e.Race.Probe, e.Race.Peers = "wait", e.Now, events.ActionID{}, nil
		e.Race.Verdict = "time has jumped, so what the peers said is old"
	}
}

// probe asks everybody, and reads the store linearizably beside it (S17).
func (e *effects) probe() {
	e.Race.Stage, e.Race.Peers, e.Race.Began = "judge", nil, e.Now
	e.refresh()
	var peers []PeerAddr
	left := e.Pause.Left
	for _, m := range e.view().Members {
		if m.Name != e.Self && m.APIURL != "" && (left == nil || m.Name != left.Name) {
			peers = append(peers, PeerAddr{Name: m.Name, APIURL: m.APIURL})
		}
	}
	if left != nil {
		addr := PeerAddr{Name: left.Name, APIURL: left.APIURL}
		if up, ok := left.Upstream(); ok {
			addr.Postgres = &up
		}
		peers = append(peers, addr)
	}
	e.Race.Probe = e.order(ProbePeers{Peers: peers, Timeout: probeTimeout})
}

// outcomeRace: the detachment or the probe has ended. A failed detachment does not
// stop the race: the position is what counts, and it was observed with the outcome.
func (e *effects) outcomeRace(events.ActionFinished) {}

// betterThanMe tells whether this member must leave the key to another, or to nobody.
func (s *State) betterThanMe() (bool, string) {
	f, mine := s.wish(), s.position()
	// A failover may cost what the candidate doesn't have: the operator said so. A
	// switchover promises that nothing is lost, so positions count above its wish.
	word := f.Leader == ""
	for _, p := range s.Race.Peers {
		complete := p.Position >= mine && p.Timeline >= s.pg().Timeline
		if !word && s.outsider(p.Name) {
			continue
		}
		if f.Candidate == p.Name && p.Name != s.Self && p.Reachable && p.MayLead() && (word || complete) {
			return true, fmt.Sprintf("an operator asked for %s, which is healthy", p.Name)
		}
	}
	for _, p := range s.Race.Peers {
		switch {
		case !p.Primary && (s.outsider(p.Name) || s.formerLeader(p)):
			// It can't lead, or what it has beyond ours was never acknowledged.
		case !p.Reachable && p.MayLead() && s.behind(p) && s.phaseAge() < s.comebackWait():
			return true, fmt.Sprintf("%s has WAL up to %s on timeline %d, and its PostgreSQL is not up; it is given %s",
				p.Name, p.Position, p.Timeline, s.comebackWait())
		case !p.Reachable:
		case p.Primary:
			return true, fmt.Sprintf("Primary (%s) is still alive", p.Name)
		case !p.MayLead():
		case f.Candidate == s.Self && word:
		case f.Leader == s.Self && f.Candidate == "" && p.Position >= mine && p.Timeline >= s.pg().Timeline:
			return true, fmt.Sprintf("an operator asked for another leader than %s, and %s can take over", s.Self, p.Name)
		case s.outwaited(p):
			// What it has is given up, within the bound that the operator set.
		case p.Timeline > s.pg().Timeline && s.pg().Timeline != 0:
			return true, fmt.Sprintf("%s is on timeline %d, this member on %d", p.Name, p.Timeline, s.pg().Timeline)
		case p.Position > mine && p.Timeline >= s.pg().Timeline:
			return true, fmt.Sprintf("Wal position of %s is ahead of my wal position (%s, %s)", p.Name, p.Position, mine)
		}
	}
	if f.Candidate == s.Self {
		return false, "an operator asked for this member"
	}
	if lag := int64(s.view().Status.Optime) - int64(mine); lag > s.Settings.MaximumLagOnFailover {
		return true, fmt.Sprintf("My wal position exceeds maximum replication lag (%d bytes behind)", lag)
	}
	if known := s.view().History.Timeline(); s.Settings.CheckTimeline && s.pg().Timeline != 0 && s.pg().Timeline < known {
		return true, fmt.Sprintf("My timeline %d is behind last known cluster timeline %d", s.pg().Timeline, known)
	}
	return false, "nobody who answered is ahead"
}

// alivePrimary is a peer that answered as a primary while nobody leads; empty: none did.
func (s *State) alivePrimary() events.NodeName {
	for _, p := range s.Race.Peers {
		if p.Reachable && p.Primary {
			return p.Name
		}
	}
	return ""
}

// outsider: synchronous mode keeps the member from leading.
func (s *State) outsider(n events.NodeName) bool { return s.syncActive() && !s.inSync(n) }

// formerLeader: the peer was the leader that this synchronous standby had everything from.
// Being ahead means that it has what no client was told of.
func (s *State) formerLeader(p events.Peer) bool {
	k := s.view().Sync
	return s.syncActive() && sameName(k.Leader, p.Name) && hasName(k.Standbys, s.Self) && s.behind(p)
}

// behind reports whether the peer has WAL that this member lacks.
func (s *State) behind(p events.Peer) bool {
	return p.Position > s.position() && p.Timeline >= s.pg().Timeline
}

// comebackWait is how long a race waits for a member whose agent answers, and whose
// PostgreSQL is down with more WAL than anybody's: a former primary that is being
// started as a standby would lose what it acknowledged, for a fraction of a second.
func (s *State) comebackWait() time.Duration { return max(s.Settings.TTL, 5*time.Second) }

// outranked tells whether a peer with the same position goes first: by
// failover_priority, then by name.
func (s *State) outranked() (bool, string) {
	for _, p := range s.Race.Peers {
		if !p.Reachable || p.Primary || !p.MayLead() || s.outsider(p.Name) || p.Position != s.position() || p.Timeline != s.pg().Timeline {
			continue
		}
		if s.unfit(p.Name) && s.Unfit.Count == 0 {
			continue
		}
		order := cmp.Or(
			cmp.Compare(s.Unfit.Count, 0), // whoever failed lets the others go first
			cmp.Compare(p.Tags.FailoverPriority, s.Settings.Tags.FailoverPriority),
			cmp.Compare(s.Self, p.Name),
		)
		if order > 0 && s.wish().Candidate != s.Self {
			return true, fmt.Sprintf("%s has the same position and goes first", p.Name)
		}
	}
	return false, "no peer of equal position goes first"
}

// answerWish empties the request key after a race, whoever was wished for: left
// standing, it would depose the winner as soon as it leads.
func (e *effects) answerWish() {
	f := e.view().Failover
	if !f.Pending() || f.ScheduledAt != "" {
		return
	}
	e.Store.Answered = f.Version
	e.once(ClearFailover{Version: f.Version})
}

func raceStatus(s *State) string {
	if s.Race.Verdict != "" {
		return "following a different leader because i am not the healthiest node"
	}
	return "comparing with the other members"
}

// candidates are the members that could take over, best first, by what they have
// published and, if connected, by what they have flushed. In synchronous mode they are
// those that have all that was acknowledged.
func (s *State) candidates(standbys []events.StandbyState) []events.NodeName {
	return slices.DeleteFunc(s.able(standbys), s.outsider)
}

// able are the candidates whatever synchronous mode says, which an operator's failover
// may choose from.
func (s *State) able(standbys []events.StandbyState) []events.NodeName {
	type ranked struct {
		name     events.NodeName
		unfit    bool
		at       events.LSN
		priority int
	}
	var list []ranked
	for _, m := range s.view().Members {
		if m.Name == s.Self || m.APIURL == "" || m.Tags.NoFailover || m.Barred != "" || m.IsPrimary() {
			continue
		}
		at, running := m.XLogLocation, m.State == "running"
		for _, st := range standbys {
			if st.Name == m.Name {
				// What its walreceiver says is newer than what it has published.
				at, running = max(at, st.Flushed), true
			}
		}
		if !running {
			continue
		}
		if int64(s.view().Status.Optime)-int64(at) > s.Settings.MaximumLagOnFailover {
			continue
		}
		list = append(list, ranked{m.Name, m.Unfit != "", at, m.Tags.FailoverPriority})
	}
	slices.SortFunc(list, func(a, b ranked) int {
		if a.unfit != b.unfit {
			return map[bool]int{true: 1, false: -1}[a.unfit]
		}
		return cmp.Or(cmp.Compare(b.at, a.at), cmp.Compare(b.priority, a.priority), cmp.Compare(a.name, b.name))
	})
	out := make([]events.NodeName, len(list))
	for i, r := range list {
		out[i] = r.name
	}
	return out
}
