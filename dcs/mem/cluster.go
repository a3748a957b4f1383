package mem

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// Cluster is the store's content, shared by its clients. It is safe for concurrent use.
type Cluster struct {
	now func() events.Instant

	// mu guards all below. Calls end the leases that are past before they take effect.
	mu       sync.Mutex
	revision events.Revision
	keys     map[string]dcs.KV
	leases   map[events.LeaseID]lease
	granted  int
	faults   []*Fault
	late     []func()
	cut      map[string]bool
	// changed is closed and replaced whenever a watcher may have news.
	changed chan struct{}
}

type lease struct {
	ttl      time.Duration
	deadline events.Instant
}

// New returns an empty cluster that reads the time from now.
func New(now func() events.Instant) *Cluster {
	return &Cluster{
		now:     now,
		keys:    map[string]dcs.KV{},
		leases:  map[events.LeaseID]lease{},
		cut:     map[string]bool{},
		changed: make(chan struct{}),
	}
}

// Expire ends the leases whose time has come and reports whether there were any.
// Every call of a client does it too; tests that move a clock by hand call it so
// that watchers learn without one.
func (c *Cluster) Expire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.expireLocked()
}

// NextDeadline is when the next lease ends; ok is false when there is none.
func (c *Cluster) NextDeadline() (at events.Instant, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.leases {
		if !ok || l.deadline < at {
			at, ok = l.deadline, true
		}
	}
	return at, ok
}

// Run ends leases on time until ctx ends, for a cluster whose clock is real.
func (c *Cluster) Run(ctx context.Context) error {
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		wait := time.Hour
		if at, ok := c.NextDeadline(); ok {
			wait = max(0, at.Sub(c.now()))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
			timer.Stop()
		case <-timer.C:
			c.Expire()
		}
	}
}

func (c *Cluster) expireLocked() bool {
	now, some := c.now(), false
	ended := map[events.LeaseID]bool{}
	for id, l := range c.leases {
		if l.deadline <= now {
			ended[id], some = true, true
		}
	}
	c.endLocked(ended)
	return some
}

func (c *Cluster) endLocked(ids map[events.LeaseID]bool) {
	gone := false
	for id := range ids {
		delete(c.leases, id)
	}
	for key, kv := range c.keys {
		if kv.Lease != "" && ids[kv.Lease] {
			delete(c.keys, key)
			gone = true
		}
	}
	if gone {
		c.revision++
		c.notifyLocked()
	}
}

func (c *Cluster) notifyLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Cluster) viewLocked() dcs.View {
	now := c.now()
	v := dcs.View{Revision: c.revision, At: now}
	for _, kv := range c.keys {
		v.KVs = append(v.KVs, kv)
	}
	sort.Slice(v.KVs, func(i, j int) bool { return v.KVs[i].Key < v.KVs[j].Key })
	return v
}

func (c *Cluster) commitLocked(t dcs.Txn) (events.Revision, error) {
	for _, g := range t.Guards {
		kv, found := c.keys[g.Key]
		if !g.Holds(kv, found) {
			return 0, fmt.Errorf("commit: %w: the guard on %s failed", dcs.ErrRefused, g.Key)
		}
	}
	for _, w := range t.Writes {
		if _, alive := c.leases[w.Lease]; !w.Delete && w.Lease != "" && !alive {
			return 0, fmt.Errorf("commit: %w: lease %s is gone", dcs.ErrRefused, w.Lease)
		}
	}
	c.revision++
	for _, w := range t.Writes {
		if w.Delete {
			delete(c.keys, w.Key)
			continue
		}
		kv := dcs.KV{
			Key: w.Key, Value: append([]byte(nil), w.Value...), Lease: w.Lease, Created: c.revision, Version: c.revision,
		}
		if old, ok := c.keys[w.Key]; ok {
			kv.Created = old.Created
		}
		c.keys[w.Key] = kv
	}
	c.notifyLocked()
	return c.revision, nil
}

func (c *Cluster) grantLocked(id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
	if ttl <= 0 {
		return dcs.Lease{}, fmt.Errorf("grant: %w: ttl %v", dcs.ErrBroken, ttl)
	}
	if id == "" {
		c.granted++
		id = events.LeaseID("lease-" + strconv.Itoa(c.granted))
	}
	if _, exists := c.leases[id]; exists {
		return dcs.Lease{}, fmt.Errorf("grant: %w: lease %s exists", dcs.ErrRefused, id)
	}
	c.leases[id] = lease{ttl: ttl, deadline: c.now().Add(ttl)}
	c.notifyLocked() // Run must look at the new deadline
	return dcs.Lease{ID: id, TTL: ttl}, nil
}

func (c *Cluster) renewLocked(id events.LeaseID) (dcs.Lease, error) {
	l, ok := c.leases[id]
	if !ok {
		return dcs.Lease{}, fmt.Errorf("renew: %w: lease %s is gone", dcs.ErrRefused, id)
	}
	l.deadline = c.now().Add(l.ttl)
	c.leases[id] = l
	out := dcs.Lease{ID: id, TTL: l.ttl}
	for key, kv := range c.keys {
		if kv.Lease == id {
			out.Keys = append(out.Keys, key)
		}
	}
	sort.Strings(out.Keys)
	return out, nil
}
