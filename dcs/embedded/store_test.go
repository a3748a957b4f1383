package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/dcstest"
	"github.com/pgregent/regent/events"
)

// storeBounds are what the store promises with its default timings, with room for a
// machine that is busy with other tests. An election takes 0.3 to 0.9 s, and a second one
// follows when votes were split.
func storeBounds() dcstest.Bounds {
	return dcstest.Bounds{
		TTL: 500 * time.Millisecond, Late: 3 * time.Second, LateAfterFault: 1500 * time.Millisecond,
		Failover: 5 * time.Second, Overrun: time.Second, Transit: 400 * time.Millisecond,
		Storm: 6 * time.Second,
	}
}

const noElsewhere = "a raft cluster serves one PostgreSQL cluster; others are refused by name"

// The store keeps the contract as agents use it: in the process, on leader and
// followers, and through a client beside them.
func TestConformance(t *testing.T) {
	slow(t)
	dcstest.Run(t, func(t *testing.T) dcstest.Env {
		f := &nodeFaults{cluster: newCluster(t, 3)}
		f.cluster.startAll()
		f.cluster.leader()
		open := func() (dcs.Store, error) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			return Dial(ctx, ClientConfig{
				Addrs: f.cluster.nodes[0].cfg.members(), Cluster: "service/test", network: f.cluster.net.of("client"),
			})
		}
		client, err := open()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		return dcstest.Env{
			Backend: "embedded",
			Stores:  []dcs.Store{current{f, 0}, current{f, 1}, client, current{f, 2}},
			Homes:   []int{0, 1, dcstest.AnyServer, 2},
			Open:    open, NoElsewhere: noElsewhere,
			Bounds: storeBounds(), ChosenIDs: true, Faults: f,
		}
	})
}

// nodeFaults inflicts faults on nodes in this process.
type nodeFaults struct {
	cluster *cluster
	// mu orders calls that use a node before those that end or start it.
	mu sync.RWMutex
}

func (f *nodeFaults) Servers() int { return len(f.cluster.nodes) }

func (f *nodeFaults) Leader(ctx context.Context) (int, error) {
	for {
		for i := range f.cluster.nodes {
			if s := f.store(i); s != nil && s.current() != nil {
				return i, nil
			}
		}
		if !pause(ctx, 5*time.Millisecond) {
			return 0, fmt.Errorf("no leader: %w", ctx.Err())
		}
	}
}

// store is nil while the node is down.
func (f *nodeFaults) store(i int) *Store {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.cluster.nodes[i].store
}

func (f *nodeFaults) Lacks(k dcstest.Kind) string {
	switch k {
	case dcstest.KillServer, dcstest.IsolateServer, dcstest.Compact:
		return ""
	default:
		return "the nodes run in the test's own process; see the other column of the embedded store"
	}
}

func (f *nodeFaults) Inflict(k dcstest.Kind, target int) (heal func() error, err error) {
	addr := ""
	if target < len(f.cluster.nodes) {
		addr = f.cluster.nodes[target].cfg.SelfAddr
	}
	switch k {
	case dcstest.KillServer:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.cluster.kill(target)
		return func() error {
			store, err := Open(context.Background(), f.cluster.nodes[target].cfg)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.cluster.nodes[target].store = store
			return err
		}, nil
	case dcstest.IsolateServer:
		f.cluster.net.isolate(addr)
		return func() error { f.cluster.net.heal(addr); return nil }, nil
	case dcstest.Compact:
		return func() error { return nil }, f.compact()
	default:
		return nil, errors.New(f.Lacks(k))
	}
}

// compact drops the log of every node, so that one that is behind needs the snapshot.
func (f *nodeFaults) compact() error {
	for i := range f.cluster.nodes {
		s := f.store(i)
		if s == nil {
			continue
		}
		settings := s.raft.ReloadableConfig()
		settings.TrailingLogs = 0
		if err := s.raft.ReloadConfig(settings); err != nil {
			return err
		}
		if err := s.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			return err
		}
	}
	return nil
}

// current is the store of whatever process runs on a node at the moment.
type current struct {
	faults *nodeFaults
	node   int
}

var errDown = fmt.Errorf("%w: the node is down", dcs.ErrUnavailable)

func (c current) View(ctx context.Context, cons dcs.Consistency) (dcs.View, error) {
	if s := c.faults.store(c.node); s != nil {
		return s.View(ctx, cons)
	}
	return dcs.View{}, errDown
}

func (c current) Watch(ctx context.Context) (<-chan dcs.View, error) {
	if s := c.faults.store(c.node); s != nil {
		return s.Watch(ctx)
	}
	return nil, errDown
}

func (c current) Commit(ctx context.Context, t dcs.Txn) (events.Revision, error) {
	if s := c.faults.store(c.node); s != nil {
		return s.Commit(ctx, t)
	}
	return 0, errDown
}

func (c current) Grant(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
	if s := c.faults.store(c.node); s != nil {
		return s.Grant(ctx, id, ttl)
	}
	return dcs.Lease{}, errDown
}

func (c current) Renew(ctx context.Context, id events.LeaseID) (dcs.Lease, error) {
	if s := c.faults.store(c.node); s != nil {
		return s.Renew(ctx, id)
	}
	return dcs.Lease{}, errDown
}

func (c current) Revoke(ctx context.Context, id events.LeaseID) error {
	if s := c.faults.store(c.node); s != nil {
		return s.Revoke(ctx, id)
	}
	return errDown
}

func (c current) Close() error { return nil } // the cluster closes its nodes
