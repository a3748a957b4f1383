package fsm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/regent/events"
)

// upkeep keeps true what has to stay true in every phase: the lease renewed, the
// fence extended, the member key and the holder's keys fresh, the slots there. It
// never changes the phase, so it needs no trigger.
func upkeep(e *effects) {
	if e.Phase == Stopped {
		return
	}
	if e.Now >= e.NextTick {
		e.heartbeat()
	}
	e.keepLease()
	e.keepPause()
	e.keepMove()
	e.keepFailsafe()
	e.refuseRestarts()
	e.keepSyncLeave()
	if e.Phase == Stopping && e.Demote.Stage == "done" {
		return
	}
	e.keepMember()
	if e.Phase == Leading && e.believes() && e.primaryUp() {
		e.keepCluster()
		e.keepFailsafeKey()
		e.keepSlots()
	}
	e.keepLooking()
}

// refuseRestarts answers restarts that can't be made now: an operator who waits
// must not get one hours later.
func (e *effects) refuseRestarts() {
	for _, r := range slices.Clone(e.Requests) {
		switch {
		case r.Kind == "start":
			e.settleStart(r)
		case r.Kind != "restart" || r.ID == e.Restart.ID:
		case e.Phase == Restarting:
			e.settle(r.ID, false, "restart already in progress")
		case e.Phase == Leading && !e.restartable():
			e.settle(r.ID, false, "PostgreSQL can't be restarted as a primary without the leader key")
		case e.Phase != Leading && e.Phase != Following:
			e.settle(r.ID, false, fmt.Sprintf("PostgreSQL can't be restarted while the member is %s", e.Phase))
		}
	}
}

// heartbeat is what each loop_wait brings: a look at PostgreSQL, and one at the
// store while nothing is known of it.
func (e *effects) heartbeat() {
	e.NextTick = e.Now.Add(e.Settings.LoopWait)
	e.order(ObservePostgres{})
	if !e.Store.Known || e.Settings.Pause && e.Pause.Revision == 0 {
		e.refresh()
	}
	e.Publish.Position, e.Publish.Status = false, false // once a heartbeat, when they changed
}

// refresh reads the store, unless a read is under way or has just failed.
func (e *effects) refresh() { e.once(RefreshView{}) }

// orphaned: the leader key hangs on a lease of a former run, which is to be adopted
// before a lease of our own is asked for (S10).
func (s *State) orphaned() bool {
	return s.Store.Known && s.Lease.ID == "" && s.claimed() && s.remembered()
}

// remembered: it was this host that got the lease of the leader key, and not another one
// that was given the same name, by mistake or by copying a machine. The keeper knows, or
// the journal; when Patroni's agent made way for this one, the primary that it left.
func (s *State) remembered() bool {
	l := s.leader()
	if s.Keeper.Armed || slices.Contains(s.Lease.Former, l.Lease) || l.Lease == s.Lease.ID {
		return true
	}
	m, ok := s.view().Member(s.Self)
	return s.primaryUp() && (s.Settings.Pause || ok && m.Regent == "")
}

// all are the leases that the leader key may hang on.
func (l Lease) all() []events.LeaseID {
	ids := slices.Clone(l.Former)
	if l.ID != "" {
		ids = []events.LeaseID{l.ID}
	}
	if l.Next != nil {
		ids = append(ids, l.Next.ID)
	}
	return ids
}

// keepLease gets a lease, adopts that of a former run, and renews it in time.
func (e *effects) keepLease() {
	switch {
	case (e.Shutdown != "" || e.Phase == Stopping) && !e.holds():
		// The lease is about to be revoked.
	case e.orphaned():
		if !e.InFlight(RenewLease{}) && e.Now >= e.renewAt() {
			e.renew(e.leader().Lease, e.Settings.TTL)
		}
	case e.Lease.ID == "" && e.claimed() && !e.Postgres.Known:
		// Whether the lease of the leader key is ours shows when PostgreSQL is looked at.
	case e.Lease.ID == "" && e.Store.Read == 0:
		// A first view may be this node's own old copy, or empty. With a lease of our own
		// that of the leader key would not be adopted any more.
	case e.Lease.ID == "":
		if e.Store.Known && e.Now >= e.Lease.GrantAfter {
			e.once(GrantLease{TTL: e.Settings.TTL})
		}
	case e.renewDue() && !e.InFlight(RenewLease{}):
		e.renew(e.Lease.ID, e.Lease.trust())
	}
	if e.Lease.ID != "" {
		e.changeTTL()
	}
}

// renewDue: by the cadence, or at once when the leader key came to name this
// member under its lease and that needs confirming (S15).
func (s *State) renewDue() bool {
	l := s.leader()
	claimed := s.claimed() && l.Lease == s.Lease.ID && s.Store.View.Revision >= s.Store.Floor
	// Once for each time that the key changed: a view and a renewal may contradict
	// each other for a while, and the cadence will do then.
	return claimed && s.Lease.Tried < s.Store.LeaderSince || s.Now >= s.renewAt()
}

func (e *effects) renew(id events.LeaseID, ttl time.Duration) {
	e.Lease.Tried = e.Now
	e.order(RenewLease{Lease: id, Timeout: events.Belief(ttl) / 8})
}

// extendFence tells the keeper the new end of the belief, unless there is none to be
// told. While the deadline is being taken away, that comes first.
func (e *effects) extendFence() {
	f := e.fence()
	if !e.Keeper.Armed || e.InFlight(Disarm{}) {
		return
	}
	if f.Deadline <= e.Keeper.Sent && f.Revision == e.Keeper.Revision {
		return
	}
	e.Keeper.Sent, e.Keeper.Revision = f.Deadline, f.Revision
	e.order(ExtendFence{Fence: f})
}

// keepMember publishes the member key when anything but positions changed, and
// positions with the heartbeat.
func (e *effects) keepMember() {
	if e.Lease.ID == "" || e.Phase == Init || e.InFlight(PublishMember{}) || e.Now < e.Publish.Again ||
		e.claimed() && !e.remembered() {
		return
	}
	m := e.Member()
	last := e.Publish.Member
	compare := m
	if e.Publish.Position {
		// Positions not before the next heartbeat.
		compare.XLogLocation, compare.ReceiveLSN, compare.ReplayLSN = last.XLogLocation, last.ReceiveLSN, last.ReplayLSN
	}
	if e.Publish.Lease == e.Lease.ID && sameMember(compare, last) {
		return
	}
	e.Publish.Member, e.Publish.Lease, e.Publish.Position = m, e.Lease.ID, true
	e.order(PublishMember{Member: m})
}

// sameMember compares two member keys as they would be published.
func sameMember(a, b events.Member) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// keepCluster maintains the holder's keys.
func (e *effects) keepCluster() {
	v, p := e.view(), e.pg()
	if !v.Initialize.SystemID.Valid() && p.Data.SystemID.Valid() {
		e.once(WriteInitialize{SystemID: p.Data.SystemID, Version: v.Initialize.Version})
	}
	if v.Config.Version == 0 && e.Settings.BootstrapConfig != "" {
		e.once(WriteConfig{JSON: e.Settings.BootstrapConfig})
	}
	changed := p.Position != v.Status.Optime || !slices.Equal(e.retained(), v.Status.RetainSlots)
	if changed && e.Lease.ID != "" && !e.Publish.Status && p.Position != 0 && !e.InFlight(WriteStatus{}) {
		e.Publish.Status = true
		e.order(WriteStatus{
			Optime: p.Position, Lease: e.Lease.ID, Slots: e.slotPositions(), RetainSlots: e.retained(),
		})
	}
	if p.Timeline > 1 && v.History.Timeline() != p.Timeline {
		e.once(WriteHistory{Timeline: p.Timeline, Version: v.History.Version})
	}
	if p.Timeline > 1 && p.CheckpointTimeline < p.Timeline && e.Now >= e.Postgres.CheckpointAgain {
		e.once(Checkpoint{})
	}
	// What brought this member here has been answered, and is cleared until it is gone.
	if f := v.Failover; f.Pending() && f.Version == e.Store.Answered {
		e.once(ClearFailover{Version: f.Version})
	}
}

// keepLooking observes again soon while a standby ought to stream and doesn't,
// or a server is up and doesn't answer: the heartbeat may be ten seconds away. Nor may
// commits wait that long for a synchronous standby that is gone.
func (e *effects) keepLooking() {
	p := e.pg()
	waiting := e.Postgres.Known && p.Running && !e.busy() &&
		(!p.Ready || (p.InRecovery && !p.Streaming && e.otherLeads()) ||
			(p.Ready && !p.InRecovery && p.CheckpointTimeline < p.Timeline) || e.syncSeeks())
	switch {
	case !waiting:
		e.Postgres.Look = 0
	case e.Postgres.Look == 0:
		e.Postgres.Look = e.Now.Add(50 * time.Millisecond)
	case e.Now >= e.Postgres.Look:
		e.order(ObservePostgres{})
		most := time.Second
		if e.syncSeeks() {
			most = syncLook
		}
		e.Postgres.Look = e.Now.Add(min(max(100*time.Millisecond, e.phaseAge()/8), most))
	}
}

// wake arms the one timer at the nearest deadline ahead. Deadlines that have come
// were known to the rules of this step.
func (e *effects) wake() {
	var next SetTimer
	for _, d := range e.deadlines() {
		if d.At > e.Now && (next.At == 0 || d.At < next.At) {
			next = d
		}
	}
	if next.At != 0 && next != e.Timer {
		e.Timer = next
		e.order(next)
	}
}

// Names of deadlines that have events of their own.
const (
	TimerTick         = "tick"
	TimerBelief       = "belief"
	TimerStartTimeout = "primary_start_timeout"
)

// deadlines lists every instant at which a rule could come to another result.
func (s *State) deadlines() []SetTimer {
	if s.Phase == Stopped {
		return nil
	}
	d := []SetTimer{
		{TimerTick, s.NextTick},
		{"renew", s.renewAt()},
		{"grant", s.Lease.GrantAfter},
		{"look", s.Postgres.Look},
		{"slots", s.Postgres.SlotsAgain},
		{"publish", s.Publish.Again},
		{"read", s.Store.RetryAt},
		{"race", s.Race.RetryAt},
		{"rejoin", s.Rejoin.NotBefore},
		{"judge", s.Rejoin.JudgeAfter},
		{"restart", s.Revive.RetryAt},
		{"hand_off", s.Demote.Until},
		{"stop", s.Demote.RetryAt},
		{"resume", s.resumedEnd()},
		{"disarm", s.Keeper.DisarmAfter},
		{"unfit", s.Unfit.Until},
		{"sync", s.Sync.Again},
		{"leave_sync", s.Sync.LeaveUntil},
		{"move", s.Move.RetryAt},
		{"target", s.Move.renewAt()},
	}
	d = append(d, s.failsafeDeadlines()...)
	if s.Phase == Starting && s.Rejoin.Stage == "start-alone" {
		d = append(d, SetTimer{"alone", s.Since.Add(aloneGrace)})
	}
	if s.holds() {
		d = append(d, SetTimer{TimerBelief, s.fenceAt()})
	}
	if s.Move.Leads {
		d = append(d, SetTimer{"target_ending", s.Move.end().Add(-2 * events.StopBudget(s.Move.TTL))})
	}
	if s.Phase == Init {
		d = append(d, SetTimer{"init", s.Since.Add(s.Settings.TTL)})
	}
	if s.adoptable() {
		d = append(d, SetTimer{"keeper", s.Keeper.Sent})
	}
	if s.Phase == Reviving {
		d = append(d, SetTimer{TimerStartTimeout, s.Revive.Deadline})
	}
	if s.Phase == Restarting && s.Restart.Primary {
		d = append(d, SetTimer{TimerStartTimeout, s.Since.Add(s.restartLimit())})
	}
	if s.Phase == Following && s.otherLeads() {
		d = append(d, SetTimer{"streaming", s.patienceEnd()})
	}
	if s.Schedule != nil {
		d = append(d, SetTimer{"scheduled_restart", s.instantOf(s.Schedule.Wall)})
	}
	if t, err := time.Parse(time.RFC3339, s.view().Failover.ScheduledAt); err == nil && s.holds() {
		d = append(d, SetTimer{"scheduled_switchover", s.instantOf(t.UnixNano())})
	}
	for _, g := range s.Gone {
		d = append(d, SetTimer{"initialize", g.At.Add(2 * s.Settings.TTL)})
	}
	return d
}

// TimerEvent is the event that a deadline brings.
func TimerEvent(name string) events.Event {
	switch name {
	case TimerTick:
		return events.Tick{}
	case TimerBelief:
		return events.LeaseLost{Cause: events.LossExpired}
	case TimerStartTimeout:
		return events.PrimaryStartTimeout{}
	default:
		return events.TimerFired{Name: name}
	}
}
