package fsm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
)

// world is a small cluster in virtual time: machines, the model store, and servers
// that know timelines, positions and streaming, with every action carried out after
// a while, and faults. Nothing in it is real but the machines' decisions. One seed is
// one story.
type world struct {
	t     testing.TB
	now   events.Instant
	rand  uint64
	items []item
	order int
	store *mem.Cluster
	// stores are that one and another, which the cluster may be moved to.
	stores    [2]*mem.Cluster
	twoStores bool // trouble comes from both
	moves     int
	nodes     []*node
	pids      int
	calm      bool // faults are over
	log       []string
	wrote     events.Instant // when a row was last accepted
	cut       map[[2]int]bool
	// safe is the last write of which a client was told that it is safe: in synchronous
	// mode, whoever is promoted has it. Nil: nothing was promised.
	safe   *written
	syncOn bool
	strict bool
	// stepped, if set, sees every step of every machine.
	stepped func(n *node, before, after State, entry events.Entry, d Decision)
}

// item is something that will happen.
type item struct {
	at    events.Instant
	order int
	do    func()
}

const worldTick = 10 * time.Millisecond

func newWorld(t testing.TB, seed uint64, members int, a args) *world {
	w := &world{t: t, now: events.Instant(100 * time.Second), rand: seed, cut: map[[2]int]bool{}}
	for i := range w.stores {
		w.stores[i] = mem.New(func() events.Instant { return w.now })
	}
	w.store = w.stores[0]
	for i := range members {
		n := &node{w: w, index: i, said: map[string]Respond{}, name: events.NodeName(fmt.Sprintf("pg%02d", i+1)), m: New()}
		n.pg = &server{node: n}
		n.connect()
		n.set = a.settings(n.name)
		w.nodes = append(w.nodes, n)
	}
	for _, n := range w.nodes {
		w.after(w.between(0, 50*time.Millisecond), n.start)
	}
	w.after(worldTick, w.tick)
	return w
}

// pick returns 0 ≤ n < limit (splitmix64).
func (w *world) pick(limit int) int {
	w.rand += 0x9e3779b97f4a7c15
	z := w.rand
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return int((z ^ z>>31) >> 1 % uint64(limit))
}

func (w *world) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.pick(int((most-least)/time.Microsecond)+1))*time.Microsecond
}

func (w *world) after(d time.Duration, do func()) {
	w.order++
	w.items = append(w.items, item{w.now.Add(d), w.order, do})
}

// run lets everything happen that happens within d, and stops early when until holds.
func (w *world) run(d time.Duration, until func() bool) bool {
	w.t.Helper()
	for end := w.now.Add(d); ; {
		best := -1
		for i, x := range w.items {
			if best < 0 || x.at < w.items[best].at || (x.at == w.items[best].at && x.order < w.items[best].order) {
				best = i
			}
		}
		if best < 0 || w.items[best].at > end {
			w.now = end
			return until != nil && until()
		}
		x := w.items[best]
		w.items = slices.Delete(w.items, best, best+1)
		w.now = x.at
		x.do()
		w.judge()
		if until != nil && until() {
			return true
		}
	}
}

// tick is what goes on by itself: leases end, WAL flows, keepers watch their clocks,
// views reach their readers.
func (w *world) tick() {
	for _, s := range w.stores {
		s.Expire()
	}
	for _, n := range w.nodes {
		n.pg.fence()
	}
	for _, n := range w.nodes {
		n.pg.flow()
	}
	for _, n := range w.nodes {
		n.see()
	}
	w.after(worldTick, w.tick)
}

// judge is the promise: at most one member accepts writes, at any time.
func (w *world) judge() {
	w.t.Helper()
	var writable []string
	for _, n := range w.nodes {
		switch p := n.pg; {
		case !p.writable():
		case p.waived != nil || n.s.Settings.Pause:
			// In maintenance mode nothing is promised, and afterwards not before its agent
			// has heard of the end.
			w.wrote = w.now
		case p.rogue == 0:
			writable = append(writable, string(n.name))
		case n.up && w.now.Sub(max(p.rogue, n.awake)) > n.patience():
			w.fail("%s was promoted behind its agent's back, and is still writable", n.name)
		}
	}
	if len(writable) > 1 {
		w.fail("two members accept writes: %v", writable)
	}
	if len(writable) == 1 {
		w.wrote = w.now
	}
}

// healthy: one leads, the others stream from it.
func (w *world) healthy() bool {
	var leads int
	for _, n := range w.nodes {
		switch {
		case !n.up:
			return false
		case n.s.Phase == Leading && n.pg.writable():
			leads++
		case n.s.Phase != Following || !n.pg.streaming:
			return false
		}
	}
	return leads == 1
}

func (w *world) primary() *node {
	for _, n := range w.nodes {
		if n.pg.writable() {
			return n
		}
	}
	return nil
}

// apart reports whether two nodes can't talk to each other.
func (w *world) apart(a, b *node) bool {
	return w.cut[[2]int{min(a.index, b.index), max(a.index, b.index)}]
}

func (w *world) note(format string, a ...any) {
	w.log = append(w.log, fmt.Sprintf("%8.3f ", time.Duration(w.now).Seconds())+fmt.Sprintf(format, a...))
}

func (w *world) fail(format string, a ...any) {
	w.t.Helper()
	text := fmt.Sprintf(format, a...)
	for _, n := range w.nodes {
		text += fmt.Sprintf("\n%s up=%v phase=%s %s | %s | %s", n.name, n.up, n.s.Phase, n.s.Last.Reason.Rule, n.s.Last.Reason.Text, n.pg)
	}
	for _, line := range w.log[max(0, len(w.log)-120):] {
		text += "\n" + line
	}
	w.t.Fatalf("%s", text)
}

// ---- one member ----

type node struct {
	w      *world
	index  int
	name   events.NodeName
	m      *Machine
	s      State // survives the agent, as its journal does
	set    events.Settings
	pg     *server
	client *mem.Client
	watch  *mem.Client
	// at is the store in use, other a client of the other one; arrived is what is
	// remembered of the move that led there.
	at      int
	other   *mem.Client
	arrived string
	base    events.Revision // see agent.Options.KeeperBase

	up      bool
	boots   int
	run     int // outcomes of a former run reach nobody
	frozen  bool
	awake   events.Instant // since when its agent has been at work
	missed  []func()
	offline bool
	seen    events.Revision
	lane    []Ordered
	busy    bool
	aborted events.ActionID
	said    map[string]Respond // the answers to what was asked
	timer   int
	down    bool // the store has been told to be silent
}

// patience is how long a rogue may live beside an agent: one that has just started has
// to ask the store first, whose lease it may be.
func (n *node) patience() time.Duration {
	if n.pg.rogue < n.awake {
		return n.set.TTL + 700*time.Millisecond
	}
	return 700 * time.Millisecond
}

// start begins a run of the agent.
func (n *node) start() {
	if n.up {
		return
	}
	n.up, n.seen, n.lane, n.busy, n.down = true, 0, nil, false, false
	n.run++
	n.awake = n.w.now
	n.set.Pause, n.set.ConfigVersion = false, 0 // what the file says
	n.w.note("%s agent starts", n.name)
	n.take(events.AgentStarted{Node: n.name, Scope: "demo", Version: "test", Boot: fmt.Sprint("boot", n.boots), Settings: n.set,
		Run: fmt.Sprint(n.name, "-", n.run), Arrived: n.arrived})
	n.later(5*time.Millisecond, func() {
		found := events.KeeperFound{}
		if n.pg.running {
			found.PID, found.Armed, found.Deadline = n.pg.pid, n.pg.armed.Revision != 0, n.pg.armed.Deadline
			if n.pg.waived != nil {
				found.Waived, found.WaivedAt = n.pg.waived.Reason, max(n.pg.waived.Config, n.base+1)-n.base
			}
		}
		n.take(found)
	})
}

// kill ends the agent as SIGKILL does. The server and its keeper live on.
func (n *node) kill() {
	n.w.note("%s agent killed", n.name)
	n.up = false
	n.run++
}

// later does something for this run of the agent; a frozen one does it after the thaw.
func (n *node) later(d time.Duration, do func()) {
	run := n.run
	n.w.after(d, func() {
		switch {
		case run != n.run || !n.up:
		case n.frozen:
			n.missed = append(n.missed, do)
		default:
			do()
		}
	})
}

// see brings the newest view of the store to the machine.
func (n *node) see() {
	if !n.up || n.frozen || n.offline {
		return
	}
	v, ok := n.w.view(n.watch)
	if ok && v.Revision > n.seen {
		n.seen = v.Revision
		n.later(n.w.between(time.Millisecond, 20*time.Millisecond), func() { n.take(events.ClusterObserved{View: v}) })
	}
}

// take steps the machine, and carries out what it orders.
func (n *node) take(ev events.Event) {
	n.w.t.Helper()
	if seen, ok := ev.(events.ClusterObserved); ok {
		n.configure(seen.View)
	}
	for n.up {
		before := n.s
		entry := events.Entry{Seq: n.s.Seq + 1, At: n.w.now, Wall: int64(n.w.now), Event: ev}
		next, d := n.m.Step(n.s, entry)
		n.s = next
		if n.w.stepped != nil {
			n.w.stepped(n, before, next, entry, d)
		}
		if d.Fired() || d.Trigger != "" {
			n.w.note("%s %s: %s -%s-> %s: %s", n.name, ev.Kind(), d.From, d.Trigger, d.To, d.Reason.Text)
		}
		for _, bad := range Violations(before, next, d) {
			n.w.fail("%s: %s: %s", n.name, ev.Kind(), bad)
		}
		if n.s.Defects > 0 {
			n.w.fail("%s counted a defect: %+v", n.name, d)
		}
		for _, o := range d.Actions {
			n.carryOut(o)
		}
		if !d.Fired() {
			return
		}
		ev = events.Reconsider{}
	}
}

// configure brings a changed config key before the view that it came with, as agents do.
func (n *node) configure(v events.ClusterView) {
	if v.Config.Version == 0 || v.Config.Version <= n.set.ConfigVersion {
		return
	}
	pause := strings.Contains(string(v.Config.Raw), `"pause":true`)
	n.set.Sync = strings.Contains(string(v.Config.Raw), `"synchronous_mode":true`)
	n.set.SyncStrict = strings.Contains(string(v.Config.Raw), `"synchronous_mode_strict":true`)
	if n.set.Pause && !pause && n.pg.rogue != 0 {
		n.pg.rogue = n.w.now // its time is counted from here
	}
	n.set.ConfigVersion, n.set.Pause = v.Config.Version, pause
	n.take(events.ConfigChanged{Settings: n.set})
}

func (n *node) carryOut(o Ordered) {
	switch a := o.Action.(type) {
	case SetTimer:
		n.timer++
		mine := n.timer
		n.later(max(a.At.Sub(n.w.now), 0), func() {
			if mine == n.timer {
				n.take(TimerEvent(a.Name))
			}
		})
	case ObservePostgres:
		began := n.w.now
		n.later(n.w.between(time.Millisecond, 5*time.Millisecond), func() {
			n.take(events.PostgresObserved{State: n.pg.observe(), Began: began})
		})
	case Cancel:
		n.aborted = a.ID
		n.lane = slices.DeleteFunc(n.lane, func(x Ordered) bool { return x.ID == a.ID })
	case Exit:
		n.w.note("%s agent exits with %d %s", n.name, a.Code, a.Text)
		n.up = false
		n.run++
		if a.Code != 0 && n.w.calm {
			n.w.fail("%s: %s", n.name, a.Text)
		}
		n.w.after(n.w.between(100*time.Millisecond, time.Second), n.start)
	case Respond:
		n.said[a.ID] = a
	case ChangeStore:
		n.changeStore(a)
	default:
		if Operation(o.Action) {
			n.lane = append(n.lane, o)
			n.operate()
			return
		}
		n.execute(o)
	}
}

// finished reports an outcome.
func (n *node) finished(o Ordered, class events.Class, r events.Result) {
	n.take(events.ActionFinished{ID: o.ID, Action: o.Action.Kind(), Class: class, Why: "told by the world", Result: r})
}

// freeze stops agent, keeper and server for a while.
func (n *node) freeze(d time.Duration) {
	if n.frozen {
		return
	}
	n.w.note("%s freezes for %s", n.name, d)
	n.frozen = true
	n.w.after(d, func() {
		n.w.note("%s thaws", n.name)
		n.frozen, n.awake = false, n.w.now
		n.pg.fence() // the keeper's clock went on; what W measures is out of this world
		missed := n.missed
		n.missed = nil
		n.take(events.TimeJumped{By: d})
		for _, do := range missed {
			if n.up {
				do()
			}
		}
	})
}
