package embedded

import (
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// S18: the raft leader leaves the holder's node, whoever becomes the holder.
func TestTheRaftLeaderLeavesTheHoldersNode(t *testing.T) {
	c := newCluster(t, 3)
	c.tune = func(cfg *Config) { cfg.Timings.TransferPause = 300 * time.Millisecond }
	c.startAll()
	for range 3 {
		leader := c.leader()
		c.put(c.nodes[leader].store, dcs.KeyLeader, string(c.nodes[leader].cfg.Name), "")
		next := -1
		eventually(t, "raft leadership moves", func() bool {
			next = c.leader()
			return next != leader
		})
		c.put(c.nodes[leader].store, "after", "1", "")
	}
}

func TestOnlyAHealthyVoterIsFitToLead(t *testing.T) {
	voters := []raft.Server{{ID: "c"}, {ID: "b"}}
	limits := health{leader: "a", applied: 1000, age: time.Second, write: 100 * time.Millisecond}
	fit := Status{LeaderID: "a", Applied: 990, Age: time.Millisecond}
	spoilt := map[string]func(*Status){
		"another server answers":    func(s *Status) { s.ID = "x" },
		"follows another leader":    func(s *Status) { s.LeaderID = "b" },
		"never heard of the leader": func(s *Status) { s.Age = -1 },
		"heard of it long ago":      func(s *Status) { s.Age = 2 * time.Second },
		"far behind":                func(s *Status) { s.Applied = 900 },
		"stores slowly":             func(s *Status) { s.Write = 100 * time.Millisecond },
	}
	status := func(id string, change func(*Status)) *Status {
		s := fit
		s.ID = id
		change(&s)
		return &s
	}
	same := func(*Status) {}
	if got, ok := fittest(voters, []*Status{nil, nil}, limits); ok {
		t.Errorf("nobody answers: %s", got.ID)
	}
	for why, change := range spoilt {
		if got, ok := fittest(voters, []*Status{status("c", change), nil}, limits); ok {
			t.Errorf("%s: %s", why, got.ID)
		}
		if got, ok := fittest(voters, []*Status{status("c", change), status("b", same)}, limits); !ok || got.ID != "b" {
			t.Errorf("%s: %s instead of b", why, got.ID)
		}
	}
	if got, _ := fittest(voters, []*Status{status("c", same), status("b", same)}, limits); got.ID != "b" {
		t.Errorf("equals: %s, want the first by name", got.ID)
	}
	if got, _ := fittest(voters, []*Status{status("c", func(s *Status) { s.Applied++ }), status("b", same)}, limits); got.ID != "c" {
		t.Errorf("the longer log: %s, want c", got.ID)
	}
}

func TestMovesAreSettledAndRateLimited(t *testing.T) {
	m := moves{pause: 100, settle: 20}
	steps := []struct {
		now       events.Instant
		misplaced bool
		want      time.Duration
	}{
		{10, false, -1}, {10, true, 20}, {15, true, 15}, {30, true, 0}, // first try, after it settled
		{31, true, 99}, // raft couldn't: not before the pause
		{60, false, -1}, {70, true, 60}, {130, true, 0},
	}
	for _, s := range steps {
		if got := m.wait(s.misplaced, s.now); got != s.want {
			t.Errorf("at %d, misplaced %v: wait %d, want %d", s.now, s.misplaced, got, s.want)
		}
	}
	m.failed()
	m.failed()
	if got := m.wait(true, 131); got != 399 {
		t.Errorf("after two failures: wait %d, want 399", got)
	}
	if m.moved(); m.wait(true, 1000) != 20 {
		t.Error("after a move, a new misplacement doesn't settle first")
	}
}

// How soon do all nodes see a change? Failover waits for nothing else.
func TestEveryNodeSeesAChangeAtOnce(t *testing.T) {
	c := newCluster(t, 3).startAll()
	c.leader()
	var slowest time.Duration
	for i := range c.nodes {
		watch, err := c.nodes[i].store.Watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for n := range 20 {
			rev := c.put(c.nodes[n%3].store, "k", string(rune('a'+n)), "")
			began := time.Now()
			for v := range watch {
				if v.Revision >= rev {
					break
				}
			}
			slowest = max(slowest, time.Since(began))
		}
	}
	t.Logf("the slowest of 60 views came %v after its write was answered", slowest.Round(time.Microsecond))
	if slowest > time.Second {
		t.Errorf("a change took %v to be seen", slowest)
	}
}

// The idle cost of three nodes, holders of leases renewing as agents do. The figure is
// for the log; the limit only catches a loop that spins.
func TestIdleCost(t *testing.T) {
	if testing.Short() {
		t.Skip("measures for some seconds")
	}
	c := newCluster(t, 3)
	c.tune = func(cfg *Config) { cfg.Secret = "secret" }
	c.startAll()
	c.leader()
	measure := func(what string, during func()) time.Duration {
		var before, after syscall.Rusage
		must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
		began := time.Now()
		during()
		took := time.Since(began)
		must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
		used := cpu(after) - cpu(before)
		t.Logf("%s: %.2f %% of a core for three nodes (%v of %v)", what, 100*float64(used)/float64(took), used, took)
		return used
	}
	pause(t.Context(), 500*time.Millisecond)
	idle := measure("idle", func() { pause(t.Context(), 2*time.Second) })
	for i := range c.nodes {
		if _, err := c.nodes[i].store.Grant(c.ctx(), events.LeaseID(rune('a'+i)), 2*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	measure("three leases of 2s renewed twice a second each", func() {
		for range 4 {
			for i := range c.nodes {
				if _, err := c.nodes[i].store.Renew(c.ctx(), events.LeaseID(rune('a'+i))); err != nil {
					t.Error(err)
				}
			}
			pause(t.Context(), 500*time.Millisecond)
		}
	})
	if idle > time.Second {
		t.Errorf("three idle nodes used %v in 2s", idle)
	}
}

func cpu(r syscall.Rusage) time.Duration {
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
