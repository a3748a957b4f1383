package fsm

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// written is a place in the history of writes.
type written struct {
	by     events.NodeName
	branch *branch
	lsn    events.LSN
}

// has reports whether the server's history contains it.
func (p *server) has(w written) bool {
	limit := p.lsn
	for b := p.branch; b != nil; b = b.parent {
		if b == w.branch {
			return w.lsn <= limit
		}
		limit = b.fork
	}
	return false
}

func (p *server) streamsFrom(up *server) bool {
	return p.streaming && p.upstream != nil && p.upstream.Name == up.node.name
}

// stalls: in synchronous mode streams stand still now and then, or a replica would have
// everything by chance.
func (p *server) stalls() bool {
	w := p.node.w
	if w.syncOn && !w.calm && w.now >= p.slow && w.pick(60) == 0 {
		p.slow = w.now.Add(w.between(50*time.Millisecond, 1500*time.Millisecond))
	}
	return w.now < p.slow
}

// acknowledge tells clients what is safe by the setting in force: everything, or what all
// whom commits wait for have flushed. From when there is a sync key, that is a promise.
func (p *server) acknowledge() {
	upTo := p.lsn
	for _, name := range p.names.Names {
		there := events.LSN(0)
		for _, n := range p.node.w.nodes {
			if sameName(n.name, name) && n.pg.streamsFrom(p) && n.pg.branch == p.branch {
				there = n.pg.lsn
			}
		}
		upTo = min(upTo, there)
	}
	if len(p.names.Names) == 0 && p.names.Hold {
		upTo = 0
	}
	p.acked = max(p.acked, upTo)
	w := p.node.w
	if v, ok := w.view(w.nodes[0].watch); ok && p.acked > 0 && v.Sync.Leader != "" && p.rogue == 0 && w.syncOn {
		w.safe = &written{by: p.node.name, branch: p.branch, lsn: p.acked}
	}
}

// judgePromotion is the promise of synchronous mode: whoever is promoted by its agent has
// all that a client was told is safe.
func (w *world) judgePromotion(p *server) {
	w.t.Helper()
	if w.safe != nil && p.armed.Revision != 0 && !p.has(*w.safe) {
		w.fail("%s is promoted without what %s acknowledged, up to %d of timeline %d", p.node.name, w.safe.by, w.safe.lsn, w.safe.branch.number)
	}
}

// synchronous turns the mode on or off in the config key.
func (w *world) synchronous(on bool) {
	w.note("synchronous mode: %v", on)
	w.syncOn = on
	w.safe = nil
	operator := w.store.Client("operator")
	defer func() { _ = operator.Close() }()
	_, err := operator.Commit(context.Background(), dcs.Txn{Writes: []dcs.Write{dcs.Put(dcs.KeyConfig, []byte(w.config(false)))}})
	if err != nil {
		w.fail("write the config key: %v", err)
	}
}

// powerCut takes the primary away, and perhaps another member with it.
func (w *world) powerCut() {
	p := w.primary()
	if p == nil {
		return
	}
	for i, n := range w.nodes {
		if n != p && w.pick(3) > 0 {
			continue
		}
		w.note("%s node killed", n.name)
		n.kill()
		n.pg.die(false, false)
		n.boots++
		w.after(w.between(0, time.Duration(1+2*(i%2))*time.Second), n.start)
	}
}

// sole: nobody has all that was acknowledged but that member, and perhaps another one.
func (w *world) sole(n *node) bool {
	v, ok := w.view(n.watch)
	return !ok || w.syncOn && (sameName(v.Sync.Leader, n.name) || hasName(v.Sync.Standbys, n.name))
}

// config is the config key's content.
func (w *world) config(pause bool) string {
	return fmt.Sprintf(`{"ttl":2,"pause":%v,"synchronous_mode":%v,"synchronous_mode_strict":%v}`, pause, w.syncOn, w.strict)
}

// inSync: the sync key names a standby that streams from the primary.
func (w *world) inSync() bool {
	v, ok := w.view(w.nodes[0].watch)
	return ok && len(v.Sync.Standbys) == 1 && w.healthy()
}

// In synchronous mode nothing that was acknowledged is lost, whatever happens but an
// operator's failover to whom he likes: members, servers and the store fail at every
// step of enabling, replacing and losing standbys, and of taking over. In the end there is a
// synchronous standby again.
func TestNothingAcknowledgedIsLostInSynchronousMode(t *testing.T) {
	seeds := 16
	if testing.Short() {
		seeds = 6
	}
	if f := flag.Lookup("rapid.checks"); f != nil && f.Value.String() != f.DefValue {
		if _, err := fmt.Sscan(f.Value.String(), &seeds); err != nil {
			t.Fatal(err)
		}
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, uint64(seed), 2+seed%3, args{})
			w.strict = seed%4 == 3
			if !w.run(30*time.Second, w.healthy) {
				w.fail("no healthy cluster within 30 s of the start")
			}
			w.synchronous(true)
			w.run(w.between(0, 2*time.Second), nil)
			for range 10 + w.pick(10) {
				w.trouble()
				if w.pick(2) == 0 {
					w.run(w.between(0, 100*time.Millisecond), nil)
					w.powerCut()
				}
				w.run(w.between(0, 2*time.Second), nil)
			}
			w.peace()
			if !w.run(time.Minute, w.inSync) {
				w.fail("no synchronous standby within a minute of peace")
			}
			w.synchronous(false)
			if !w.run(10*time.Second, func() bool {
				v, ok := w.view(w.nodes[0].watch)
				p := w.primary()
				return ok && v.Sync.Version == 0 && p != nil && p.pg.names.Own
			}) {
				w.fail("synchronous mode does not end")
			}
		})
	}
}
