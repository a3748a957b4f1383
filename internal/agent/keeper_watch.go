package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// The bounds of the patience with a keeper that doesn't answer.
const (
	// keeperAtLeast keeps a machine that is merely busy from costing a primary.
	keeperAtLeast = 250 * time.Millisecond
	keeperAtMost  = 3 * time.Second
	// keeperAtRest is the patience while nothing depends on the keeper's deadline.
	keeperAtRest = 5 * time.Second
	// keeperLaunch bounds the start of a keeper.
	keeperLaunch = 5 * time.Second
)

// keeperPatience is how long an answer of the keeper may take. While this member
// acts under its lease, a keeper that stands still is found out, and killed, well
// before the belief's end even if no renewal succeeds any more: nobody else fences
// then (S4).
func (a *Agent) keeperPatience() time.Duration {
	if !a.keeperAtStake() {
		return keeperAtRest
	}
	return min(max(events.Belief(a.keeperTTL())/4, keeperAtLeast), keeperAtMost)
}

// keeperAtStake: the keeper's deadline is in force, or may be.
func (a *Agent) keeperAtStake() bool {
	s := a.Snapshot()
	return s.Holder.Revision != 0 || s.Keeper.Armed
}

// keeperSilence is how long the keeper may go unasked: so long that renewals, which ask it
// too, leave room for few questions between them. At rest the observations, which ask it as
// well, are mostly enough.
func (a *Agent) keeperSilence() time.Duration {
	if !a.keeperAtStake() {
		return keeperAtRest / 2
	}
	belief := events.Belief(a.keeperTTL())
	return min(a.keeperPatience()*3/4, belief*3/16, 1250*time.Millisecond)
}

// waitForKeeper pauses for d, or until ctx ends, or until the keeper's deadline comes into force:
// the moment when the patience becomes short must not be slept through.
func (a *Agent) waitForKeeper(ctx context.Context, d time.Duration) {
	if a.keeperAtStake() {
		wait(ctx, d)
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		changed := a.Changed()
		if a.keeperAtStake() {
			return
		}
		select {
		case <-changed:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) keeperTTL() time.Duration {
	s := a.Snapshot()
	return cmp.Or(s.Lease.TTL, s.Settings.TTL)
}

// watchKeeper keeps a keeper, and turns what it reports into events.
func (a *Agent) watchKeeper(ctx context.Context) {
	pause := 10 * time.Millisecond
	for ctx.Err() == nil {
		c, err := a.connectKeeper(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			a.log.Error("no keeper, so PostgreSQL can't be started", "err", err)
			a.mail.put(events.KeeperLost{Why: err.Error()})
			wait(ctx, pause)
			pause = min(2*pause, time.Second)
			continue
		}
		if a.serveKeeper(ctx, c) {
			pause = 10 * time.Millisecond
			continue
		}
		wait(ctx, pause)
		pause = min(2*pause, time.Second)
	}
}

// connectKeeper connects to the keeper, or starts one. One that serves the run
// directory and stands still is killed first: it would never fence, and it keeps
// every other keeper out.
func (a *Agent) connectKeeper(ctx context.Context) (*keeper.Client, error) {
	silent := func(ctx context.Context) bool {
		_, err := keeper.Peek(ctx, a.opt.Keeper.launch.RunDir)
		return err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded)
	}
	if a.unanswered(ctx, min(a.keeperPatience(), keeperAtMost), silent) {
		a.endSilentKeeper(ctx)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	// A start that has begun is seen through, so that an agent that ends meanwhile
	// leaves no keeper behind that it doesn't know.
	launch, cancel := context.WithTimeout(context.WithoutCancel(ctx), keeperLaunch)
	defer cancel()
	return a.opt.Keeper.connect(launch)
}

// unanswered asks twice. A machine that stood still finds its first question late
// through nobody's fault; the second one gets its time.
func (a *Agent) unanswered(ctx context.Context, patience time.Duration, silent func(context.Context) bool) bool {
	for _, d := range []time.Duration{patience, patience / 2} {
		try, cancel := context.WithTimeout(ctx, d)
		quiet := silent(try)
		cancel()
		if !quiet || ctx.Err() != nil {
			return false
		}
	}
	return true
}

// endSilentKeeper kills a keeper that doesn't answer. The kernel then ends its
// PostgreSQL (S4), so that the next keeper begins with a known state.
func (a *Agent) endSilentKeeper(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, keeperLaunch)
	defer cancel()
	pid, err := killKeeper(ctx, a.opt.Keeper.launch.RunDir)
	if err != nil {
		a.log.Error("the keeper does not answer and could not be killed; end it by hand", "pid", pid, "err", err)
		return
	}
	a.log.Error("the keeper did not answer and was killed, and PostgreSQL with it: it could not have fenced", "pid", pid)
}

// serveKeeper listens to one keeper until the connection ends, and reports whether
// it ever answered.
func (a *Agent) serveKeeper(ctx context.Context, c *keeper.Client) (answered bool) {
	ctx, stop := context.WithCancel(ctx)
	var pings sync.WaitGroup
	defer pings.Wait()
	defer stop()
	st, err := a.greetKeeper(ctx, c)
	if ctx.Err() != nil {
		return false // whoever ends the agent may still want the connection
	}
	if err != nil {
		a.log.Warn("the keeper does not say what it guards; connecting again", "err", err)
		a.mail.put(events.KeeperLost{Why: err.Error()})
		_ = c.Close() // it is of no use any more
		return false
	}
	a.mail.put(a.keeperFound(st))
	a.observe.kick()
	pings.Go(func() { a.pingKeeper(ctx, c) })
	for {
		select {
		case ev, ok := <-c.Events():
			if !ok {
				a.keeperLost(ctx, c)
				return true
			}
			a.keeperEvent(ev)
		case <-ctx.Done():
			return true
		}
	}
}

// greetKeeper asks a new connection what the keeper guards.
func (a *Agent) greetKeeper(ctx context.Context, c *keeper.Client) (keeper.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, keeperAtMost)
	defer cancel()
	st, err := c.Status(ctx)
	if err != nil || guarded(st) {
		return st, err
	}
	if now, adopted, err := a.opt.Keeper.adoptForeign(ctx); err == nil && adopted {
		a.log.Warn("adopted a running PostgreSQL that the keeper did not start", "pid", now.PID)
		return now, nil
	}
	return st, nil
}

// adoptForeign looks after a server that runs without the keeper knowing it. It is called
// right after the keeper was asked for an observation, whose answer counts.
func (a *Agent) adoptForeign(ctx context.Context) {
	if a.opt.Keeper.saidGuarded() {
		return
	}
	st, adopted, err := a.opt.Keeper.adoptForeign(ctx)
	switch {
	case err != nil:
		a.log.Debug("no look for a server that the keeper doesn't know", "err", err)
	case adopted:
		a.log.Warn("adopted a running PostgreSQL that the keeper did not start", "pid", st.PID)
		a.mail.put(a.keeperFound(st))
	}
}

func (a *Agent) keeperFound(st keeper.Status) events.KeeperFound {
	found := events.KeeperFound{PID: st.PID, Adopted: st.Adopted}
	if st.Armed != nil {
		found.Armed, found.Deadline = true, st.Armed.Deadline
	}
	if st.Waived != nil {
		found.Waived, found.WaivedAt = string(st.Waived.Reason), a.fromKeeper(st.Waived.Config)
	}
	return found
}

// pingKeeper makes sure that the keeper could fence: one that doesn't answer is
// killed and replaced. Renewals alone would not show it, because they stop just
// when the fence is needed (S4); but while there are any, each shows it as well as a
// question would, so only silences are filled.
func (a *Agent) pingKeeper(ctx context.Context, c *keeper.Client) {
	silent := func(ctx context.Context) bool {
		_, err := c.Status(ctx)
		return err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded)
	}
	for ctx.Err() == nil && c.Err() == nil {
		if left := a.keeperSilence() - c.Silence(); left > 0 {
			a.waitForKeeper(ctx, left)
			continue
		}
		if a.unanswered(ctx, a.keeperPatience(), silent) {
			a.endSilentKeeper(ctx)
			_ = c.Close() // serveKeeper sees the end of the events
			return
		}
	}
}

func (a *Agent) keeperLost(ctx context.Context, c *keeper.Client) {
	if ctx.Err() == nil {
		a.log.Warn("the keeper is gone; starting another", "err", c.Err())
		a.mail.put(events.KeeperLost{Why: fmt.Sprint(c.Err())})
	}
}

func (a *Agent) keeperEvent(ev keeper.Event) {
	switch ev.Kind {
	case keeper.ServerDown:
		if ev.Repeated {
			a.observe.kick()
			return
		}
		down := events.PostgresDown{}
		if x := ev.Exit; x != nil {
			down = events.PostgresDown{PID: x.PID, Code: x.Code, Signal: x.Signal, Ours: x.Ours, Fenced: x.Fenced}
		}
		a.mail.put(down)
	case keeper.FenceBegun:
		a.mail.put(events.FenceBegun{Why: ev.Note})
	case keeper.PostmasterExited:
		a.observe.kick()
	}
}

// wait pauses for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
