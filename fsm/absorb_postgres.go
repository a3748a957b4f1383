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
	case events.UnexpectedPrimary, events.WalReceiverEnded, events.SyncLost:
		// Edges that say "look now": the whole observation that follows decides.
		e.order(ObservePostgres{})
	}
}

// observe takes in a whole observation.
func (s *State) observe(p events.PostgresState) {
	s.Postgres.Known, s.Postgres.At, s.Postgres.State = true, s.Now, p
	if !p.Running {
		s.Postgres.Promoted = false
		s.Keeper.Armed = false
	}
	if p.Running && p.Streaming {
		s.Postgres.StreamedAt = s.Now
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
	e.Postgres.After = e.Now
	p := e.pg()
	p.Running, p.Ready, p.PID, p.Streaming, p.Why = false, false, 0, false, "the server is down"
	p.Standbys = nil
	e.Postgres.State = p
	e.Postgres.Promoted = false
	e.Keeper.Armed, e.Keeper.Fencing = false, false
	e.order(ObservePostgres{}) // for the control file
}

// absorbOutcome takes in the end of an action.
func absorbOutcome(e *effects, ev events.ActionFinished) {
	if !e.landed(ev.ID) {
		return
	}
	if e.Op != nil && e.Op.ID == ev.ID {
		e.Op = nil
		e.Postgres.After = e.Now
		if ev.Result.Postgres != nil {
			e.observe(*ev.Result.Postgres)
		} else {
			e.order(ObservePostgres{})
		}
	}
	done := ev.Class == events.Done
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
		e.outcomeStartPrimary(ev)
		e.outcomeBootstrap(ev)
	case Judge{}.Kind(), Rewind{}.Kind(), Clone{}.Kind(), StartStandby{}.Kind(), Follow{}.Kind():
		e.outcomeRejoin(ev)
		e.outcomeRace(ev)
	case ProbePeers{}.Kind():
		e.outcomeRace(ev)
	case Promote{}.Kind():
		if done {
			e.Postgres.Promoted = true
		}
	case PublishMember{}.Kind(), WriteStatus{}.Kind():
		if !done {
			e.Publish = Published{Again: e.Now.Add(e.Settings.LoopWait)}
		}
	case RevokeLease{}.Kind():
		if ev.Result.Lease == e.Lease.ID {
			e.Lease, e.Holder = Lease{}, Holder{}
		}
	case SyncSlots{}.Kind(), Checkpoint{}.Kind():
		e.order(ObservePostgres{})
	case RequestFailover{}.Kind():
		e.outcomeRequest(ev)
	case ExtendFence{}.Kind():
		if ev.Class == events.Refused {
			e.Keeper.Why = ev.Why
			e.order(ObservePostgres{})
		}
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
			ID: ev.Result.Lease, TTL: ev.Result.TTL, Asked: e.Settings.TTL,
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
