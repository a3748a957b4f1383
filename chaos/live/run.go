package live

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
	"github.com/pgregent/regent/internal/sandbox/workload"
)

const (
	// settleWithin bounds the wait for a cluster that is new, or that a row has just left.
	settleWithin = 90 * time.Second
	// wholeWithin is how long a cluster may take after the last step, beside two leases.
	wholeWithin = 40 * time.Second
	// stepWithin bounds a step that names no deadline.
	stepWithin = 45 * time.Second
	// lookWithin bounds one look at a condition.
	lookWithin = 2 * time.Second
	// readWithin is how long the rows that are left may take to be read.
	readWithin = 20 * time.Second
	// minRate is how often per second every member is looked at, at least.
	minRate = 100
)

// run is one script on one lab.
type run struct {
	lab    *lab
	script *Script
	story  string // unique among the runs of a lab
	names  map[string]*sandbox.Node

	began    time.Time
	from     time.Duration // the first do, on the history's clock
	stepAt   time.Duration // when the present step began
	servers  map[string]int
	logAt    map[string]int
	timeline uint64
	unknown  int // inserts without an answer before

	bounds            []judge.Bound
	mayLose, mayBeTwo bool
	frozen            map[string]func()
	freezes           []history.Freeze
	downAt            map[string]time.Time
	broken            []string
	lostServers       []*sandbox.StoreServer

	over  context.Context // ends with the story
	work  sync.WaitGroup
	traps []*trap
	undo  []func() error
	lists *workload.Lists // nil: not in synchronous mode
	// streamed is since when all members stream, on the history's clock; zero while they don't.
	streamed atomic.Int64
}

func newRun(l *lab, s *Script) *run {
	return &run{
		lab: l, script: s, names: map[string]*sandbox.Node{}, servers: map[string]int{}, logAt: map[string]int{},
		frozen: map[string]func(){}, downAt: map[string]time.Time{},
	}
}

func (r *run) now() time.Duration { return time.Since(r.lab.arena.Origin) }

// node resolves a name of the vocabulary.
func (r *run) node(name string) (*sandbox.Node, error) {
	if name == "leader" {
		for member, role := range r.lab.arena.Watcher.Roles() {
			if role == history.Primary {
				return r.lab.cluster.Node(member), nil
			}
		}
		return nil, sandbox.ErrNoPrimary
	}
	if n := r.names[name]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("nobody is called %q", name)
}

func (r *run) at(name string, do func(*sandbox.Node) error) error {
	n, err := r.node(name)
	if err != nil {
		return err
	}
	return do(n)
}

func (r *run) isFrozen(n *sandbox.Node) bool {
	return r.frozen[string(sandbox.Whole)+" "+n.Name()] != nil || r.frozen[string(sandbox.Agent)+" "+n.Name()] != nil
}

// settle applies the settings, waits until the cluster is whole with them, and names the members.
func (r *run) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	if err := r.await(ctx, r.lab.wholeNow); err != nil {
		return err
	}
	for _, setting := range r.script.Settings {
		if err := r.set(ctx, setting); err != nil {
			return err
		}
	}
	primary, err := r.lab.cluster.AwaitStreaming(ctx)
	if err != nil {
		return err
	}
	var rest []*sandbox.Node
	for _, n := range r.lab.cluster.Nodes() {
		if n != primary {
			rest = append(rest, n)
		}
	}
	if r.script.Synchronous() {
		standby, err := r.lab.cluster.AwaitSyncStandby(ctx)
		if err != nil {
			return err
		}
		if standby == rest[1] {
			slices.Reverse(rest)
		}
	}
	r.names = map[string]*sandbox.Node{"primary": primary, "replica": rest[0], "other": rest[1]}
	if err := r.lab.arena.Writer.Await(ctx, 40, r.now()); err != nil {
		return err
	}
	return r.remember(ctx)
}

// remember notes how everything was before.
func (r *run) remember(ctx context.Context) (err error) {
	if r.timeline, err = r.lab.timeline(ctx); err != nil {
		return err
	}
	for _, n := range r.lab.cluster.Nodes() {
		r.servers[n.Name()], _ = n.PostmasterPID()
		r.logAt[n.Name()] = logSize(n)
	}
	r.began, r.from = time.Now(), r.now()
	r.story = fmt.Sprint(r.script.Name, " ", r.from)
	r.unknown = len(r.lab.arena.Writer.Log().Unknown)
	return nil
}

// await polls a condition until it holds.
func (r *run) await(ctx context.Context, holds func(context.Context) error) error {
	for {
		look, cancel := context.WithTimeout(ctx, lookWithin)
		err := holds(look)
		cancel()
		if err == nil {
			return nil
		}
		if pause(ctx, pollEvery) != nil {
			return err
		}
	}
}

// play goes through the steps until one doesn't come as it must. What it did is noted in r.
func (r *run) play(ctx context.Context) {
	story, end := context.WithCancel(ctx)
	r.over = story
	defer func() {
		end()
		r.work.Wait()
		for _, undo := range r.undo {
			_ = undo() // files that were only read
		}
	}()
	r.watchStreaming()
	if r.script.Synchronous() {
		r.startLists()
	}
	for _, s := range r.script.Steps {
		if r.leftOut(s) {
			continue
		}
		if err := r.step(ctx, s); err != nil {
			r.broken = append(r.broken, fmt.Sprintf("line %d: %s: %v", s.Line, s.Text, err))
			return
		}
	}
	r.whole(ctx)
}

// startLists has clients append to lists and read them until the story ends: where nothing that was
// acknowledged may be lost, all answers must be explained by one order of the questions.
func (r *run) startLists() {
	c, a := r.lab.cluster, r.lab.arena
	r.lists = workload.NewLists(workload.ListsConfig{DSN: c.DSN(), Nodes: c.PortNames(), Members: c.Targets(), Origin: a.Origin})
	r.work.Go(func() { _ = r.lists.Run(r.over) }) // it ends with the story, and has no other error
}

func (r *run) step(ctx context.Context, s Step) error {
	r.stepAt = r.now()
	ttl := r.lab.cluster.TTL()
	limit := stepWithin + ttl
	if s.Within != (Span{}) {
		limit = s.Within.Of(ttl)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	holds := func(ctx context.Context) error { return s.verb.holds(ctx, r, s.args) }
	switch {
	case s.verb.allow != nil:
		s.verb.allow(r)
		return nil
	case s.verb.bound != nil:
		b, err := r.resolve(s)
		r.bounds = append(r.bounds, b)
		return err
	case s.Kind == Do:
		return s.verb.do(ctx, r, s.args)
	case s.Kind == WaitFor:
		if err := r.await(ctx, holds); err != nil {
			return fmt.Errorf("not within %s: %w", limit, err)
		}
		return nil
	}
	until := time.Now().Add(s.For.Of(ttl))
	for {
		look, cancel := context.WithTimeout(ctx, lookWithin)
		err := holds(look)
		cancel()
		if err != nil || time.Now().After(until) {
			return err
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// whole waits until the cluster is, after the last step.
func (r *run) whole(ctx context.Context) {
	if len(r.frozen) > 0 || len(r.lostServers) > 0 || len(r.lab.links) > 0 {
		r.broken = append(r.broken, "the script leaves something frozen, lost or cut")
	}
	limit := wholeWithin + 2*r.lab.cluster.TTL()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := r.await(ctx, r.lab.wholeNow); err != nil {
		r.broken = append(r.broken, fmt.Sprintf("after the last step it wasn't whole within %s: %v", limit, err))
	}
	for r.streamed.Load() == 0 && pause(ctx, pollEvery) == nil { // the watch sees it on its next look
	}
}

// streamEvery is the time between two looks at who streams: each costs the servers a process.
const streamEvery = 100 * time.Millisecond

// watchStreaming notes since when all members stream, until the story ends.
func (r *run) watchStreaming() {
	r.streamed.Store(int64(r.from))
	r.work.Go(func() {
		for {
			look, cancel := context.WithTimeout(context.WithoutCancel(r.over), lookWithin)
			err := r.lab.allStream(look)
			cancel()
			if err != nil {
				r.streamed.Store(0)
			} else {
				r.streamed.CompareAndSwap(0, int64(r.now()))
			}
			if pause(r.over, streamEvery) != nil {
				return
			}
		}
	})
}

func logSize(n *sandbox.Node) int {
	info, err := os.Stat(n.LogFile())
	if err != nil {
		return 0 // it hasn't logged yet
	}
	return int(info.Size())
}
