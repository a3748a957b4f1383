package fsm

import (
	"github.com/pgregent/regent/events"
)

func absorbPostgres(e *effects) {
	switch ev := e.entry.Event.(type) {
	case events.PostgresObserved:
		if ev.Began < e.Postgres.After {
			e.order(ObservePostgres{}) // an operation ended since: look again
			return
		}
		e.observe(ev.State)
	case events.PostgresUp:
		e.order(ObservePostgres{})
	case events.PostgresDown:
		absorbDown(e, ev)
	case events.CleanShutdown:
		e.cleanShutdown(ev)
	case events.UnexpectedPrimary, events.WalReceiverEnded, events.SyncLost:
		// Edges that say "look now": the whole observation that follows decides.
		e.order(ObservePostgres{})
	}
}

// observe takes in a whole observation.
func (s *State) observe(p events.PostgresState) {
	was := s.pg()
	s.Postgres.Known, s.Postgres.At, s.Postgres.State = true, s.Now, p
	if p.Running {
		s.Postgres.Down = nil // how a former server ended says nothing about the next end
	} else {
		s.disarmed()
		if x := p.Ended; x != nil && was.Running && (was.PID == 0 || was.PID == x.PID) {
			down := *x
			s.Postgres.Down = &down
		}
	}
	if s.primaryUp() {
		s.Postgres.Wrote = true
	}
	if p.Running && p.Streaming {
		s.Postgres.StreamedAt = s.Now
		if s.fromLeader() {
			s.Postgres.Judged = s.Store.LeaderSince
		}
		if s.Phase == Following {
			s.Unfit = Unfit{} // somebody leads; the next time it may go better
			// The ladder has led where it should; a later break begins at its foot.
			s.Rejoin = RejoinWork{Leader: s.Rejoin.Leader}
		}
	}
}

// absorbDown: the whole server is gone, proven by its parent (S1).
func absorbDown(e *effects, ev events.PostgresDown) {
	if pid := e.pg().PID; pid != 0 && ev.PID != 0 && pid != ev.PID {
		e.order(ObservePostgres{}) // another server than the one observed since
		return
	}
	down := ev
	e.Postgres.Down = &down
	e.serverGone()
	e.order(ObservePostgres{}) // for the control file
}

// serverGone takes in the proof that no process of the server is left. It is as
// good as an observation made now, as far as that goes.
func (s *State) serverGone() {
	p := s.pg()
	p.Running, p.Ready, p.PID, p.Streaming, p.Why = false, false, 0, false, "the server is down"
	p.Standbys = nil
	s.Postgres.State = p
	s.Postgres.At, s.Postgres.After = s.Now, s.Now
	s.Keeper.Fencing = false
	s.disarmed()
}

// disarmed: no server, nothing armed. While one is being started as a primary that
// says nothing, since the keeper is armed before the postmaster exists (S3), and
// without renewals passed on it would stop the new server.
func (s *State) disarmed() {
	if !s.doing(StartPrimary{}) {
		s.Postgres.Promoted, s.Keeper.Armed = false, false
	}
}

// commanded: a start as primary, or a promotion, has ended. What may have happened
// counts as armed: passing renewals on to a server that isn't there does no harm.
func (s *State) commanded(class events.Class) {
	switch {
	case class == events.Done || class == events.Unknown:
		s.Postgres.Promoted, s.Keeper.Armed = true, true
	case !s.pg().Running:
		s.disarmed()
	}
}

// absorbOutcome takes in the end of an action.
func absorbOutcome(e *effects, ev events.ActionFinished) {
	if !e.landed(ev.ID, ev.Action) {
		return
	}
	e.operated(ev)
	done := ev.Class == events.Done
	if tended(ev.Action) {
		e.Store.TendedAt, e.Store.Tended = e.Now, max(e.Store.Tended, ev.Result.Revision)
	}
	if storedKind(ev.Action) && (ev.Class == events.Unavailable || ev.Class == events.Unknown) {
		e.Store.RetryAt = e.Now.Add(e.Settings.LoopWait / 4)
	}
	switch ev.Action {
	case GrantLease{}.Kind():
		e.outcomeGrant(ev)
	case AcquireLeader{}.Kind():
		e.outcomeAcquire(ev)
	case ReleaseLeader{}.Kind(), HandOver{}.Kind(), AskPosition{}.Kind(), Stop{}.Kind():
		e.outcomeDemotion(ev)
	case ClaimInitialize{}.Kind(), Bootstrap{}.Kind(), PostBootstrap{}.Kind(), WriteInitialize{}.Kind(), StartPrimary{}.Kind():
		if ev.Action == (StartPrimary{}).Kind() {
			e.commanded(ev.Class)
		}
		e.outcomeStartPrimary(ev)
		e.outcomeBootstrap(ev)
	case Judge{}.Kind(), Rewind{}.Kind(), Clone{}.Kind(), StartStandby{}.Kind(), Follow{}.Kind():
		e.outcomeRejoin(ev)
		e.outcomeRace(ev)
	case ProbePeers{}.Kind():
		e.outcomeRace(ev)
	case Promote{}.Kind():
		e.Unfit.Why = ev.Why
		e.commanded(ev.Class)
	case PublishMember{}.Kind(), WriteStatus{}.Kind():
		if !done {
			e.Publish = Published{Again: e.Now.Add(e.Settings.LoopWait)}
		}
	case RevokeLease{}.Kind():
		e.outcomeRevoke(ev)
	case SyncSlots{}.Kind():
		e.outcomeSlots(done)
	case Checkpoint{}.Kind():
		e.Postgres.CheckpointAgain = e.Now.Add(e.Settings.LoopWait)
		e.order(ObservePostgres{})
	case AskFailsafe{}.Kind():
		e.outcomeAsk(ev)
	case WriteSync{}.Kind():
		e.outcomeWriteSync(ev)
	case SetSyncNames{}.Kind():
		e.outcomeSyncNames(ev)
	case RequestFailover{}.Kind():
		e.outcomeRequest(ev)
	case Disarm{}.Kind():
		e.outcomeDisarm(ev)
	case OpenTarget{}.Kind(), GrantTarget{}.Kind(), RenewTarget{}.Kind(), CopyTarget{}.Kind(), AcquireTarget{}.Kind(),
		ClaimMove{}.Kind(), WithdrawMove{}.Kind(), SwitchStore{}.Kind(), SettleMove{}.Kind():
		e.outcomeMoving(ev)
	case ExtendFence{}.Kind():
		if ev.Class == events.Refused {
			e.Keeper.Why = ev.Why
			e.order(ObservePostgres{})
		}
	}
}

// operated: if it was PostgreSQL's operation, that is over, and PostgreSQL is looked at.
func (e *effects) operated(ev events.ActionFinished) {
	if e.Op == nil || e.Op.ID != ev.ID {
		return
	}
	e.Op = nil
	e.Postgres.After = e.Now
	if ev.Action == (Stop{}).Kind() && ev.Class == events.Done {
		e.serverGone()
	}
	if ev.Result.Postgres != nil {
		e.observe(*ev.Result.Postgres)
	} else {
		e.order(ObservePostgres{})
	}
}

// outcomeRevoke: a lease was ended, as far as is known.
func (e *effects) outcomeRevoke(ev events.ActionFinished) {
	switch next := e.Lease.Next; {
	case e.Lease.ID == "" && e.Phase == Stopping:
		e.Lease.Void = e.leader().Lease // a former run's, asked for once
	case ev.Result.Lease == e.Lease.ID:
		e.Lease, e.Holder = Lease{}, Holder{}
	case next != nil && next.ID == ev.Result.Lease && ev.Class == events.Done:
		e.Lease.Next, e.Lease.Moving = nil, false
		e.Lease.GrantAfter = e.Now.Add(e.Settings.LoopWait)
	}
}

// outcomeGrant: a lease of our own, unless one was adopted meanwhile.
func (e *effects) outcomeGrant(ev events.ActionFinished) {
	switch {
	case ev.Class != events.Done:
		e.Lease.GrantAfter = e.Now.Add(e.Settings.LoopWait / 4)
	case e.Lease.ID != "" && (e.Lease.Asked == e.Settings.TTL || e.Lease.Next != nil):
		e.order(RevokeLease{Lease: ev.Result.Lease})
	default:
		l := Lease{
			ID: ev.Result.Lease, TTL: ev.Result.TTL, Trust: min(ev.Result.TTL, e.Settings.TTL), Asked: e.Settings.TTL,
			Sent: ev.Result.SentAt, Tried: ev.Result.SentAt, Void: e.Lease.Void,
		}
		if e.Lease.ID != "" {
			e.Lease.Next = &l
			return
		}
		e.Lease = l
		e.Publish = Published{}
	}
}
