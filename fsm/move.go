package fsm

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/regent/events"
)

// Moving the cluster to another store while it runs. ADR 0024 has the protocol and the
// schedule that shows why it gives no second primary; its rules M1 to M3 are cited here.

// MoveWork is this member's part in a move.
type MoveWork struct {
	// Epoch of the move that the rest is about; empty: none.
	Epoch string `json:"epoch,omitempty"`
	// Reached: the target was opened and read.
	Reached bool `json:"reached,omitempty"`
	// Lease, TTL and Sent are this member's lease in the target, as in Lease.
	Lease events.LeaseID `json:"lease,omitempty"`
	TTL   time.Duration  `json:"ttl,omitempty"`
	Sent  events.Instant `json:"sent,omitempty"`
	Tried events.Instant `json:"tried,omitempty"`
	// Copied is the version of the target's config key as copied; Config and Sync are those
	// of the keys that it was copied from.
	Copied events.Revision `json:"copied,omitempty"`
	Config events.Revision `json:"config,omitempty"`
	Sync   events.Revision `json:"sync,omitempty"`
	// Leads: the target's leader key hangs on the lease there, so the belief ends with the
	// earlier of the two leases (M2).
	Leads bool `json:"leads,omitempty"`
	// Switch is the version of the config key at which the switch was sent; 0: it wasn't,
	// or it is known not to have happened. Unsure: it may be under way still.
	Switch events.Revision `json:"switch,omitempty"`
	Unsure bool            `json:"unsure,omitempty"`
	// Switched: the target decides. Changed: the run's end was ordered.
	Switched bool `json:"switched,omitempty"`
	Changed  bool `json:"changed,omitempty"`
	// RetryAt holds back the next attempt after one that failed; Why is what failed.
	RetryAt events.Instant `json:"retry_at,omitempty"`
	Why     string         `json:"why,omitempty"`
}

// end is until when the lease in the target may be acted under.
func (m *MoveWork) end() events.Instant { return m.Sent.Add(events.Belief(m.TTL)) }

// fresh: the lease in the target is good for more than being let go in time.
func (m *MoveWork) fresh(now events.Instant) bool {
	return m.Lease != "" && now < m.end().Add(-2*events.StopBudget(m.TTL))
}

// sent: the target decides, or may decide by now, whatever the last view says.
func (m *MoveWork) sent() bool { return m.Switch != 0 || m.Switched }

// earlier bounds the belief by the lease in the target (M2). One that is about to end
// binds only if the target may decide by now; else it is let go, and nobody is demoted.
func (m *MoveWork) earlier(now, end events.Instant) events.Instant {
	if m.sent() || m.Leads && m.fresh(now) {
		return min(end, m.end())
	}
	return end
}

// moveBars says why nobody may take the leader key because of a move; empty: none does.
func (s *State) moveBars() string {
	switch m := s.view().Move; {
	case m == nil || m.Is(events.MoveSettled):
		return ""
	case m.Is(events.MoveBoth):
		return "the cluster is being moved to another store"
	case m.Is(events.MoveTarget):
		return "the cluster has been moved to another store: " + m.To
	case m.Is(events.MoveIncoming):
		return "this store is the target of a move that has not ended"
	default:
		return fmt.Sprintf("the config key speaks of a move in the phase %q, which this version doesn't know", m.Phase)
	}
}

// acquire takes the leader key, unless a move bars that, if what this member's eligibility rests
// on still holds. The guard on the config key keeps out who has not heard of a move (M1), or of
// synchronous mode: a member that counts it as off goes by the settings in force.
func (e *effects) acquire() {
	if e.moveBars() != "" && !(e.holds() && e.view().Move.Is(events.MoveBoth)) {
		return
	}
	if e.failsafeBars() != "" && !e.holds() && !e.Keeper.Armed && e.Phase != Bootstrapping {
		return // a primary whose deadline stands is the one that was promised to, if any was
	}
	config := e.view().Config.Stored()
	if e.view().Sync.Leader != "" && !e.Settings.Sync {
		config = e.Settings.ConfigVersion
	}
	e.once(AcquireLeader{Lease: e.Lease.ID, Sync: e.view().Sync.Version, Config: config, Failsafe: e.view().Failsafe.Version})
}

// unclaimedMove: a former run of this agent may have sent the switch. Until the claim of
// this run has changed the config key, so that the switch is refused, the leader key isn't
// believed to be ours.
func (s *State) unclaimedMove() bool {
	m := s.view().Move
	return m.Is(events.MoveTarget) || m.Is(events.MoveBoth) && m.By == s.Self && m.Run != s.Run
}

// Newest is the highest revision of this store that this member has heard of. The keeper
// goes by revisions, and those of the next store begin anywhere.
func (s *State) Newest() events.Revision {
	return max(s.Store.View.Revision, s.Store.Floor, s.Settings.ConfigVersion, s.Pause.Armable, s.Holder.Revision)
}

// keepMove carries this member's part in a move out.
func (e *effects) keepMove() {
	t := e.view().Move
	switch {
	case e.Move.Changed:
	case !e.Store.Known:
		// A former run was on the way. If the store doesn't come back, the target may know.
		if e.Move.Switched {
			e.changeStore()
		} else if e.Move.Epoch != "" && e.Store.DownSince != 0 && e.Now >= e.Move.RetryAt {
			e.once(OpenTarget{Epoch: e.Move.Epoch})
		}
	case t.Is(events.MoveTarget):
		e.Move.Epoch, e.Move.Switched = t.Epoch, true
		e.changeStore()
	case t.Is(events.MoveBoth):
		if t.Epoch != e.Move.Epoch {
			e.Move = MoveWork{Epoch: t.Epoch}
		}
		e.keepBoth(t)
	default:
		if t.Is(events.MoveIncoming) && t.Epoch == e.Arrived {
			e.once(SettleMove{Config: e.view().Config.Stored()})
		}
		e.Move = MoveWork{}
	}
}

// keepBoth does what the phase "both" asks of this member.
func (e *effects) keepBoth(t *events.StoreMove) {
	m := &e.Move
	if m.Switch != 0 && e.view().Config.Stored() > m.Switch {
		m.Switch, m.Unsure = 0, false // config has changed, and says "both" still: it can't happen any more
	}
	switch {
	case m.Switched: // the view is older than the outcome
		e.changeStore()
		return
	case e.unlocked() && !e.holds() && e.Store.View.Revision >= e.Store.Floor:
		e.once(WithdrawMove{Config: e.view().Config.Stored()})
	case e.unclaimedMove() && e.Lease.ID != "" && e.leader().Lease == e.Lease.ID:
		e.once(ClaimMove{Config: e.view().Config.Stored(), Lease: e.Lease.ID})
	}
	if e.holds() {
		e.keepTarget()
	} else {
		m.Leads = false // PostgreSQL is no primary any more, or is being stopped
	}
	silent := e.Store.DownSince != 0
	switch {
	case e.Now < m.RetryAt:
	case !m.Reached || silent && m.Switch == 0:
		// While the old store is silent the target may know that the move has ended.
		e.once(OpenTarget{Epoch: m.Epoch})
	case e.Phase == Leading && e.believes() && e.primaryUp() && !e.busy() && !silent && e.Shutdown == "":
		e.bringOver(t)
	}
}

// keepTarget renews the lease in the target, and lets the target go before it would cost
// the leadership, as long as the switch was not sent.
func (e *effects) keepTarget() {
	m := &e.Move
	if m.Lease == "" {
		return
	}
	if m.Leads && !m.sent() && !m.fresh(e.Now) {
		m.Leads, m.Why = false, "the target didn't confirm its lease in time"
		e.extendFence()
	}
	if e.Now >= m.renewAt() && !e.InFlight(RenewTarget{}) {
		m.Tried = e.Now
		e.order(RenewTarget{Lease: m.Lease, Timeout: events.Belief(m.TTL) / 8})
	}
}

// renewAt is when the lease in the target is to be renewed; 0: there is none.
func (m *MoveWork) renewAt() events.Instant {
	switch {
	case m.Lease == "":
		return 0
	case m.Tried > m.Sent:
		return m.Tried.Add(events.Belief(m.TTL) / 16)
	default:
		return m.Sent.Add(events.Belief(m.TTL) / 4)
	}
}

// bringOver is the holder's next step.
func (e *effects) bringOver(t *events.StoreMove) {
	m, v := &e.Move, e.view()
	stale := m.Copied == 0 || m.Config != v.Config.Stored() || m.Sync != v.Sync.Version
	switch {
	case t.By != e.Self || t.Run != e.Run:
		e.once(ClaimMove{Config: v.Config.Stored(), Lease: e.Lease.ID})
	case m.Switch != 0:
		e.switchStore() // unless it is under way
	case e.moveWaits() != "":
	case m.Lease == "":
		e.once(GrantTarget{TTL: e.Settings.TTL})
	case stale:
		if !e.InFlight(AcquireTarget{}) {
			m.Config, m.Sync, m.Copied = v.Config.Stored(), v.Sync.Version, 0
			e.once(CopyTarget{Epoch: m.Epoch, Config: m.Config, Sync: m.Sync})
		}
	case !m.Leads:
		if m.fresh(e.Now) {
			e.once(AcquireTarget{Lease: m.Lease, Config: m.Copied})
		}
	case m.fresh(e.Now) && !e.InFlight(CopyTarget{}) && (!e.Keeper.Armed || e.Keeper.Sent <= m.end()):
		// A deadline that the keeper was given before can't be taken back.
		e.switchStore()
	}
}

// switchStore writes that the target decides. From here on both leases bind until it is
// known what came of it.
func (e *effects) switchStore() {
	e.once(SwitchStore{Lease: e.Lease.ID, Config: e.Move.Config, Sync: e.Move.Sync})
	if e.InFlight(SwitchStore{}) {
		e.Move.Switch = e.Move.Config
	}
}

// moveWaits says what the holder's part in a move waits for; empty: nothing.
func (s *State) moveWaits() string {
	v := s.view()
	switch {
	case s.Settings.Pause:
		return "maintenance mode is on"
	case v.Sync.Leader != "" || s.Settings.Sync:
		return "synchronous mode is on"
	case v.Failover.Pending():
		return "an operator asked for another leader"
	case s.Lease.Next != nil:
		return "the ttl is being changed"
	}
	for _, n := range v.Move.Members {
		if _, ok := v.Member(n); !ok {
			return fmt.Sprintf("%s is silent", n)
		}
	}
	for _, m := range v.Members {
		switch {
		case m.Regent == "":
			return fmt.Sprintf("%s is a Patroni, which can't be moved", m.Name)
		case m.Move != v.Move.Epoch:
			return fmt.Sprintf("%s has not reached the target yet", m.Name)
		}
	}
	return ""
}

// changeStore ends this run, so that the next one works on the target, when nothing is
// under way that it would cut in two.
func (e *effects) changeStore() {
	switch {
	case e.Move.Changed || e.busy() || e.Shutdown != "":
	case slices.Contains([]Phase{Demoting, Stopping, Stopped, Promoting}, e.Phase):
	default:
		e.Move.Changed = true
		e.order(ChangeStore{Epoch: e.Move.Epoch})
	}
}

// outcomeMoving: a part of a move has ended.
func (e *effects) outcomeMoving(ev events.ActionFinished) {
	m, done := &e.Move, ev.Class == events.Done
	if done {
		m.Why = ""
	} else {
		m.Why = ev.Why
	}
	if !done && ev.Action != (RenewTarget{}).Kind() {
		m.RetryAt = e.Now.Add(e.Settings.LoopWait / 2)
	}
	switch ev.Action {
	case OpenTarget{}.Kind():
		switch {
		case done && ev.Result.Held:
			m.Switched = true
		case done:
			m.Reached = true
			if e.Store.DownSince != 0 {
				m.RetryAt = e.Now.Add(e.Settings.LoopWait / 2)
			}
		}
	case GrantTarget{}.Kind():
		if done {
			m.Lease, m.TTL = ev.Result.Lease, min(ev.Result.TTL, e.Settings.TTL)
			m.Sent, m.Tried = ev.Result.SentAt, ev.Result.SentAt
		}
	case RenewTarget{}.Kind():
		e.outcomeRenewTarget(ev)
	case CopyTarget{}.Kind():
		if done {
			m.Copied = ev.Result.Revision
		} else {
			e.refresh()
		}
	case AcquireTarget{}.Kind():
		switch {
		case done:
			m.Leads = m.fresh(e.Now) && e.holds()
		default:
			m.Copied = 0 // somebody else's copy, or it is ours already: the next renewal tells
		}
	case SwitchStore{}.Kind():
		e.outcomeSwitch(ev)
	case ClaimMove{}.Kind(), WithdrawMove{}.Kind(), SettleMove{}.Kind():
		e.refresh()
	}
}

// outcomeRenewTarget: a lease that is gone binds no longer, unless the switch may have
// happened: then others may lead now.
func (e *effects) outcomeRenewTarget(ev events.ActionFinished) {
	m := &e.Move
	switch {
	case ev.Class == events.Done:
		m.Sent = max(m.Sent, ev.Result.SentAt)
		m.Leads = ev.Result.Held && m.fresh(e.Now) && e.holds()
	case ev.Class != events.Refused:
	case m.sent():
		m.Sent = 1
	default:
		m.Lease, m.Leads, m.Copied = "", false, 0
		e.extendFence()
	}
}

// outcomeSwitch: the switch has happened, or not, or nobody knows. One that was refused has
// not happened, unless another one was on its way before it.
func (e *effects) outcomeSwitch(ev events.ActionFinished) {
	m := &e.Move
	switch {
	case ev.Class == events.Done:
		m.Switched = true
	case ev.Class == events.Unknown:
		m.Unsure = true
		e.refresh()
	default:
		if !m.Unsure {
			m.Switch, m.Copied = 0, 0
		}
		e.refresh()
	}
}
