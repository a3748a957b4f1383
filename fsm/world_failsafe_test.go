package fsm

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// Failsafe mode in the world: members ask each other over a network that can be cut.

// askFailsafe asks each member; one that is dead, frozen or cut off is silent until the time is
// over. An answer takes its way too, and may be lost on it after the promise was given.
func (n *node) askFailsafe(o Ordered, a AskFailsafe) {
	for i, m := range a.Members {
		id := fmt.Sprint(n.name, "-", n.run, "-", o.ID.Seq, "-", i)
		n.w.after(n.w.between(0, 20*time.Millisecond), func() { n.askOne(o, m.Name, id, a.TTL) })
	}
	n.later(a.Timeout, func() { n.finished(o, events.Done, events.Result{}) })
}

func (n *node) askOne(o Ordered, name events.NodeName, id string, ttl time.Duration) {
	for _, other := range n.w.nodes {
		if other.name != name || !other.up || other.frozen || n.w.apart(n, other) {
			continue
		}
		other.take(events.FailsafeAsked{ID: id, From: n.name, TTL: ttl})
		said, answered := other.said[id]
		if !answered || !n.w.calm && n.w.pick(15) == 0 {
			continue
		}
		ev := events.FailsafeAnswered{ID: o.ID, Member: name, Accepted: said.OK, Why: said.Text}
		n.later(n.w.between(0, 20*time.Millisecond), func() { n.take(ev) })
	}
}

func (n *node) failsafeWrite(a WriteFailsafe) dcs.Txn {
	mine := dcs.ValueIs(dcs.KeyLeader, string(n.name))
	mine.Lease = a.Lease
	urls := map[events.NodeName]string{}
	for _, m := range a.Members {
		urls[m.Name] = m.APIURL
	}
	w := dcs.Write{Key: dcs.KeyFailsafe, Delete: true}
	if len(urls) > 0 {
		w = dcs.Put(dcs.KeyFailsafe, dcs.EncodeFailsafe(urls))
	}
	return dcs.Txn{Guards: []dcs.Guard{mine, {Key: dcs.KeyFailsafe, Absent: a.Version == 0, Version: a.Version}}, Writes: []dcs.Write{w}}
}

// outage cuts everybody off from the store, whose leases end meanwhile.
func (w *world) outage(d time.Duration) {
	w.note("the store is away for %s", d)
	for _, n := range w.nodes {
		w.setOffline(n, true)
	}
	w.after(d, func() {
		w.note("the store is back")
		for _, n := range w.nodes {
			w.setOffline(n, false)
		}
	})
}

// With failsafe mode on, whatever goes wrong, with the store away for many a ttl, for all or for
// some, at no time do two members accept writes, and peace brings a healthy cluster.
func TestTheClusterSurvivesInFailsafeMode(t *testing.T) {
	seeds := 24
	if testing.Short() {
		seeds = 6
	}
	for _, seed := range chosenSeeds(t, seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, uint64(7000+seed), 2+seed%3, args{"failsafe_mode": ""})
			if !w.run(30*time.Second, w.healthy) {
				w.fail("no healthy cluster within 30 s of the start")
			}
			for range 6 + w.pick(6) {
				switch w.pick(4) {
				case 0:
					w.outage(w.between(0, 8*time.Second))
				case 1:
					w.switchMode()
				}
				w.trouble()
				w.run(w.between(0, 3*time.Second), nil)
			}
			w.peace()
			for _, n := range w.nodes {
				n.set.Failsafe = true
				n.later(0, func() { n.take(events.ConfigChanged{Settings: n.set}) })
			}
			if !w.run(time.Minute, w.healthy) {
				w.fail("no healthy cluster within a minute of peace")
			}
		})
	}
}

// switchMode turns failsafe mode off and on again, which members hear of at different times.
func (w *world) switchMode() {
	for _, on := range []bool{false, true} {
		d := time.Duration(0)
		if on {
			d = w.between(0, 6*time.Second)
		}
		w.after(d, func() {
			w.note("failsafe mode: %v", on)
			for _, n := range w.nodes {
				if n.offline {
					continue // it doesn't hear of it
				}
				n.set.Failsafe = on
				n.later(w.between(0, 500*time.Millisecond), func() { n.take(events.ConfigChanged{Settings: n.set}) })
			}
		})
	}
}

// The store is away for many a ttl, and all members answer: the primary goes on without a pause.
// Without one of them, or without the mode, it is stopped.
func TestThePrimaryGoesOnWithoutTheStore(t *testing.T) {
	for _, c := range []struct {
		name           string
		a              args
		silent, goesOn bool
	}{
		{"all answer", args{"failsafe_mode": ""}, false, true},
		{"one is silent", args{"failsafe_mode": ""}, true, false},
		{"failsafe mode is off", args{}, false, false},
	} {
		for seed := range 4 {
			t.Run(fmt.Sprint(c.name, "/", seed), func(t *testing.T) {
				w := newWorld(t, uint64(8000+seed), 3, c.a)
				w.calm = true
				if !w.run(20*time.Second, w.healthy) {
					w.fail("no healthy cluster")
				}
				w.run(5*time.Second, nil) // everybody is named
				old := w.primary()
				w.outage(12 * time.Second)
				if c.silent {
					w.nodes[(old.index+1)%3].kill()
				}
				stopped := w.run(11*time.Second, func() bool { return !old.pg.writable() })
				if stopped == c.goesOn {
					w.fail("the primary was stopped: %v", stopped)
				}
				if c.silent {
					w.nodes[(old.index+1)%3].start()
				}
				if c.goesOn && w.run(5*time.Second, func() bool { return !old.pg.writable() }) {
					w.fail("the primary was stopped when the store came back")
				}
				if !w.run(30*time.Second, w.healthy) {
					w.fail("no healthy cluster afterwards")
				}
			})
		}
	}
}

// cutOff takes a member's network away, but for the store.
func (w *world) cutOff(n *node) {
	for _, o := range w.nodes {
		if o != n {
			w.cut[[2]int{min(n.index, o.index), max(n.index, o.index)}] = true
		}
	}
}

// Whoever the failsafe key doesn't name isn't asked, and so doesn't lead, although it sees the leader
// key gone; nor does a host that was restarted and can't know what it had promised.
func TestWhoWasNotAskedOrForgotDoesNotLead(t *testing.T) {
	for seed := range 6 {
		t.Run(fmt.Sprint("not asked/", seed), func(t *testing.T) {
			w, primary, others := w3(t, uint64(8100+seed))
			late := others[1]
			late.kill()
			late.pg.die(false, false)
			w.run(10*time.Second, nil) // it is dropped from the key
			w.setOffline(primary, true)
			w.setOffline(others[0], true)
			w.run(4*time.Second, nil)
			w.cutOff(late)
			late.start()
			w.run(15*time.Second, nil)
			if !primary.pg.writable() || late.s.Phase == Racing {
				w.fail("%s should go on, and %s not race", primary.name, late.name)
			}
		})
		t.Run(fmt.Sprint("forgot/", seed), func(t *testing.T) {
			w, primary, others := w3(t, uint64(8200+seed))
			w.setOffline(primary, true)
			w.run(6*time.Second, nil)
			if !primary.pg.writable() {
				w.fail("the members did not vouch for %s", primary.name)
			}
			for _, o := range others {
				o.kill()
				o.pg.die(false, false)
				o.boots++
				if seed%2 == 1 {
					o.s = State{} // and its journal is lost
				}
			}
			w.cutOff(primary)
			for _, o := range others {
				w.after(50*time.Millisecond, o.start)
			}
			led := func() bool { return others[0].pg.writable() || others[1].pg.writable() }
			if !w.run(20*time.Second, led) {
				w.fail("nobody took over in the end")
			}
		})
	}
}

// w3 is a calm cluster of three in failsafe mode, whose key names them all.
func w3(t *testing.T, seed uint64) (w *world, primary *node, others []*node) {
	w = newWorld(t, seed, 3, args{"failsafe_mode": ""})
	w.calm = true
	if !w.run(20*time.Second, w.healthy) {
		w.fail("no healthy cluster")
	}
	w.run(5*time.Second, nil)
	for _, n := range w.nodes {
		if n.pg.writable() {
			primary = n
		} else {
			others = append(others, n)
		}
	}
	return w, primary, others
}
