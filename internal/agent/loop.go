package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/mono"
)

// jumpLimit is how late a timer may fire before the loop concludes that it, or the
// machine, stood still.
const jumpLimit = 500 * time.Millisecond

// Run drives the machine until it ends the agent, or ctx ends (which leaves
// PostgreSQL as it is: the keeper's deadline stands). It returns after everything
// it started has ended. The error wraps ErrExit when the machine wants a failure told.
func (a *Agent) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var sensors sync.WaitGroup
	for _, run := range []func(context.Context){
		a.lane.run, a.observe.run, a.watchStore, a.watchKeeper, a.watchRecovery, a.watchJournal,
	} {
		sensors.Go(func() { a.guarded(func() { run(ctx) }) })
	}
	var err error
	a.guarded(func() { err = a.loop(ctx) })
	select {
	case err = <-a.fatal:
	default:
	}
	if !errors.Is(err, ErrPanic) {
		a.journal.flush(a.state)
	} else {
		a.journal.crash(a.state, err)
		a.log.Error("a part of the agent panicked, so the agent ends; restart it before its lease ends: " +
			"the keeper stops a primary then")
	}
	close(a.ended)
	stop()
	a.work.Wait()
	sensors.Wait()
	return err
}

// guarded runs a part of the agent and turns a panic into the end of the whole: what
// is left of an agent must not go on renewing a lease.
func (a *Agent) guarded(part func()) {
	defer func() {
		if p := recover(); p != nil {
			a.end(fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack()))
		}
	}()
	part()
}

// end makes the loop end with the error; the first one tells enough.
func (a *Agent) end(err error) {
	select {
	case a.fatal <- err:
	default:
	}
}

// loop is the only writer of the state.
func (a *Agent) loop(ctx context.Context) error {
	a.timer = time.NewTimer(time.Hour)
	defer a.timer.Stop()
	set, _, err := a.opt.Settings(nil, false)
	if err != nil {
		return fmt.Errorf("read the settings: %w", err)
	}
	run, err := newLeaseID()
	if err != nil {
		return fmt.Errorf("begin a run: %w", err)
	}
	a.due = mono.Now()
	a.step(ctx, events.AgentStarted{
		Node: a.opt.Name, Scope: a.opt.Scope, Version: a.opt.Version, Boot: mono.BootID(), Settings: set,
		Run: string(run), Arrived: a.opt.Arrived,
	})
	var beat <-chan time.Time
	if a.opt.BeatEvery > 0 {
		t := time.NewTicker(a.opt.BeatEvery)
		defer t.Stop()
		beat = t.C
	}
	for a.exit == nil {
		select {
		case <-beat:
			a.opt.Beat()
		case <-ctx.Done():
			return fmt.Errorf("run the agent: %w", context.Cause(ctx))
		case err := <-a.fatal:
			return err
		case <-a.mail.wake:
			a.due = a.mail.arrived()
			a.noticeJump(ctx)
			if a.reload.Swap(false) {
				a.applyConfig(ctx, a.state.Store.View.Config)
			}
			for _, ev := range a.mail.take() {
				a.take(ctx, ev)
			}
		case <-a.timer.C:
			a.due = a.timerAt
			a.noticeJump(ctx)
			a.fireTimer(ctx)
		}
	}
	if a.exit.Code != 0 {
		return fmt.Errorf("%w: %s", ErrExit, a.exit.Text)
	}
	return nil
}

// take steps one event from the mailbox. Settings come before the view that brings
// them, so that nothing is decided on it by those that it has replaced.
func (a *Agent) take(ctx context.Context, ev events.Event) {
	seen, ok := ev.(events.ClusterObserved)
	if !ok {
		a.step(ctx, ev)
		return
	}
	if s := &a.state.Store; seen.View.Revision >= max(s.View.Revision, s.Floor) {
		a.noticeConfig(ctx, seen.View)
	}
	a.step(ctx, ev)
	a.noticeConfig(ctx, a.state.Store.View) // a restored store has taken it back
}

// noticeJump tells the machine when the loop stood still: its timer, which is
// never further away than a heartbeat, ought to have fired long ago (S24).
func (a *Agent) noticeJump(ctx context.Context) {
	now := mono.Now()
	if a.timerAt != 0 && now.Sub(a.timerAt) > jumpLimit {
		a.step(ctx, events.TimeJumped{By: now.Sub(a.timerAt)})
	}
}

// fireTimer delivers the deadline's event. Go's timers only wake: the clock that
// goes on during a suspend decides whether the time has come (S9).
func (a *Agent) fireTimer(ctx context.Context) {
	now := mono.Now()
	if a.timerAt == 0 {
		return
	}
	if now.Before(a.timerAt) {
		a.timer.Reset(a.timerAt.Sub(now))
		return
	}
	a.timerAt = 0
	if a.timerName == fsm.TimerTick {
		a.retryConfig()
	}
	a.step(ctx, fsm.TimerEvent(a.timerName))
}

// step steps the machine with a fact, journals both the fact and the decision, and
// carries the decision out; then again with Reconsider, until the machine is at rest (S22).
func (a *Agent) step(ctx context.Context, ev events.Event) {
	for a.exit == nil {
		entry := events.Entry{Seq: a.journal.next(), At: mono.Now(), Wall: a.opt.Wall().UnixNano(), Event: ev}
		a.journal.begin(entry)
		before := a.state
		next, d := a.machine.Step(a.state, entry)
		a.journal.record(before, next, entry, d)
		a.state = next
		a.publish()
		a.tell(before, d)
		for _, o := range d.Actions {
			a.carryOut(ctx, o)
		}
		if !d.Fired() {
			break
		}
		ev = events.Reconsider{}
	}
	if a.opt.Meter != nil {
		a.opt.Meter.Stepped(a.Snapshot(), mono.Now().Sub(a.due))
	}
}

// tell logs a transition with its reason, and a status line when it changed. The
// words are the journal's.
func (a *Agent) tell(before fsm.State, d fsm.Decision) {
	for _, v := range fsm.Violations(before, a.state, d) {
		a.log.Error("invariant violated, please report", "seq", d.Seq, "err", v)
	}
	switch {
	case d.Fired():
		a.log.Info(d.Status, "phase", string(d.To), "trigger", string(d.Trigger), "reason", d.Reason.Text, "seq", d.Seq)
	case d.Event == events.KindTick || d.Status != a.said:
		level := slog.LevelInfo
		if d.Status == a.said && a.state.Settings.LoopWait < 5*time.Second {
			level = slog.LevelDebug // a fast heartbeat repeats itself too often to be read
		}
		a.log.Log(context.Background(), level, d.Status, "phase", string(d.To), "reason", d.Reason.Text, "seq", d.Seq)
	}
	a.said = d.Status
}

// carryOut starts an action. It never blocks: what takes time runs beside the loop.
func (a *Agent) carryOut(ctx context.Context, o fsm.Ordered) {
	switch act := o.Action.(type) {
	case fsm.SetTimer:
		a.timerName, a.timerAt = act.Name, act.At
		a.timer.Reset(max(act.At.Sub(mono.Now()), 0))
	case fsm.ObservePostgres:
		a.observe.kick()
	case fsm.Cancel:
		a.lane.cancel(act.ID)
	case fsm.Respond:
		if act.Durable {
			a.work.Go(func() { a.guarded(func() { a.giveDurably(ctx, act) }) })
			return
		}
		a.answers.give(act.ID, Answer{OK: act.OK, Text: act.Text})
	case fsm.Exit:
		a.exit = &act
	case fsm.ChangeStore:
		a.log.Info("the cluster has been moved to another store; the agent goes on there")
		a.end(fmt.Errorf("%w (move %s)", ErrMoved, act.Epoch))
	default:
		if fsm.Operation(o.Action) {
			a.lane.enqueue(operation{id: o.ID, run: func(ctx context.Context) { a.operate(ctx, o) }})
			return
		}
		a.work.Go(func() { a.guarded(func() { a.execute(ctx, o) }) })
	}
}

// finished reports an outcome.
func (a *Agent) finished(o fsm.Ordered, class events.Class, err error, r events.Result) {
	ev := events.ActionFinished{ID: o.ID, Action: o.Action.Kind(), Class: class, Result: r}
	if err != nil {
		ev.Why = err.Error()
	}
	a.mail.put(ev)
}

// bounded gives an action its context: at most d, and not beyond the belief that
// the action needs.
func bounded(ctx context.Context, o fsm.Ordered, d time.Duration) (context.Context, context.CancelFunc) {
	if o.Until != 0 {
		d = min(d, o.Until.Sub(mono.Now()))
	}
	return context.WithTimeout(ctx, max(d, 0))
}
