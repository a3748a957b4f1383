package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// forever stands for "until it is cancelled": how long a start or a stop takes is
// the machine's business.
const forever = 365 * 24 * time.Hour

func (a *Agent) grantOf(f fsm.Fence) keeper.Grant {
	return keeper.Grant{
		Revision: a.toKeeper(f.Revision), Deadline: f.Deadline, Budget: f.Budget, Config: a.toKeeper(f.Config),
	}
}

// operate carries out one PostgreSQL operation, and reports how it ended together
// with an observation made afterwards.
func (a *Agent) operate(ctx context.Context, o fsm.Ordered) {
	var r events.Result
	err := a.perform(ctx, o, &r)
	if ctx.Err() == nil || err == nil {
		look, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if p, obsErr := a.opt.Postgres.Observe(look); obsErr == nil {
			r.Postgres = &p
		}
	}
	a.finished(o, pgmgr.ClassOf(err), err, r)
}

func (a *Agent) perform(ctx context.Context, o fsm.Ordered, r *events.Result) error {
	pg := a.opt.Postgres
	switch act := o.Action.(type) {
	case fsm.Bootstrap:
		return pg.Bootstrap(ctx)
	case fsm.PostBootstrap:
		return pg.PostBootstrap(ctx)
	case fsm.Clone:
		return pg.Clone(ctx, act.From, pgmgr.CloneOptions{Replace: act.Replace})
	case fsm.StartStandby:
		return pg.Start(ctx, pgmgr.StartOptions{Standby: true, Upstream: act.Upstream, Timeout: forever})
	case fsm.StartPrimary:
		if err := stillGranted(act.Fence); err != nil {
			return err
		}
		g := a.freshest(act.Fence)
		return pg.Start(ctx, pgmgr.StartOptions{Grant: &g, Timeout: forever})
	case fsm.Stop:
		return a.stop(ctx, o.ID, act, r)
	case fsm.Promote:
		if err := stillGranted(act.Fence); err != nil {
			return err
		}
		tl, err := pg.Promote(ctx, a.freshest(act.Fence), act.Sync)
		r.Timeline = tl
		return err
	case fsm.SetSyncNames:
		at, err := pg.SetSyncNames(ctx, act.Sync)
		r.Position = at
		return err
	case fsm.Follow:
		return pg.Follow(ctx, act.Upstream)
	case fsm.Judge:
		d, err := pg.Judge(ctx, act.Upstream)
		if err == nil {
			r.Divergence = &d
		}
		return err
	case fsm.Rewind:
		return pg.Rewind(ctx, act.Upstream)
	default:
		return fmt.Errorf("operate on PostgreSQL: %w: no executor for %s", pgmgr.ErrBroken, o.Action.Kind())
	}
}

// freshest is the grant with the end of the belief as it is now: renewals go on
// while an operation waits for its turn.
func (a *Agent) freshest(f fsm.Fence) keeper.Grant {
	g := a.grantOf(f)
	if s := a.Snapshot(); s.Holder.Revision == f.Revision {
		g.Deadline = max(g.Deadline, s.BeliefEnd())
	}
	return g
}

func stillGranted(f fsm.Fence) error {
	if now := mono.Now(); now >= f.Deadline.Add(-f.Budget) {
		return fmt.Errorf("grant of revision %d: %w: its time is over", f.Revision, pgmgr.ErrRefused)
	}
	return nil
}

// stop stops the server; after a clean stop of a primary it finds out where the WAL
// ends, and says so as soon as that is written, before the last processes are gone.
func (a *Agent) stop(ctx context.Context, id events.ActionID, act fsm.Stop, r *events.Result) error {
	opt := pgmgr.StopOptions{
		Mode: keeper.StopMode(act.Mode), Checkpoint: act.Checkpoint, CheckpointTimeout: a.Snapshot().Settings.StopWait,
	}
	if act.Patience > 0 {
		opt.ImmediateAfter, opt.KillAfter = act.Patience, act.Patience
	}
	before := a.Snapshot().Postgres.State
	primary := act.Mode == string(keeper.StopFast) && before.Ready && !before.InRecovery
	if primary {
		opt.OnShutDown = func(end, _ events.LSN) {
			r.EndLSN = end
			a.mail.put(events.CleanShutdown{ID: id, End: end})
		}
	}
	if err := a.opt.Postgres.Stop(ctx, opt); err != nil {
		return err
	}
	if primary && r.EndLSN == 0 {
		end, _, err := a.opt.Postgres.ShutdownLSN(ctx)
		if err != nil {
			a.log.Info("the server did not shut down cleanly, so its WAL has no known end", "err", err)
			return nil
		}
		r.EndLSN = end
	}
	return nil
}
