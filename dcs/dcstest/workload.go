package dcstest

import (
	"context"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

const (
	// maxCalls of one client of a workload: the checker's work grows steeply with the
	// length of a history, and a fast store would fill the time with little new.
	maxCalls = 400
	// groups of two keys. More of them is less contention and less work for the checker.
	groups = 4
)

// Pace of a workload's clients.
type Pace struct {
	// Timeout of each call.
	Timeout time.Duration
	// Between is how long a client waits after each call.
	Between time.Duration
	// TTL of the leases; zero: no leases. Shorter than what clients take between
	// calls, some end by themselves.
	TTL time.Duration
	// Late is how much later than its TTL a lease may end, at the worst.
	Late time.Duration
}

// Workload lets several clients read, write under guards, grant, renew and revoke at
// random until ctx ends or they did enough, and returns what they saw, for Check. Calls
// that the store says didn't happen are left out.
func Workload(ctx context.Context, stores []dcs.Store, prefix string, pace Pace) []porcupine.Operation {
	h := &history{began: time.Now()}
	var wg sync.WaitGroup
	for id := range 2 * len(stores) {
		c := &client{
			id: id, store: stores[id%len(stores)], prefix: prefix, pace: pace, h: h,
			rng: rand.New(rand.NewSource(int64(id))), leases: map[int]mine{},
		}
		wg.Go(func() {
			for n := 0; ctx.Err() == nil && n < maxCalls; n++ {
				c.once(ctx, n)
				rest(ctx, pace.Between)
			}
		})
	}
	wg.Wait()
	return h.finish(pace.Late)
}

func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// client of a workload.
type client struct {
	id     int
	store  dcs.Store
	prefix string
	pace   Pace
	h      *history
	rng    *rand.Rand
	// seen is what it read last of each group, leases its lease for each.
	seen   [groups]*dcs.View
	leases map[int]mine
}

// mine is a lease that a client holds, and when it will look after it: sometimes early,
// sometimes late.
type mine struct {
	id   string
	next time.Time
}

func (c *client) held(id events.LeaseID) mine {
	return mine{string(id), time.Now().Add(time.Duration((0.3 + c.rng.Float64()) * float64(c.pace.TTL)))}
}

func (c *client) key(group, cell int) string { return fmt.Sprintf("%s/%d/%d", c.prefix, group, cell) }

// once makes one random call.
func (c *client) once(ctx context.Context, n int) {
	group := c.rng.Intn(groups)
	ctx, cancel := context.WithTimeout(ctx, c.pace.Timeout)
	defer cancel()
	lease, has := c.leases[group]
	due := has && time.Now().After(lease.next)
	switch choice := c.rng.Intn(10); {
	case c.seen[group] == nil:
		c.read(ctx, group)
	case due && choice < 8:
		c.renew(ctx, group, lease.id)
	case due:
		c.revoke(ctx, group, lease.id)
	case c.pace.TTL > 0 && !has && choice < 2:
		c.grant(ctx, group, fmt.Sprintf("%s-%d-%d", strings.ReplaceAll(c.prefix, "/", "-"), c.id, n))
	case choice < 5:
		c.read(ctx, group)
	default:
		c.write(ctx, group, fmt.Sprintf("%d-%d", c.id, n))
	}
}

func (c *client) read(ctx context.Context, group int) {
	in, call := step{group: group, verb: read}, c.h.now()
	v, err := c.store.View(ctx, dcs.Linearizable)
	if err != nil {
		return // it has no effect, so that it may have happened says nothing
	}
	c.seen[group] = &v
	out := answer{revision: int64(v.Revision)}
	for i := range out.cells {
		out.cells[i].value = valueIn(v, c.key(group, i))
		kv, _ := v.Get(c.key(group, i))
		out.cells[i].lease = string(kv.Lease)
	}
	c.h.add(c.id, in, out, call, nil)
}

// write commits up to two puts or deletes under up to two guards on what was read last.
func (c *client) write(ctx context.Context, group int, unique string) {
	in := step{group: group, verb: write}
	var txn dcs.Txn
	for _, i := range c.some() {
		p := put{cell: i, value: unique}
		w := dcs.Put(c.key(group, i), []byte(unique))
		if lease, ok := c.leases[group]; ok && c.rng.Intn(2) == 0 {
			p.lease, w.Lease = lease.id, events.LeaseID(lease.id)
		}
		if c.rng.Intn(6) == 0 {
			p, w = put{cell: i, value: absent}, dcs.Write{Key: w.Key, Delete: true}
		}
		in.puts, txn.Writes = append(in.puts, p), append(txn.Writes, w)
	}
	if c.rng.Intn(4) > 0 {
		for _, i := range c.some() {
			g, asked := c.guard(group, i)
			in.guards, txn.Guards = append(in.guards, g), append(txn.Guards, asked)
		}
	}
	call := c.h.now()
	rev, err := c.store.Commit(ctx, txn)
	c.h.add(c.id, in, answer{revision: int64(rev)}, call, err)
}

// some of the two cells, in any order.
func (c *client) some() []int {
	return [][]int{{0}, {1}, {0, 1}, {1, 0}}[c.rng.Intn(4)]
}

// guard on what was read last of a cell, in one of the ways that guards can say it.
func (c *client) guard(group, i int) (guard, dcs.Guard) {
	kv, found := c.seen[group].Get(c.key(group, i))
	if !found {
		return guard{cell: i, value: absent}, dcs.Guard{Key: c.key(group, i), Absent: true}
	}
	g := guard{cell: i, value: string(kv.Value)}
	asked := dcs.ValueIs(c.key(group, i), g.value)
	if c.rng.Intn(2) == 0 {
		asked = dcs.Guard{Key: c.key(group, i), Version: kv.Version}
	}
	if kv.Lease != "" && c.rng.Intn(3) == 0 {
		g.lease, asked.Lease = string(kv.Lease), kv.Lease
	}
	return g, asked
}

func (c *client) grant(ctx context.Context, group int, id string) {
	call := c.h.now()
	l, err := c.store.Grant(ctx, events.LeaseID(id), c.pace.TTL)
	if err != nil {
		return // nobody will use it, whether it exists or not
	}
	c.leases[group] = c.held(l.ID)
	c.h.add(c.id, step{group: group, verb: grant, lease: string(l.ID)}, answer{}, call, nil)
	c.h.extend(string(l.ID), group, call, l.TTL, nil)
}

func (c *client) renew(ctx context.Context, group int, lease string) {
	call := c.h.now()
	l, err := c.store.Renew(ctx, events.LeaseID(lease))
	out := answer{keys: c.cellsOf(group, l.Keys)}
	c.h.extend(lease, group, call, l.TTL, err)
	c.leases[group] = c.held(events.LeaseID(lease))
	if dcs.ClassOf(err) == events.Refused {
		delete(c.leases, group)
	}
	if dcs.ClassOf(err) != events.Unknown { // it changes nothing but when the lease ends
		c.h.add(c.id, step{group: group, verb: renew, lease: lease}, out, call, err)
	}
}

// cellsOf names the cells behind keys, as state.attached does.
func (c *client) cellsOf(group int, keys []string) string {
	var out []string
	for i := range 2 {
		if slices.Contains(keys, c.key(group, i)) {
			out = append(out, fmt.Sprint(i))
		}
	}
	if len(out) != len(keys) {
		out = append(out, "others")
	}
	return strings.Join(out, " ")
}

func (c *client) revoke(ctx context.Context, group int, lease string) {
	call := c.h.now()
	err := c.store.Revoke(ctx, events.LeaseID(lease))
	c.h.add(c.id, step{group: group, verb: revoke, lease: lease}, answer{}, call, err)
	if err == nil {
		delete(c.leases, group)
	}
}
