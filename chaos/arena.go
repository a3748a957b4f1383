package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/internal/replay"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
	"github.com/pgregent/regent/internal/sandbox/workload"
)

// Arena is a cluster that is written to and watched.
type Arena struct {
	Cluster *sandbox.Cluster
	Writer  *workload.Writer
	Watcher *workload.Watcher
	// Lists are appended to and read in synchronous mode, beside the writer; nil otherwise.
	Lists *workload.Lists
	// Origin is the moment that the history's times count from.
	Origin time.Time

	// lost are the rows that went missing so far, sorted. It belongs to whoever runs trials,
	// one at a time.
	lost []int64
	// freezes are those of all trials so far: lists are judged when they are closed.
	freezes []history.Freeze
}

const (
	// healthyWithin is how long a cluster may take to be whole again once a fault is over, beyond
	// the lease that may have to end first: 30 s at a ttl of 2 s.
	healthyWithin = 28 * time.Second
	// settleTimeout bounds the wait for a cluster that is about to be struck, or has just been made.
	settleTimeout = 60 * time.Second
	// minRate is how often per second every member is looked at, at least.
	minRate = 100
	// settled is how many inserts in a row make a settled writer.
	settled = 40
)

// NewArena returns an arena around a cluster that is or will be powered on.
func NewArena(c *sandbox.Cluster) *Arena {
	origin := time.Now()
	a := &Arena{
		Cluster: c, Origin: origin,
		Writer:  workload.NewWriter(workload.WriterConfig{DSN: c.DSN(), Nodes: c.PortNames(), Origin: origin}),
		Watcher: workload.NewWatcher(origin, c.Targets()),
	}
	if c.Synchronous() {
		a.Lists = workload.NewLists(workload.ListsConfig{DSN: c.DSN(), Nodes: c.PortNames(), Members: c.Targets(), Origin: origin})
	}
	return a
}

// Run has the cluster written to and watched while body runs, and returns when all of them
// have ended.
func (a *Arena) Run(ctx context.Context, body func(context.Context) error) error {
	load := []runner{a.Writer, a.Watcher}
	if a.Lists != nil {
		load = append(load, a.Lists)
	}
	return underLoad(ctx, load, body)
}

// runner works until its context ends.
type runner interface {
	Run(ctx context.Context) error
}

func underLoad(ctx context.Context, load []runner, body func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	errs := make([]error, len(load))
	var work sync.WaitGroup
	for i, r := range load {
		work.Go(func() { errs[i] = r.Run(ctx) })
	}
	err := body(ctx)
	stop()
	work.Wait()
	return errors.Join(err, errors.Join(errs...))
}

// now is the time of the history.
func (a *Arena) now() time.Duration { return time.Since(a.Origin) }

// Settle returns the primary when the cluster is whole and the writer writes steadily.
func (a *Arena) Settle(ctx context.Context) (*sandbox.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	return a.whole(ctx, a.now())
}

// whole waits until every member has an agent, all replicas stream, one of them synchronously
// if that is wanted, and inserts sent after
// since are acknowledged.
func (a *Arena) whole(ctx context.Context, since time.Duration) (*sandbox.Node, error) {
	for {
		primary, err := a.Cluster.AwaitStreaming(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range a.Cluster.Nodes() {
			if err := n.AwaitHealthy(ctx); err != nil {
				return nil, err
			}
		}
		if a.Cluster.Synchronous() {
			if _, err := a.Cluster.AwaitSyncStandby(ctx); err != nil {
				return nil, err
			}
		}
		if err := a.Writer.Await(ctx, settled, since); err != nil {
			return nil, err
		}
		// While the agents were asked the replicas may have lost their primary.
		if still, err := a.Cluster.StreamingNow(ctx); err == nil && still == primary {
			return primary, nil
		}
	}
}

// Trial is one strike and what came of it.
type Trial struct {
	Strike  Strike
	Verdict judge.Verdict
	// Whole is how long after the strike the cluster was whole again. It is never less than
	// the time for which a strike is watched.
	Whole time.Duration
	// Healed is the part of it after the fault was over.
	Healed time.Duration
	// Window is the longest time for which a thawed primary went on beside another one.
	Window time.Duration
	// StaleAcked are rows that a thawed primary acknowledged to a client that had stayed with it,
	// StaleLost how many of them are gone.
	StaleAcked, StaleLost int
	// Primary is the primary afterwards, empty when there is none.
	Primary string
}

// FailedOver reports that another member is primary now.
func (t Trial) FailedOver() bool { return t.Primary != "" && t.Primary != t.Strike.Primary }

// Try strikes once and judges. The error says that the trial could not be made; what the
// cluster did wrong is in the verdict.
func (a *Arena) Try(ctx context.Context, f Fault) (Trial, error) {
	primary, err := a.Settle(ctx)
	if err != nil {
		return Trial{}, fmt.Errorf("before %s: %w", f.Name, err)
	}
	t := Trial{Strike: Strike{Fault: f.Name, Primary: primary.Name()}}
	if f.Prepare != nil {
		if primary, err = f.Prepare(ctx, a, primary); err != nil {
			return t, fmt.Errorf("prepare %s: %w", f.Name, err)
		}
		t.Strike.Primary = primary.Name()
	}
	from := a.now()
	t.Strike.from = from
	if err := f.Strike(ctx, a, primary, &t.Strike); err != nil {
		return t, fmt.Errorf("%s: %w", f.Name, err)
	}
	trouble := a.watchUntilWhole(ctx, from, &t)
	if ctx.Err() != nil {
		return t, fmt.Errorf("%s: %w", f.Name, context.Cause(ctx))
	}
	evidence, err := a.evidence(ctx, f, &t)
	if err != nil && trouble == "" {
		trouble = err.Error()
	}
	t.Strike.MayLose = (t.Strike.MayLose || f.MayLose) && !a.Cluster.Synchronous()
	if t.StaleLost > 0 && a.Cluster.Synchronous() && trouble == "" {
		trouble = fmt.Sprintf("a thawed primary acknowledged %d rows that are gone, in synchronous mode", t.StaleLost)
	}
	evidence.Fault, evidence.Trouble, evidence.MayLose = t.Strike.String(), trouble, t.Strike.MayLose
	t.Verdict = judge.Judge(evidence)
	for _, w := range t.Verdict.Windows {
		t.Window = max(t.Window, w.Length)
	}
	for _, lost := range t.Verdict.Lost {
		a.lost = append(a.lost, lost.Seq)
	}
	slices.Sort(a.lost)
	return t, nil
}

// watchUntilWhole waits, at least for as long as a consequence of the strike may take to
// show, and returns why the cluster isn't whole, if it isn't.
func (a *Arena) watchUntilWhole(ctx context.Context, from time.Duration, t *Trial) (trouble string) {
	over := a.now()
	deadline, cancel := context.WithTimeout(ctx, healthyWithin+a.Cluster.TTL())
	defer cancel()
	watch := from + t.Strike.Watch
	if !pause(deadline, watch-a.now()) {
		return "interrupted"
	}
	primary, err := a.whole(deadline, max(from, a.now()-time.Second))
	t.Whole, t.Healed = a.now()-from, a.now()-over
	if err != nil {
		return err.Error()
	}
	t.Primary = primary.Name()
	return ""
}

func (a *Arena) evidence(ctx context.Context, f Fault, t *Trial) (judge.Evidence, error) {
	a.freezes = append(a.freezes, t.Strike.Freezes...)
	e := judge.Evidence{
		From: t.Strike.from, Freezes: a.freezes, To: a.now(), WatcherSpans: a.Watcher.Spans(), WriterSpans: a.Writer.Spans(), Writes: a.Writer.Log(),
		LostBefore: a.lost, MaxOutage: f.MaxOutage, MinRate: minRate,
	}
	for _, n := range a.Cluster.Nodes() {
		e.Members = append(e.Members, n.Name())
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var err error
	e.Present, err = workload.Rows(ctx, a.Cluster.DSN(), workload.Table)
	// What was written while the rows were read is no row from nowhere.
	e.Writes.Next = a.Writer.Log().Next
	if a.Lists != nil {
		var failed error
		e.Lists, failed = a.Lists.Closed(ctx)
		err = errors.Join(err, failed)
	}
	if stale := t.Strike.Stale; stale != nil {
		e.WriterSpans = append(e.WriterSpans, stale.Spans()...)
		lost, failed := stale.Lost(ctx, a.Cluster.DSN())
		t.StaleAcked, t.StaleLost, err = stale.Acked(), lost, errors.Join(err, failed)
	}
	return e, err
}

// Replays stops all agents and recomputes every decision in their journals. It returns one
// sentence a node; the error names the first decision that differs.
func (a *Arena) Replays(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := a.Cluster.StopAll(ctx); err != nil {
		return nil, err
	}
	var out []string
	for _, n := range a.Cluster.Nodes() {
		report, err := replay.Check(n.JournalDir(), replay.AnyProgram)
		if err != nil {
			return out, fmt.Errorf("replay the journal of %s: %w", n.Name(), err)
		}
		if report.Compared == 0 {
			return out, fmt.Errorf("replay the journal of %s: it holds no decision to compare", n.Name())
		}
		out = append(out, fmt.Sprintf("%s: %d decisions recomputed and equal, %d epochs, %d gaps, %d not comparable",
			n.Name(), report.Compared, report.Epochs, report.Gaps, report.Uncounted))
	}
	return out, nil
}

// pause waits for d; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
