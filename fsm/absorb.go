package fsm

import (
	"slices"

	"github.com/pgregent/regent/events"
)

// absorb takes one fact into the state. It decides nothing.
func absorb(e *effects) {
	switch ev := e.entry.Event.(type) {
	case events.AgentStarted:
		absorbStart(e.State, ev)
	case events.Tick, events.TimerFired, events.Reconsider:
		// Time is all they bring, and it has been taken in. A timer that fired is gone.
		e.Timer = SetTimer{}
	case events.TimeJumped:
		// Instants go on through a suspend, so every deadline has moved with the
		// time. What was read before the jump is old, and read again (S24).
		e.order(RefreshView{})
		e.NextTick = e.Now
		e.staleRace()
	case events.JournalDegraded:
		e.Journal = ev.Why
	case events.ShutdownRequested:
		e.Shutdown = ev.By
	case events.ClusterObserved:
		absorbCluster(e, ev)
	case events.DCSUnavailable:
		if e.Store.DownSince == 0 {
			e.Store.DownSince = e.Now
		}
		e.Store.Why = ev.Why
	case events.DCSRestored:
		e.Store.DownSince, e.Store.Why = 0, ""
		e.once(RefreshView{})
	case events.LeaseAcquired, events.LeaseRenewed, events.RenewalFailed, events.LeaseLost:
		absorbLease(e)
	case events.PostgresObserved, events.PostgresUp, events.PostgresDown, events.UnexpectedPrimary,
		events.CleanShutdown, events.WalReceiverEnded, events.SyncLost:
		absorbPostgres(e)
	case events.KeeperLost, events.KeeperFound, events.FenceBegun:
		absorbKeeper(e)
	case events.PrimaryStartTimeout:
		e.Timer = SetTimer{}
		e.Revive.TimedOut = e.Phase == Reviving && e.Now >= e.Revive.Deadline
	case events.PeerObserved:
		if ev.ID == e.Race.Probe && !ev.ID.Zero() {
			e.Race.Peers = append(slices.Clone(e.Race.Peers), ev.Peer)
		}
	case events.FailsafeAsked:
		e.absorbAsked(ev)
	case events.FailsafeAnswered:
		e.absorbAnswer(ev)
	case events.SwitchoverRequested, events.FailoverRequested, events.RestartRequested,
		events.RestartWithdrawn, events.ReinitRequested:
		absorbRequest(e)
	case events.PauseChanged:
		set := e.Settings
		set.Pause, set.ConfigVersion = ev.Paused, max(set.ConfigVersion, ev.Revision)
		e.adjust(set)
	case events.ConfigChanged:
		e.adjust(ev.Settings)
	case events.ActionFinished:
		absorbOutcome(e, ev)
	default:
		e.Defects++ // a kind that nobody has decided about; the report finds it
	}
	if e.Timer.At <= e.Now {
		e.Timer = SetTimer{}
	}
}

// absorbStart begins a run. Of the former run only what would make loops if it
// were forgotten is kept (S21); every lease belief and every running action is
// void (S10, S20), and the world is observed anew.
func absorbStart(s *State, ev events.AgentStarted) {
	old := *s
	*s = State{
		Schema: StateSchema, Seq: old.Seq, Now: old.Now, Wall: old.Wall, Boot: ev.Boot,
		Self: ev.Node, Scope: ev.Scope, Version: ev.Version, Settings: ev.Settings,
		Phase: Init, Since: old.Now, NextTick: old.Now,
		Rejoin: old.Rejoin, Revive: old.Revive, Slots: old.Slots, Defects: old.Defects,
		Schedule: old.Schedule, Unfit: old.Unfit, Run: ev.Run, Arrived: ev.Arrived,
	}
	if old.Move.Epoch != ev.Arrived {
		s.Move.Epoch = old.Move.Epoch
	}
	s.Pause.Left = old.Pause.Left
	s.Failsafe = old.Failsafe.begun(s.Now, old.Boot == ev.Boot, old.Vouches())
	s.Store.ResumedAt = s.Now // nobody knows how long ago it was (S11)
	if ev.Settings.Pause {
		s.Pause.Since = s.Now
	}
	if ev.Boot != old.Boot {
		s.Unfit.Until = 0
	}
	s.Rejoin.Stage, s.Rejoin.Verdict, s.Rejoin.Unanswered, s.Rejoin.JudgeAfter = "", nil, 0, 0
	s.Revive.RetryAt = 0
	s.Lease.Former = old.Lease.all()
	if old.Move.Lease != "" {
		s.Lease.Former = append(s.Lease.Former, old.Move.Lease)
	}
	if ev.Boot != old.Boot {
		s.Lease.Former = nil // a copy of the machine would remember them too
		// Instants of another boot mean nothing (S9).
		s.Rejoin.NotBefore, s.Slots, s.Revive = 0, nil, ReviveWork{}
	}
}

func absorbCluster(e *effects, ev events.ClusterObserved) {
	v := ev.View
	e.confirmPause(v, ev.Read)
	if older := e.Store.Known && v.Revision < e.Store.View.Revision; older || v.Revision < e.Store.Floor {
		// A watch never goes back, and a read that was sent before the newer view came
		// was merely overtaken. A read sent since then can only be older if the
		// store's content was restored from a backup.
		if ev.Read <= max(e.Store.At, e.Store.FloorAt) {
			e.noteRead(ev.Read)
			return
		}
		e.Store.Floor = 0
	}
	old := e.leader()
	e.noteLeft(e.view(), v)
	if f := v.Failover; f.Pending() && f.Version != e.view().Failover.Version {
		e.Store.AskedAt = e.Now
	}
	e.Store.View, e.Store.At, e.Store.Known = v, e.Now, true
	e.noteRead(ev.Read)
	if l := v.Leader; l.Name != old.Name || l.Version != old.Version || e.Store.LeaderSince == 0 {
		e.Store.LeaderSince = e.Now
	}
	e.reconcileHolder()
	e.noteGone()
}

// noteRead notes that a linearizable read, sent then, was answered.
func (s *State) noteRead(sent events.Instant) {
	if sent != 0 {
		s.Store.Read = max(s.Store.Read, sent)
		s.Store.DownSince, s.Store.Why, s.Store.RetryAt = 0, "", 0
	}
}

// noteGone remembers since when the bootstrapper's member key is missing (S17).
func (s *State) noteGone() {
	by := s.view().Initialize.By
	var gone []MemberGone
	if by != "" && s.view().Initialize.SystemID == "" {
		if _, alive := s.view().Member(by); !alive {
			at := s.Now
			for _, g := range s.Gone {
				if g.Name == by {
					at = g.At
				}
			}
			gone = []MemberGone{{Name: by, At: at}}
		}
	}
	s.Gone = gone
}

func absorbLease(e *effects) {
	switch ev := e.entry.Event.(type) {
	case events.LeaseAcquired:
		if !e.landed(ev.ID, AcquireLeader{}.Kind()) {
			return
		}
		e.gain(ev.Revision)
		e.confirmed()
		e.Lease.Leads = true
		e.once(RefreshView{})
	case events.LeaseRenewed:
		absorbRenewal(e, ev)
	case events.RenewalFailed:
		if e.landed(ev.ID, RenewLease{}.Kind()) {
			e.Lease.Failures++
		}
	case events.LeaseLost:
		e.Timer = SetTimer{}
		switch ev.Cause {
		case events.LossRefused:
			absorbLeaseGone(e, ev.Lease)
		case events.LossTaken:
			e.lose(ev.Cause)
			e.once(RefreshView{})
		case events.LossExpired:
			// The clock says so to every rule; the event is for the record.
		}
	}
}

// absorbLeaseGone: the store says that the lease does not exist any more.
func absorbLeaseGone(e *effects, gone events.LeaseID) {
	e.Flight = slices.DeleteFunc(slices.Clone(e.Flight), func(f Flight) bool { return f.Kind == RenewLease{}.Kind() })
	if gone == e.Lease.ID {
		if !e.vouched() {
			e.lose(events.LossRefused)
		}
		e.Lease = Lease{Void: gone}
		e.Publish = Published{}
	} else {
		e.Lease.Void = gone
	}
	e.once(RefreshView{})
}

func absorbRenewal(e *effects, ev events.LeaseRenewed) {
	if !e.landed(ev.ID, RenewLease{}.Kind()) {
		return
	}
	if ev.Lease != e.Lease.ID {
		// The lease of a former run, adopted from the leader key (S10).
		e.Lease = Lease{ID: ev.Lease, Asked: ev.TTL}
	}
	if ev.SentAt < e.Lease.Sent {
		return
	}
	e.Lease.Sent, e.Lease.TTL, e.Lease.Failures = ev.SentAt, ev.TTL, 0
	e.Lease.Trust = min(ev.TTL, e.Settings.TTL)
	leads := slices.Contains(ev.Keys, "leader")
	switch {
	case leads:
		e.Lease.Leads = true
		e.confirmed()
	case ev.SentAt >= e.Holder.Since && e.Lease.Next == nil:
		e.Lease.Leads = false
		if e.holds() && e.leader().Locked() && !e.outlived() {
			e.lose(events.LossRefused)
		}
	}
	e.reconcileHolder()
	if leads && !e.holds() {
		e.once(RefreshView{})
	}
	if e.believes() && e.Keeper.Armed {
		e.extendFence()
	}
}

func absorbKeeper(e *effects) {
	switch ev := e.entry.Event.(type) {
	case events.KeeperLost:
		e.Keeper = Keeper{Why: ev.Why}
		e.order(ObservePostgres{})
	case events.KeeperFound:
		e.Keeper = Keeper{Up: true, Armed: ev.Armed, Adopted: ev.Adopted, Sent: ev.Deadline}
		e.waived(ev)
		if ev.Armed {
			// Only this member's agent has it armed: the server was made writable by us.
			e.Postgres.Promoted = true
		} else if ev.PID != 0 && e.believes() && e.Postgres.Promoted {
			// A new keeper found our primary unarmed: its predecessor died (S4).
			e.arm()
		}
	case events.FenceBegun:
		e.Keeper.Fencing = true
	}
}

func absorbRequest(e *effects) {
	var r Request
	switch ev := e.entry.Event.(type) {
	case events.SwitchoverRequested:
		r = Request{ID: ev.ID, Kind: "switchover", From: ev.From, To: ev.To}
		r.Written = e.order(RequestFailover{From: ev.From, To: ev.To, At: ev.ScheduledAt})
	case events.FailoverRequested:
		r = Request{ID: ev.ID, Kind: "failover", To: ev.To}
		r.Written = e.order(RequestFailover{To: ev.To})
	case events.RestartRequested:
		if ev.Schedule != nil {
			e.absorbSchedule()
			return
		}
		r = Request{ID: ev.ID, Kind: "restart", Timeout: ev.Timeout}
		if e.Startable() {
			r.Kind, r.At = "start", e.Now
		}
	case events.RestartWithdrawn:
		e.absorbSchedule()
		return
	case events.ReinitRequested:
		e.absorbReinit(ev)
		return
	}
	e.Requests = append(slices.Clone(e.Requests), r)
}

// landed takes an action out of flight, and reports whether it was there: an
// outcome that comes twice, or after its action was superseded, changes nothing.
func (e *effects) landed(id events.ActionID, kind string) bool {
	i := slices.IndexFunc(e.Flight, func(f Flight) bool { return f.ID == id && f.Kind == kind })
	if i < 0 {
		return false
	}
	e.drop(id)
	return true
}
