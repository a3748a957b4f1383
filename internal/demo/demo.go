package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
	"github.com/pgregent/regent/internal/sandbox/workload"
)

// Options of a demo.
type Options struct {
	// Exit ends the demo after its script; otherwise it stays up until the context ends.
	Exit bool
	// Keep leaves the cluster's folder in place.
	Keep bool
	// Store is where the agents keep their state, in themselves by default. StoreProgram is the
	// name of its server among the base's programs, the usual one by default.
	Store        sandbox.StoreKind
	StoreProgram string
	// Out is where it is told, Color whether terminals' colours are wanted there.
	Out   io.Writer
	Color bool
}

// ErrPromise is wrapped by the error of a demo in which something was seen that Regent
// promises not to happen.
var ErrPromise = errors.New("a promise was broken")

// errInterrupted is all there is to say of a wait that somebody ended.
var errInterrupted = errors.New("interrupted before the script was over")

// demo is one run.
type demo struct {
	stage
	opt     Options
	base    *sandbox.Base
	cluster *sandbox.Cluster
	writer  *workload.Writer
	watcher *workload.Watcher
	// lost are the acknowledged rows that are gone, sorted.
	lost []int64
	// broken are the promises that were.
	broken []string
	// outages of the acts so far.
	outages []outage
	// listed: the table has been explained.
	listed bool
	// interrupted reports whether somebody ended the demo early.
	interrupted func() bool
}

// outage is for how long the client could not write in an act.
type outage struct {
	what   string
	length time.Duration
}

// Run runs the demo in a base. It returns nil when the script ran to its end and nothing
// promised was broken, and when ctx ended the time after the script.
func Run(ctx context.Context, base *sandbox.Base, o Options) (err error) {
	set := sandbox.Options{Dir: filepath.Join(base.Dir, "demo"), Bin: base.Bin, PGBin: base.PGBin, Keep: o.Keep}
	set.TTL, set.LoopWait, set.RetryTimeout = o.Store.Timings()
	if program := o.Store.Program(); program != "" {
		if o.StoreProgram != "" {
			program = o.StoreProgram
		}
		server, failed := sandbox.StartStore(ctx, o.Store, filepath.Join(base.Bin, program), filepath.Join(base.Dir, "store"))
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		set.Store = server.Section()
	}
	return run(ctx, base, o, set)
}

func run(ctx context.Context, base *sandbox.Base, o Options, set sandbox.Options) (err error) {
	cluster, err := sandbox.New(set)
	if err != nil {
		return err
	}
	d := &demo{stage: stage{out: o.Out, began: time.Now(), color: o.Color}, opt: o, base: base, cluster: cluster,
		interrupted: func() bool { return ctx.Err() != nil }}
	defer func() {
		err = errors.Join(err, d.cluster.Close())
		if ctx.Err() != nil || err == nil {
			d.print("\n")
			d.step("everything was stopped and removed")
		}
	}()
	d.writer = workload.NewWriter(workload.WriterConfig{DSN: cluster.DSN(), Nodes: cluster.PortNames(), Origin: d.began})
	d.watcher = workload.NewWatcher(d.began, cluster.Targets())
	return d.underLoad(ctx)
}

// underLoad plays the script, with the client and the watcher beside it.
func (d *demo) underLoad(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var load sync.WaitGroup
	var errs [2]error
	if err := d.open(ctx); err != nil {
		return err
	}
	load.Go(func() { errs[0] = d.writer.Run(ctx) })
	load.Go(func() { errs[1] = d.watcher.Run(ctx) })
	err := d.script(ctx)
	stop()
	load.Wait()
	return errors.Join(err, errs[0], errs[1])
}

// script is the whole of it, after the opening.
func (d *demo) script(ctx context.Context) error {
	for _, part := range []func(context.Context) error{d.list, d.client, d.nodeDies, d.agentDies, d.switchover, d.journals} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	if err := d.balance(ctx); err != nil {
		return err
	}
	if d.opt.Exit {
		return nil
	}
	d.invite()
	<-ctx.Done()
	return nil
}

// wait lets time pass, unless ctx ends.
func (d *demo) wait(ctx context.Context, t time.Duration) {
	select {
	case <-time.After(t):
	case <-ctx.Done():
	}
}

// breach notes a broken promise.
func (d *demo) breach(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	d.broken = append(d.broken, text)
	d.step("%s", d.paint(red, "THIS MUST NOT HAPPEN: "+text))
}

// since is a moment on the history's clock.
func (d *demo) since(t time.Time) time.Duration { return t.Sub(d.began) }

// loss counts the acknowledged rows that went missing since it was last called.
func (d *demo) loss(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	acked := d.writer.Log()
	present, err := workload.Rows(ctx, d.cluster.DSN(), workload.Table)
	if err != nil {
		return 0, err
	}
	count := 0
	for _, a := range acked.Missing(present) {
		if _, known := slices.BinarySearch(d.lost, a.Seq); !known {
			count++
			d.lost = append(d.lost, a.Seq)
		}
	}
	slices.Sort(d.lost)
	return count, nil
}

// outage tells the longest time without an acknowledged insert since a moment.
func (d *demo) outage(what string, from time.Time) {
	gap := d.writer.Log().LongestGap(d.since(from), d.since(time.Now()))
	d.outages = append(d.outages, outage{what, gap.Length()})
	d.step("%s", d.paint(bold, "the client's outage: "+duration(gap.Length())))
}

// judgeRoles looks for two primaries since a moment.
func (d *demo) judgeRoles(from time.Time) {
	spans := slices.Concat(d.watcher.Spans(), d.writer.Spans())
	spans = slices.DeleteFunc(spans, func(s history.Span) bool { return s.LastAnswered < d.since(from) })
	for _, o := range history.Overlaps(spans) {
		if o.Proven {
			d.breach("%s", o)
		}
	}
}
