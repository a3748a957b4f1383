package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/dcstest"
	"github.com/pgregent/regent/events"
)

func TestALeaderIsKilledAndTheStoreGoesOn(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	first := c.leader()
	other := c.follower(first)
	c.put(c.nodes[other].store, "k", "before", "")
	c.kill(first)
	began := time.Now()
	c.put(c.nodes[other].store, "k", "after", "")
	t.Logf("writable again %v after the leader was killed", time.Since(began).Round(time.Millisecond))
	if got := c.get(c.nodes[c.leader()].store, "k"); got != "after" {
		t.Errorf("k is %s", got)
	}
	c.start(first)
	eventually(t, "the restarted node has caught up", func() bool {
		v, err := c.nodes[first].store.View(c.ctx(), dcs.Local)
		kv, _ := v.Get("k")
		return err == nil && v.Age >= 0 && string(kv.Value) == "after"
	})
}

// Style rule of the design: raft.Apply on a leader that was cut off returned after
// seconds. Here every call ends within its context, and none claims success.
func TestALeaderThatIsCutOffAnswersInTimeAndClaimsNothing(t *testing.T) {
	slow(t)
	c := newCluster(t, 3)
	c.tune = func(cfg *Config) { // so that the old leader stays one for the whole test
		cfg.Timings = Timings{Heartbeat: 1500 * time.Millisecond, LeaderLease: 1500 * time.Millisecond}
	}
	c.startAll()
	old := c.leader()
	store := c.nodes[old].store
	c.put(store, "k", "1", "")
	c.net.isolate(c.nodes[old].cfg.SelfAddr)
	for name, call := range map[string]func(ctx context.Context) error{
		"commit": func(ctx context.Context) error {
			_, err := store.Commit(ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put("k", []byte("2"))}})
			return err
		},
		"view":   func(ctx context.Context) error { _, err := store.View(ctx, dcs.Linearizable); return err },
		"grant":  func(ctx context.Context) error { _, err := store.Grant(ctx, "", time.Second); return err },
		"renew":  func(ctx context.Context) error { _, err := store.Renew(ctx, "x"); return err },
		"revoke": func(ctx context.Context) error { return store.Revoke(ctx, "x") },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began := time.Now()
		err := call(ctx)
		took := time.Since(began)
		cancel()
		if class := dcs.ClassOf(err); class != events.Unavailable && class != events.Unknown {
			t.Errorf("%s: %v", name, err)
		}
		if took > time.Second {
			t.Errorf("%s took %v under a limit of 100ms", name, took)
		}
	}
}

func TestTheOthersGoOnWhenTheLeaderIsCutOffAndItFollowsAfterwards(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	old := c.leader()
	c.net.isolate(c.nodes[old].cfg.SelfAddr)
	next := c.leader(old)
	c.put(c.nodes[next].store, "k", "2", "")
	v, err := c.nodes[old].store.View(t.Context(), dcs.Local)
	if err != nil {
		t.Fatal(err)
	}
	first := v.Age
	eventually(t, "the view of the node that is cut off ages", func() bool {
		v, err := c.nodes[old].store.View(t.Context(), dcs.Local)
		return err == nil && v.Age > first+200*time.Millisecond
	})
	c.net.heal(c.nodes[old].cfg.SelfAddr)
	eventually(t, "the old leader follows", func() bool {
		v, err := c.nodes[old].store.View(t.Context(), dcs.Local)
		kv, _ := v.Get("k")
		return err == nil && string(kv.Value) == "2" && v.Age >= 0 && v.Age < time.Second
	})
}

// A power cut: nobody closes a connection, so nothing but raft's own silence tells.
// Callers whose requests are under way to the dead leader don't wait it out.
func TestALeadersHostDisappearsWithoutAWord(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	dead := c.leader()
	other := c.follower(dead)
	store := c.nodes[other].store
	client, err := Dial(c.ctx(), ClientConfig{Addrs: []string{c.nodes[dead].cfg.SelfAddr, c.nodes[other].cfg.SelfAddr}, network: c.net.of("client")})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	watch, err := client.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Grant(c.ctx(), "l", time.Minute); err != nil {
		t.Fatal(err)
	}
	c.net.silence(c.nodes[dead].cfg.SelfAddr)
	began := time.Now()
	if _, err := store.Renew(c.ctx(), "l"); err != nil {
		t.Fatal(err)
	}
	t.Logf("renewed %v after the leader's host disappeared", time.Since(began).Round(time.Millisecond))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the renewal took %v", took)
	}
	rev := c.put(store, "k", "1", "")
	eventually(t, "a client that watched the dead host watches another one", func() bool {
		select {
		case v := <-watch:
			return v.Revision >= rev
		default:
			return false
		}
	})
	if got := c.get(client, "k"); got != "1" {
		t.Errorf("the client reads %s", got)
	}
}

// What is proposed on a leader that is cut off may happen or not, but once at most, and
// nobody is told that it did.
func TestAnUnknownOutcomeIsCalledUnknown(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	old := c.leader()
	rev := c.put(c.nodes[old].store, "k", "1", "")
	c.net.isolate(c.nodes[old].cfg.SelfAddr)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := c.nodes[old].store.Commit(ctx, dcs.Txn{
		Guards: []dcs.Guard{{Key: "k", Version: rev}}, Writes: []dcs.Write{dcs.Put("k", []byte("2"))},
	})
	if !errors.Is(err, dcs.ErrUnknown) {
		t.Fatalf("an entry in the log of a leader without a majority: %v", err)
	}
	next := c.leader(old)
	if got := c.get(c.nodes[next].store, "k"); got != "1" {
		t.Errorf("a commit without a majority happened: %s", got)
	}
	c.net.heal(c.nodes[old].cfg.SelfAddr)
	c.put(c.nodes[next].store, "after", "1", "")
	if got := c.get(c.nodes[old].store, "k"); got != "1" {
		t.Errorf("it happened after all, behind an entry of a newer term: %s", got)
	}
}

// S13, end to end: leadership moves several times within one TTL, and the lease ends
// neither early nor much too late.
func TestLeasesOutliveLeaders(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	const ttl = 2 * time.Second
	began := time.Now()
	lease, err := c.nodes[0].store.Grant(c.ctx(), "holder", ttl)
	if err != nil {
		t.Fatal(err)
	}
	c.put(c.nodes[0].store, dcs.KeyLeader, "nobody", lease.ID)
	for range 3 {
		c.kill(c.leader())
		next := c.leader()
		for i, n := range c.nodes {
			if n.store == nil {
				c.start(i)
			}
		}
		if time.Since(began) < ttl && c.get(c.nodes[next].store, dcs.KeyLeader) != "nobody" && time.Since(began) < ttl {
			t.Fatalf("the lease of %v ended after %v", ttl, time.Since(began))
		}
	}
	eventually(t, "the lease ends", func() bool { return c.get(c.nodes[0].store, dcs.KeyLeader) == "-" })
	if lived := time.Since(began); lived < ttl {
		t.Errorf("a lease of %v ended after %v", ttl, lived)
	} else {
		t.Logf("a lease of %v ended after %v, with three leaders killed", ttl, lived.Round(time.Millisecond))
	}
}

// Random reads, puts and swaps while leaders are killed, cut off and restarted.
func TestHistoriesUnderFaultsAreLinearizable(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	c.leader()
	client, err := Dial(c.ctx(), ClientConfig{Addrs: c.nodes[0].cfg.members(), Cluster: "service/test"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// The workload's clients outlive nodes: each call goes to whatever runs there now.
	var mu sync.RWMutex
	stores := []dcs.Store{client}
	for i := range c.nodes {
		stores = append(stores, &reopened{c: c, i: i, mu: &mu})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		for round := 0; pause(ctx, 400*time.Millisecond); round++ {
			victim := c.leader()
			addr := c.nodes[victim].cfg.SelfAddr
			if round%2 == 0 {
				c.net.isolate(addr)
				pause(ctx, time.Second)
				c.net.heal(addr)
				continue
			}
			mu.Lock()
			c.kill(victim)
			mu.Unlock()
			pause(ctx, 500*time.Millisecond)
			mu.Lock()
			c.start(victim)
			mu.Unlock()
		}
	})
	ops := dcstest.Workload(ctx, stores, "chaos", dcstest.Pace{Timeout: 400 * time.Millisecond, Between: 15 * time.Millisecond})
	wg.Wait()
	t.Logf("%d operations", len(ops))
	dcstest.Check(t, ops, 100)
}

// reopened is whatever store runs on a node at the moment.
type reopened struct {
	dcs.Store
	c  *cluster
	i  int
	mu *sync.RWMutex
}

func (r *reopened) now() dcs.Store {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if s := r.c.nodes[r.i].store; s != nil {
		return s
	}
	return nil
}

func (r *reopened) View(ctx context.Context, cons dcs.Consistency) (dcs.View, error) {
	s := r.now()
	if s == nil {
		return dcs.View{}, dcs.ErrUnavailable
	}
	return s.View(ctx, cons)
}

func (r *reopened) Commit(ctx context.Context, t dcs.Txn) (events.Revision, error) {
	s := r.now()
	if s == nil {
		return 0, dcs.ErrUnavailable
	}
	return s.Commit(ctx, t)
}

func TestSnapshotsCarryKeysLeasesAndTheClock(t *testing.T) {
	c := newCluster(t, 3).startAll()
	leader := c.leader()
	behind := c.follower(leader)
	c.stop(behind)
	store := c.nodes[leader].store
	lease, err := store.Grant(c.ctx(), "l", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		c.put(store, fmt.Sprintf("k%02d", i), "v", lease.ID)
	}
	if err := store.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	snaps, err := filepath.Glob(filepath.Join(c.nodes[leader].cfg.DataDir, "snapshots", "*", "state.bin"))
	if err != nil || len(snaps) == 0 {
		t.Fatalf("no snapshot was written: %v", err)
	}
	// The leader comes back from its snapshot and tail, the other one from the log.
	c.stop(leader)
	c.start(leader, behind)
	for _, i := range []int{leader, behind} {
		eventually(t, "the content is back", func() bool {
			v, err := c.nodes[i].store.View(c.ctx(), dcs.Local)
			kv, _ := v.Get("k49")
			return err == nil && len(v.KVs) == 50 && kv.Lease == "l"
		})
	}
	l, err := c.nodes[behind].store.Renew(c.ctx(), "l")
	if err != nil || len(l.Keys) != 50 {
		t.Errorf("renewing after the restart: %d keys, %v", len(l.Keys), err)
	}
}

func TestTheFolderIsForOneProcessAndOneName(t *testing.T) {
	c := newCluster(t, 1).startAll()
	cfg := c.nodes[0].cfg
	cfg.SelfAddr = c.net.reserve(t)
	_, err := Open(t.Context(), cfg)
	if !errors.Is(err, dcs.ErrBroken) || !errors.Is(err, ErrFolderInUse) || !strings.Contains(err.Error(), "stop it") {
		t.Errorf("a second process opened the folder: %v", err)
	}
	c.stop(0)
	cfg.Name = "other"
	if _, err := Open(t.Context(), cfg); !errors.Is(err, dcs.ErrBroken) {
		t.Errorf("another node opened the folder: %v", err)
	}
	if err := os.Remove(filepath.Join(cfg.DataDir, idFile)); err != nil {
		t.Fatal(err)
	}
	cfg.Name = c.nodes[0].cfg.Name
	if _, err := Open(t.Context(), cfg); !errors.Is(err, dcs.ErrBroken) {
		t.Errorf("a folder without its id opened: %v", err)
	}
}

func TestSettingsThatCannotWorkAreBroken(t *testing.T) {
	good := newCluster(t, 1).nodes[0].cfg
	for name, spoil := range map[string]func(*Config){
		"no name":      func(c *Config) { c.Name = "" },
		"no folder":    func(c *Config) { c.DataDir = "" },
		"no port":      func(c *Config) { c.SelfAddr = "localhost" },
		"unreachable":  func(c *Config) { c.SelfAddr, c.BindAddr = "0.0.0.0:1", "0.0.0.0:1" },
		"bad partner":  func(c *Config) { c.PartnerAddrs = []string{"x"} },
		"long lease":   func(c *Config) { c.Timings.LeaderLease = time.Hour },
		"no logger":    func(c *Config) { c.Logger = nil },
		"file, no dir": func(c *Config) { c.DataDir = "/dev/null" },
	} {
		cfg := good
		cfg.PartnerAddrs = slices.Clone(good.PartnerAddrs)
		spoil(&cfg)
		if s, err := Open(t.Context(), cfg); !errors.Is(err, dcs.ErrBroken) {
			t.Errorf("%s: %v", name, err)
			if s != nil {
				s.Close()
			}
		}
	}
}
