package fsm

import (
	"time"

	"github.com/pgregent/regent/events"
)

// beliefEnd is D: the instant until which this member may act as the holder, by its lease or
// by what all others have promised (S12). Zero with neither.
func (s *State) beliefEnd() events.Instant {
	end := s.leaseEnd()
	if s.holds() {
		end = max(end, s.Failsafe.Until)
	}
	if end == 0 {
		return 0
	}
	return s.Move.earlier(s.Now, end)
}

// leaseEnd is until when the lease may be believed, counted from before the last confirmed
// renewal left (S6). Zero without a lease.
func (s *State) leaseEnd() events.Instant {
	if s.Lease.ID == "" || s.Lease.Sent == 0 {
		return 0
	}
	end := s.Lease.Sent.Add(events.Belief(s.Lease.trust()))
	if next := s.Lease.Next; next != nil && s.Lease.Moving {
		// The leader key may hang on either.
		end = min(end, next.Sent.Add(events.Belief(next.trust())))
	}
	return end
}

// trust is how much of the lease's ttl counts.
func (l *Lease) trust() time.Duration {
	if l.Trust == 0 {
		return l.TTL
	}
	return l.Trust
}

// budget is B: how long before D the server is being stopped (S2).
func (s *State) budget() time.Duration {
	if s.Lease.ID == "" {
		return events.StopBudget(s.Settings.TTL) // under promises alone (S12)
	}
	return events.StopBudget(s.Lease.trust())
}

// fenceAt is D−B, after which this member must not act as holder any more.
func (s *State) fenceAt() events.Instant { return s.beliefEnd().Add(-s.budget()) }

// holds reports whether the leader key is this member's, as far as the store's
// last answer goes. Acting as holder takes believes() as well.
func (s *State) holds() bool { return s.Holder.Revision != 0 }

// believes reports whether this member may act as holder now.
func (s *State) believes() bool { return s.holds() && s.Now.Before(s.fenceAt()) }

// Leads is believes, for readers outside the machine, at a time of theirs.
func (s *State) Leads(now events.Instant) bool { return s.holds() && now.Before(s.beliefEnd()) }

// BeliefEnd is beliefEnd for readers outside the machine.
func (s *State) BeliefEnd() events.Instant { return s.beliefEnd() }

// Believable reports whether an action that needs the lease may still begin.
func (s *State) fence() Fence {
	return Fence{Revision: s.Holder.Revision, Deadline: s.beliefEnd(), Budget: s.budget(), Config: s.Pause.Armable}
}

// gain records that the leader key is this member's at that revision.
func (s *State) gain(rev events.Revision) {
	if s.Holder.Revision == rev {
		return
	}
	if !s.holds() {
		s.unvouched(rev)
	}
	s.Holder = Holder{Revision: rev, Since: s.Now}
	s.floor(rev)
}

// floor makes views older than this member's own write to the leader key past.
func (s *State) floor(rev events.Revision) {
	if rev > s.Store.Floor {
		s.Store.Floor, s.Store.FloorAt = rev, s.Now
	}
}

// lose records that the leader key is not this member's any more.
func (s *State) lose(cause events.LossCause) {
	s.Lease.Leads = false
	if s.holds() {
		s.Holder = Holder{Lost: cause}
		s.unvouched(0)
	}
}

// reconcileHolder holds the belief about the leader key against the last view and
// the last renewal. A key that names this member makes it the holder only after a
// renewal has confirmed, linearizably, that the key hangs on its lease (S8, S15).
func (s *State) reconcileHolder() {
	l := s.leader()
	mine := l.Name == s.Self && l.Lease == s.Lease.ID && s.Lease.ID != ""
	taken, _ := s.syncTaken()
	switch {
	case !s.Store.Known || s.Store.View.Revision < s.Store.Floor:
	case mine && s.Lease.Leads && !s.holds() && s.Store.Read != 0 && !s.unclaimedMove():
		s.gain(l.Version)
	case s.holds() && l.Locked() && l.Name != s.Self:
		s.lose(events.LossTaken)
	case s.holds() && !l.Locked() && taken: // deleted by hand, and somebody has led since
		s.lose(events.LossRefused)
	case s.holds() && l.Name == s.Self && l.Lease != s.Lease.ID && s.Lease.Next == nil && !s.outlived():
		s.lose(events.LossRefused)
	}
}

// outlived: the view shows the leader key on a lease of ours that is known to be gone, and the
// leadership has outlived that by promises: the key is gone as well, and is taken back (S12).
func (s *State) outlived() bool {
	l := s.leader()
	return s.vouched() && l.Name == s.Self && l.Lease == s.Lease.Void
}

// claimed reports whether the leader key names this member under a lease that may
// still exist, and that remains to be confirmed by a renewal.
func (s *State) claimed() bool {
	l := s.leader()
	return l.Name == s.Self && !s.holds() && l.Lease != "" && l.Lease != s.Lease.Void
}

// unsure reports whether the leader key names this member and it is being found out
// whether that still holds. Nothing is decided on such a view.
func (s *State) unsure() (bool, string) {
	l := s.leader()
	switch {
	case l.Name != s.Self || s.holds():
		return false, "the leader key doesn't name us, or is ours"
	case s.adoptable():
		return true, "the leader key names us; its lease is being confirmed, and the keeper's deadline stands"
	case s.Store.DownSince != 0:
		return false, "the store doesn't answer, so the leader key can't be confirmed as ours"
	case s.Store.View.Revision < s.Store.Floor:
		return true, "the leader key was given up, and what became of it is being read"
	case s.claimed() && !s.remembered():
		return true, "the leader key names this member under a lease that this agent never had: another host may have " +
			"the same name; waiting for the end of that lease"
	case s.claimed():
		return true, "the leader key names us; its lease is being confirmed"
	case s.InFlight(RefreshView{}):
		return true, "the lease of the leader key is gone, and the key with it; looking who leads now"
	default:
		return false, "the leader key's lease is gone"
	}
}

// adoptable: a restarted agent has found the primary that its predecessor armed. Until
// the keeper's deadline comes there is time to confirm the lease, answer or not (S10).
func (s *State) adoptable() bool {
	return s.Phase == Joining && s.claimed() && s.Keeper.Armed && s.Now < s.Keeper.Sent
}

// lookAgain reads the store if only that can end being unsure.
func (e *effects) lookAgain() {
	if e.Store.View.Revision < e.Store.Floor {
		e.refresh()
	}
}

// renewEvery is the renewal's own cadence (S7). A lease that carries nothing but the
// member's key has no writes to protect: half the renewals will do, and a replica costs
// the store half as much.
func (s *State) renewEvery() time.Duration {
	share := events.Belief(s.Lease.trust()) / 4
	if !s.holds() && s.leader().Name != s.Self {
		share *= 2
	}
	return min(s.Settings.LoopWait, share)
}

// renewAt is when the next renewal is due.
func (s *State) renewAt() events.Instant {
	if s.Lease.ID == "" {
		if !s.orphaned() || s.Lease.Tried == 0 {
			return 0
		}
		return s.Lease.Tried.Add(events.Belief(s.Settings.TTL) / 16)
	}
	if s.Lease.Failures > 0 {
		return s.Lease.Tried.Add(events.Belief(s.Lease.trust()) / 16)
	}
	return s.Lease.Sent.Add(s.renewEvery())
}

// mustHold are the rules of every phase that is safe only under the lease.
func mustHold(applies func(s *State) bool) []rule {
	return []rule{
		{
			id: "leadership-lost", trigger: LeadershipLost,
			when: func(s *State) (bool, string) {
				switch {
				case !applies(s):
					return false, "the lease isn't needed yet"
				case s.holds():
					return false, "the leader key is ours"
				case s.Holder.Lost == "":
					return true, "the leader key is not ours"
				case s.Holder.Lost == events.LossTaken:
					return true, "another member holds the leader key: " + string(s.leader().Name)
				default:
					return true, "the store says that the lease is not ours (" + string(s.Holder.Lost) + ")"
				}
			},
			do: func(e *effects) {
				e.beginDemotion(DemoteWork{Why: "leadership lost: " + orNone(string(e.Holder.Lost)), Mode: "immediate"})
			},
			status: func(s *State) string {
				if s.Holder.Lost == events.LossTaken {
					return "demoting self because I do not have the lock and I was a leader"
				}
				return "demoted self because failed to update leader lock in DCS"
			},
		},
		{
			id: "belief-ending", trigger: BeliefEnding,
			when: func(s *State) (bool, string) {
				if !applies(s) || s.believes() {
					return false, "the belief's end is far enough"
				}
				return true, s.unconfirmed()
			},
			do: func(e *effects) {
				mode := "fast"
				if e.Now >= e.beliefEnd() {
					mode = "immediate" // a freeze has eaten the budget (S24)
				}
				e.beginDemotion(DemoteWork{Why: "the store did not confirm the lease in time", Mode: mode, Offer: true})
			},
			status: func(*State) string {
				return "demoted self because DCS is not accessible and I was a leader"
			},
		},
	}
}
