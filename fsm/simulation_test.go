package fsm

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
)

// Worlds that are given trouble, and then peace: at no time do two members accept
// writes, and peace brings a primary that all others follow, within a minute. A failing
// seed prints its story. More seeds: -rapid.checks=1000; one: -run 'Survives/SEED$' with
// that many.
func TestTheClusterSurvives(t *testing.T) {
	seeds := 24
	if testing.Short() {
		seeds = 6
	}
	for _, seed := range chosenSeeds(t, seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			a := args{}
			if seed%5 == 4 {
				a["start_timeout"] = "0s"
			}
			w := newWorld(t, uint64(seed), 1+seed%4, a)
			if !w.run(30*time.Second, w.healthy) {
				w.fail("no healthy cluster within 30 s of the start")
			}
			for range 6 + w.pick(6) {
				w.trouble()
				w.run(w.between(0, 3*time.Second), nil)
			}
			w.peace()
			if !w.run(time.Minute, w.healthy) {
				w.fail("no healthy cluster within a minute of peace")
			}
			since := w.now
			if w.run(5*time.Second, nil); !w.healthy() || w.now.Sub(since) != 5*time.Second {
				w.fail("the cluster did not stay healthy")
			}
		})
	}
}

// chosenSeeds are that many, or as many as the flag says.
func chosenSeeds(t *testing.T, seeds int) []int {
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() != f.DefValue {
		if _, err := fmt.Sscan(f.Value.String(), &seeds); err != nil {
			t.Fatal(err)
		}
	}
	out := make([]int, seeds)
	for i := range out {
		out[i] = i
	}
	return out
}

// situations are states that machines in trouble come through.
func situations(t testing.TB) []State {
	var visited []State
	for seed := range 4 {
		w := newWorld(t, uint64(1000+seed), 3, args{})
		if seed%2 == 1 {
			w.run(time.Second, w.healthy)
			w.synchronous(true)
		}
		for range 15 {
			w.run(w.between(0, 2*time.Second), nil)
			for range 8 {
				w.run(20*time.Millisecond, nil)
				for _, n := range w.nodes {
					if n.up {
						visited = append(visited, n.s)
					}
				}
			}
			w.trouble()
		}
	}
	return representatives(visited)
}

// trouble is one thing going wrong, or an operator's wish. Deleting the leader key by
// hand is not among them: while its holder's agent is dead or frozen, that takes the
// promise away with the key.
func (w *world) trouble() {
	n := w.nodes[w.pick(len(w.nodes))]
	if p := w.primary(); p != nil && w.pick(2) == 0 {
		n = p
	}
	for w.pick(3) == 0 {
		w.storeTrouble(n)
	}
	switch w.pick(16) {
	case 0:
		n.kill()
		w.after(w.between(0, 4*time.Second), n.start)
	case 1:
		w.note("%s PostgreSQL killed", n.name)
		n.pg.die(false, false)
	case 2:
		w.note("%s node killed", n.name)
		n.kill()
		n.pg.die(false, false)
		n.boots++
		if w.pick(3) == 0 {
			w.note("%s its journal is lost", n.name)
			n.s = State{}
		}
		w.after(w.between(0, 6*time.Second), n.start)
	case 3:
		w.note("%s cut off from the store", n.name)
		w.setOffline(n, true)
		w.after(w.between(0, 5*time.Second), func() { w.setOffline(n, false) })
	case 4:
		o := w.nodes[w.pick(len(w.nodes))]
		key := [2]int{min(n.index, o.index), max(n.index, o.index)}
		w.note("%s and %s can't talk", n.name, o.name)
		w.cut[key] = true
		w.after(w.between(0, 5*time.Second), func() { delete(w.cut, key) })
	case 5:
		if n.up && !n.frozen {
			w.note("%s asked to end", n.name)
			n.take(events.ShutdownRequested{By: "SIGTERM"})
		}
	case 6:
		n.freeze(w.between(200*time.Millisecond, 4*time.Second))
	case 7:
		if n.up && !n.frozen {
			w.note("%s switchover asked for", n.name)
			n.take(events.SwitchoverRequested{ID: "s", From: n.name, To: w.someone()})
		}
	case 8:
		if n.up && !n.frozen {
			w.note("%s restart asked for", n.name)
			n.take(events.RestartRequested{ID: "r"})
		}
	case 9:
		if p := n.pg; p.running && p.recovery && !n.frozen {
			w.note("%s promoted behind its agent's back", n.name)
			p.promote()
			p.rogue = w.now
			n.later(5*time.Millisecond, func() { n.take(events.UnexpectedPrimary{Timeline: p.branch.number}) })
		}
	case 10:
		ttl := []time.Duration{2 * time.Second, 3 * time.Second, 5 * time.Second}[w.pick(3)]
		w.note("ttl becomes %s", ttl)
		for _, x := range w.nodes {
			x.set.TTL = ttl
			x.later(w.between(0, 100*time.Millisecond), func() { x.take(events.ConfigChanged{Settings: x.set}) })
		}
	case 12:
		if w.syncOn {
			return // it promises nothing in maintenance mode
		}
		w.maintenance(true)
		if w.pick(3) > 0 {
			w.after(w.between(0, 4*time.Second), func() { w.maintenance(false) })
		}
	case 14:
		if n.up && !n.frozen {
			w.note("%s new copy asked for", n.name)
			n.take(events.ReinitRequested{ID: "i", Force: w.pick(2) == 0})
		}
	case 15:
		if n.up && !n.frozen {
			at := n.w.now.Add(w.between(0, 2*time.Second))
			w.note("%s restart scheduled", n.name)
			n.take(events.RestartRequested{ID: "l", Schedule: &events.RestartSchedule{At: "later", Wall: int64(at)}})
		}
	case 13:
		if n.up && !n.frozen && !w.syncOn { // a failover may cost what is asked
			w.note("%s failover asked for", n.name)
			n.take(events.FailoverRequested{ID: "f", To: n.name})
		}
	case 11:
		if n.pg != nil && len(w.nodes) > 2 && !n.pg.writable() && !w.sole(n) {
			w.note("%s data directory removed", n.name)
			n.pg.die(false, false)
			n.pg.data, n.pg.branch, n.pg.system = false, nil, ""
		}
	}
}

// maintenance turns the mode on or off in the config key.
func (w *world) maintenance(on bool) {
	if w.moves > 0 {
		return // the config key has more to say
	}
	w.note("maintenance mode: %v", on)
	raw := w.config(on)
	operator := w.store.Client("operator")
	defer func() { _ = operator.Close() }()
	_, err := operator.Commit(context.Background(), dcs.Txn{Writes: []dcs.Write{dcs.Put(dcs.KeyConfig, []byte(raw))}})
	if err != nil {
		w.fail("write the config key: %v", err)
	}
}

func (w *world) storeTrouble(n *node) {
	kinds := []mem.Kind{mem.Refuse, mem.Lose, mem.LoseReply, mem.Delay}
	ops := []mem.Op{"", mem.OpView, mem.OpCommit, mem.OpGrant, mem.OpRenew, mem.OpRevoke}
	f := mem.Fault{Client: string(n.name), Op: ops[w.pick(len(ops))], Kind: kinds[w.pick(len(kinds))], Times: 1 + w.pick(4)}
	if f.Kind == mem.Refuse && f.Op != mem.OpCommit {
		f.Kind = mem.Lose // a lease that is there is never refused
	}
	w.note("%s store fault %+v", n.name, f)
	store := w.store
	if w.twoStores {
		store = w.stores[w.pick(2)]
	}
	store.Inject(f)
	w.after(w.between(0, 800*time.Millisecond), func() { store.Deliver() })
}

func (w *world) setOffline(n *node, off bool) {
	n.offline = off
	for _, s := range w.stores {
		s.Cut(string(n.name), off)
	}
}

func (w *world) someone() events.NodeName {
	if i := w.pick(len(w.nodes) + 1); i < len(w.nodes) {
		return w.nodes[i].name
	}
	return ""
}

// peace ends all faults. What is under way goes on.
func (w *world) peace() {
	w.note("peace")
	w.calm = true
	for _, s := range w.stores {
		s.ClearFaults()
		s.Deliver()
	}
	clear(w.cut)
	for _, n := range w.nodes {
		w.setOffline(n, false)
	}
	w.maintenance(false)
}

// In peace a switchover and a clean end of the holder's agent lose nothing, and take
// no longer than stopping and promoting do; the death of a node takes ttl and a race.
func TestChangesOfTheLeader(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, uint64(seed), 3, args{})
			w.calm = true
			if !w.run(20*time.Second, w.healthy) {
				w.fail("no healthy cluster")
			}
			for range 3 {
				w.change("switchover", 600*time.Millisecond, true, func(old *node) {
					old.take(events.SwitchoverRequested{ID: "s", From: old.name})
				})
				w.change("end of the agent", 600*time.Millisecond, true, func(old *node) {
					old.take(events.ShutdownRequested{By: "SIGTERM"})
				})
				w.change("death of the node", 3*time.Second, false, func(old *node) {
					old.kill()
					old.pg.die(false, false)
					w.after(5*time.Second, old.start)
				})
				w.change("death of the agent", 3*time.Second, false, func(old *node) {
					old.kill()
					w.after(5*time.Second, old.start)
				})
			}
		})
	}
}

// change lets the leader change, and looks at what that costs.
func (w *world) change(what string, outage time.Duration, lossless bool, do func(*node)) {
	w.t.Helper()
	old := w.primary()
	w.note("%s of %s", what, old.name)
	do(old)
	last := w.wrote
	moved := func() bool { p := w.primary(); return p != nil && p != old }
	if !w.run(outage+100*time.Millisecond, func() bool {
		if p := w.primary(); p == old {
			last = w.now
		}
		return moved()
	}) {
		w.fail("%s: no other primary", what)
	}
	if gap := w.now.Sub(last); gap > outage {
		w.fail("%s: nobody accepted writes for %s", what, gap)
	}
	w.t.Logf("%s: nobody accepted writes for %s", what, w.now.Sub(last).Round(time.Millisecond))
	if lossless && !old.pg.contained(w.primary().pg) {
		w.fail("%s: the new primary lacks what the old one had", what)
	}
	if !w.run(20*time.Second, w.healthy) {
		w.fail("%s: no healthy cluster afterwards", what)
	}
}
