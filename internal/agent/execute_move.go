package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/mono"
)

// ErrMoved is wrapped by Run's error when the cluster has been moved to another store, on
// which the next run is to work. PostgreSQL and the keeper's deadline are as they were.
var ErrMoved = errors.New("the cluster has been moved to another store")

// executeTarget carries out what asks the target of a move (ADR 0024). What is not known
// of its fate says nothing about the store that decides, so that store's health isn't noted.
func (a *Agent) executeTarget(ctx context.Context, o fsm.Ordered) {
	r := events.Result{SentAt: mono.Now()}
	target, err := a.target()
	if err == nil {
		switch act := o.Action.(type) {
		case fsm.OpenTarget:
			r.Held, err = settled(ctx, target, act.Epoch)
		case fsm.GrantTarget:
			var l dcs.Lease
			var id events.LeaseID
			if id, err = newLeaseID(); err == nil {
				l, err = target.Grant(ctx, id, act.TTL)
				r.Lease, r.TTL = l.ID, l.TTL
			}
		case fsm.RenewTarget:
			var l dcs.Lease
			l, err = target.Renew(ctx, act.Lease)
			r.Lease, r.TTL, r.Held = act.Lease, l.TTL, slices.Contains(l.Keys, dcs.KeyLeader)
		case fsm.CopyTarget:
			r.Revision, err = a.copyTarget(ctx, target, act)
		case fsm.AcquireTarget:
			_, err = target.Commit(ctx, dcs.Txn{
				Guards: []dcs.Guard{{Key: dcs.KeyLeader, Absent: true}, {Key: dcs.KeyConfig, Version: act.Config}},
				Writes: []dcs.Write{{Key: dcs.KeyLeader, Value: []byte(a.opt.Name), Lease: act.Lease}},
			})
		}
	}
	a.finished(o, dcs.ClassOf(err), err, r)
}

var errNoTarget = errors.New("regent.dcs_target isn't in this member's file, or not the move's target")

// target is the store that a move leads to. The file may have been changed since the move
// began; then it is another move's.
func (a *Agent) target() (dcs.Store, error) {
	if a.opt.Target == nil {
		return nil, fmt.Errorf("open the target: %w: %w", dcs.ErrBroken, errNoTarget)
	}
	to := ""
	if m := a.Snapshot().Store.View.Move; m != nil {
		to = m.To
	}
	return a.opt.Target(to)
}

// settled reads the target, and whether it says that it decides.
func settled(ctx context.Context, target dcs.Store, epoch string) (bool, error) {
	v, err := target.View(ctx, dcs.Linearizable)
	if err != nil {
		return false, err
	}
	m := dcs.Decode(v).Move
	return m.Is(events.MoveSettled) && m.Epoch == epoch, nil
}

func (a *Agent) copyTarget(ctx context.Context, target dcs.Store, act fsm.CopyTarget) (events.Revision, error) {
	from, err := a.opt.Store.View(ctx, dcs.Linearizable)
	if err != nil {
		return 0, err
	}
	if v := dcs.Decode(from); v.Config.Stored() != act.Config || v.Sync.Version != act.Sync {
		return 0, fmt.Errorf("copy to the target: %w: the configuration has changed meanwhile", dcs.ErrRefused)
	}
	to, err := target.View(ctx, dcs.Linearizable)
	if err != nil {
		return 0, err
	}
	t, err := dcs.CopyMove(from, to, act.Epoch)
	if err != nil {
		return 0, err
	}
	rev, err := target.Commit(ctx, t)
	if err != nil {
		return 0, err
	}
	if _, err := target.Commit(ctx, dcs.CopyRest(from, rev)); err != nil {
		return 0, err
	}
	return rev, nil
}

// moveTransaction translates what changes the config key's word about a move.
func (a *Agent) moveTransaction(action fsm.Action) (dcs.Txn, error) {
	s := a.Snapshot()
	v := s.Store.View
	if v.Move == nil {
		return dcs.Txn{}, fmt.Errorf("%s: %w: there is no move any more", action.Kind(), dcs.ErrRefused)
	}
	m := *v.Move
	at := events.Revision(0)
	var further []dcs.Guard
	mine := func(lease events.LeaseID) dcs.Guard {
		g := dcs.ValueIs(dcs.KeyLeader, string(a.opt.Name))
		g.Lease = lease
		return g
	}
	next := &m
	switch act := action.(type) {
	case fsm.ClaimMove:
		at, m.By, m.Run, further = act.Config, a.opt.Name, s.Run, []dcs.Guard{mine(act.Lease)}
	case fsm.SwitchStore:
		at, m.Phase = act.Config, events.MoveTarget
		further = []dcs.Guard{mine(act.Lease), versionGuard(dcs.KeySync, act.Sync)}
	case fsm.WithdrawMove:
		at, next, further = act.Config, nil, []dcs.Guard{{Key: dcs.KeyLeader, Absent: true}}
	case fsm.SettleMove:
		at, m.Phase = act.Config, events.MoveSettled
	}
	if v.Config.Stored() != at {
		return dcs.Txn{}, fmt.Errorf("%s: %w: the configuration has changed meanwhile", action.Kind(), dcs.ErrRefused)
	}
	t := dcs.MarkMove(v.Config, next)
	t.Guards = append(t.Guards, further...)
	return t, nil
}

// toKeeper is a revision of this store as the keeper knows it. The keeper takes none that is
// older than what it has seen, and revisions of two stores don't compare: those of this one
// count from what the stores before it had reached.
func (a *Agent) toKeeper(rev events.Revision) events.Revision {
	if rev == 0 {
		return 0
	}
	return rev + a.opt.KeeperBase
}

// fromKeeper undoes it. What was said under a store before this one is older than all here.
func (a *Agent) fromKeeper(rev events.Revision) events.Revision {
	if rev <= a.opt.KeeperBase {
		return min(rev, 1)
	}
	return rev - a.opt.KeeperBase
}
