package mem

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// Client is one member's connection to the cluster. It implements dcs.Store.
type Client struct {
	cluster *Cluster
	name    string
	closed  chan struct{}
	watches sync.WaitGroup

	mu   sync.Mutex // guards the rest
	shut bool
	seen dcs.View // the newest view that this client was given, for Local reads
	ever bool     // whether there was one
}

var _ dcs.Store = (*Client)(nil)

// Client returns a new connection for the named member. Faults and cuts are
// addressed to that name.
func (c *Cluster) Client(name string) *Client {
	return &Client{cluster: c, name: name, closed: make(chan struct{})}
}

func (cl *Client) call(ctx context.Context, op Op, keys []string, effect func() error) error {
	select {
	case <-cl.closed:
		return fmt.Errorf("%s: %w: the client is closed", op, dcs.ErrUnavailable)
	default:
		return cl.cluster.call(ctx, cl.name, op, keys, effect)
	}
}

// View implements dcs.Store. A Local view is the newest that this client has got
// by any means, and so ages while the client is cut off.
func (cl *Client) View(ctx context.Context, consistency dcs.Consistency) (dcs.View, error) {
	var v dcs.View
	err := cl.call(ctx, OpView, nil, func() error {
		v = cl.cluster.viewLocked()
		return nil
	})
	cl.mu.Lock()
	defer cl.mu.Unlock()
	switch {
	case err == nil:
		cl.remember(v)
		return cl.seen, nil
	case consistency == dcs.Local && cl.ever && !cl.shut:
		v = cl.seen
		now := cl.cluster.now()
		v.Age, v.At = v.Age+now.Sub(v.At), now
		return v, nil
	default:
		return dcs.View{}, err
	}
}

func (cl *Client) remember(v dcs.View) {
	if !cl.ever || v.Revision >= cl.seen.Revision {
		cl.seen, cl.ever = v, true
	}
}

// Watch implements dcs.Store.
func (cl *Client) Watch(ctx context.Context) (<-chan dcs.View, error) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.shut {
		return nil, fmt.Errorf("watch: %w: the client is closed", dcs.ErrUnavailable)
	}
	out := make(chan dcs.View)
	cl.watches.Add(1)
	go func() {
		defer cl.watches.Done()
		defer close(out)
		cl.feed(ctx, out)
	}()
	return out, nil
}

// feed sends the newest view whenever there is one, for as long as the reader takes it.
func (cl *Client) feed(ctx context.Context, out chan<- dcs.View) {
	c := cl.cluster
	var sent *events.Revision
	for {
		c.mu.Lock()
		changed, cut := c.changed, c.cut[cl.name]
		v := c.viewLocked()
		c.mu.Unlock()
		send := out
		if cut || (sent != nil && *sent == v.Revision) {
			send = nil
		} else {
			cl.mu.Lock()
			cl.remember(v)
			cl.mu.Unlock()
		}
		select {
		case send <- v:
			sent = &v.Revision
		case <-changed:
		case <-ctx.Done():
			return
		case <-cl.closed:
			return
		}
	}
}

// Commit implements dcs.Store.
func (cl *Client) Commit(ctx context.Context, t dcs.Txn) (events.Revision, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	keys := make([]string, len(t.Writes))
	for i, w := range t.Writes {
		keys[i] = w.Key
	}
	var rev events.Revision
	err := cl.call(ctx, OpCommit, keys, func() (err error) {
		rev, err = cl.cluster.commitLocked(t)
		return err
	})
	if err != nil {
		return 0, err
	}
	return rev, nil
}

// Grant implements dcs.Store.
func (cl *Client) Grant(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
	var l dcs.Lease
	err := cl.call(ctx, OpGrant, nil, func() (err error) {
		l, err = cl.cluster.grantLocked(id, ttl)
		return err
	})
	if err != nil {
		return dcs.Lease{}, err
	}
	return l, nil
}

// Renew implements dcs.Store.
func (cl *Client) Renew(ctx context.Context, id events.LeaseID) (dcs.Lease, error) {
	var l dcs.Lease
	err := cl.call(ctx, OpRenew, nil, func() (err error) {
		l, err = cl.cluster.renewLocked(id)
		return err
	})
	if err != nil {
		return dcs.Lease{}, err
	}
	return l, nil
}

// Revoke implements dcs.Store.
func (cl *Client) Revoke(ctx context.Context, id events.LeaseID) error {
	return cl.call(ctx, OpRevoke, nil, func() error {
		cl.cluster.endLocked(map[events.LeaseID]bool{id: id != ""})
		return nil
	})
}

// Close implements dcs.Store: it ends the client's watches and waits for them.
func (cl *Client) Close() error {
	cl.mu.Lock()
	if !cl.shut {
		cl.shut = true
		close(cl.closed)
	}
	cl.mu.Unlock()
	cl.watches.Wait()
	return nil
}
