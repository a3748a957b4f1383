package embedded

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// lame is a raft folder whose writes take longer on demand.
type lame struct {
	logAndTerms
	mu   sync.Mutex // guards the rest
	by   time.Duration
	gate chan struct{} // nil: open
}

func (l *lame) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

func (l *lame) StoreLogs(entries []*raft.Log) error {
	l.mu.Lock()
	by, gate := l.by, l.gate
	l.mu.Unlock()
	if gate != nil {
		<-gate
	}
	pause(context.Background(), by)
	return l.logAndTerms.StoreLogs(entries)
}

func (l *lame) slowDown(by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.by = by
}

// stop makes writes stand still until they may go on.
func (l *lame) stop() (goOn func()) {
	gate := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate = gate
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.gate = nil
		close(gate)
	})
}

// lameCluster is three nodes whose disks obey.
func lameCluster(t *testing.T) (*cluster, []*lame) {
	c := newCluster(t, 3)
	disks := []*lame{{}, {}, {}}
	for i, n := range c.nodes {
		n.cfg.Timings.TransferPause = 300 * time.Millisecond
		n.cfg.diskOf = func(folder logAndTerms) logAndTerms {
			disks[i].logAndTerms = folder
			return disks[i]
		}
	}
	c.startAll()
	// Until a node knows itself a part of the cluster it asks through any other, for as long as that takes.
	eventually(t, "all take part", func() bool {
		return !slices.ContainsFunc(c.nodes, func(n *node) bool { return !n.store.participating() })
	})
	return c, disks
}

// A write of the leader's stands still: it falls silent, another leads, and its own node
// uses the store all the same; when its disk goes on it follows.
func TestALeaderWhoseDiskStandsStillIsReplaced(t *testing.T) {
	slow(t)
	c, disks := lameCluster(t)
	old := c.leader()
	goOn := disks[old].stop()
	defer goOn()
	began := time.Now()
	c.put(c.nodes[c.follower(old)].store, "k", "1", "")
	took := time.Since(began)
	t.Logf("written %v after the leader's disk stood still", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("the write took %v", took)
	}
	next := c.leader(old)
	began = time.Now()
	c.put(c.nodes[old].store, "own", "1", "")
	t.Logf("a write through the node whose disk stands still took %v", time.Since(began).Round(time.Millisecond))
	if st := c.nodes[old].store.status(); st.Trouble == "" || !c.nodes[old].logs.has("the disk of the raft folder stands still") {
		t.Errorf("it doesn't say what it has: %+v", st)
	}
	goOn()
	eventually(t, "the old leader follows", func() bool {
		st := c.nodes[old].store.status()
		v, err := c.nodes[old].store.View(c.ctx(), dcs.Local)
		_, ok := v.Get("own")
		return err == nil && ok && st.Role == RoleVoter && st.Trouble == "" && v.Age >= 0 && v.Age < time.Second
	})
	if got := c.get(c.nodes[next].store, "k"); got != "1" || !c.nodes[old].logs.has("the disk of the raft folder went on") {
		t.Errorf("k is %s", got)
	}
}

// Nobody else can lead: the silence is in vain, and ends with the stall.
func TestALeaderWhoseDiskStandsStillGoesOnWhenNobodyElseCanLead(t *testing.T) {
	slow(t)
	c, disks := lameCluster(t)
	old := c.leader()
	c.stop(c.follower(old))
	term := c.nodes[old].store.status().Term
	goOn := disks[old].stop()
	written := make(chan events.Revision)
	other := c.nodes[c.follower(old)].store
	go func() { written <- c.put(other, "k", "1", "") }()
	eventually(t, "the other one notices the silence", func() bool { return other.status().LeaderID == "" })
	goOn()
	<-written
	if st := c.nodes[c.leader()].store.status(); st.Term > term+1 {
		t.Errorf("term %d became %d: elections that nobody could win were held", term, st.Term)
	}
}

// The leader's writes are slow, those of another voter aren't: that one leads from then on.
func TestALeaderWithASlowDiskHandsOn(t *testing.T) {
	slow(t)
	c, disks := lameCluster(t)
	lagging := c.leader()
	limit := c.nodes[lagging].store.disk.speed.slow
	disks[lagging].slowDown(limit + limit/3)
	next := lagging
	eventually(t, "another node leads", func() bool {
		c.put(c.nodes[lagging].store, "k", "1", "")
		next = c.leader()
		return next != lagging
	})
	if !c.nodes[lagging].logs.has("moved the raft leader off a node whose disk is slow") {
		t.Error("it doesn't say why")
	}
	// Not even to spare the holder's node does the slow one lead again.
	c.put(c.nodes[next].store, dcs.KeyLeader, string(c.nodes[next].cfg.Name), "")
	eventually(t, "the healthy node that isn't the holder's leads", func() bool {
		now := c.leader()
		return now != lagging && now != next
	})
	for range 2 * recentWrites {
		c.put(c.nodes[next].store, "k", "2", "")
	}
	if st := c.nodes[lagging].store.status(); !st.Slow || st.Role == RoleLeader {
		t.Errorf("the slow node's status: %+v", st)
	}
}

// Who leads instead, by how long each one's writes usually take.
func TestTheSuccessorOfALeaderHasAFasterDisk(t *testing.T) {
	const ms, slow = time.Millisecond, 150 * time.Millisecond
	id := func(name string) raft.ServerID { return raft.ServerID(name + "-0f3e7b1c-0001-0001-0001-000000000001") }
	voters := []raft.Server{{ID: id("b")}, {ID: id("c")}}
	for _, tt := range []struct {
		what    string
		a, b, c time.Duration
		holder  events.NodeName
		want    string // empty: it stays
	}{
		{"the holder's node is left for any that is fast", 1 * ms, 2 * ms, 3 * ms, "a", "b"},
		{"the holder's node is not left for a slow one", 1 * ms, 200 * ms, 3 * ms, "a", "c"},
		{"the holder's node is kept when all others are slow", 1 * ms, 200 * ms, 200 * ms, "a", ""},
		{"a slow one makes way", 200 * ms, 5 * ms, 5 * ms, "b", "c"},
		{"for the holder's node if there is no other", 200 * ms, 5 * ms, 190 * ms, "b", "b"},
		{"for a slow one that is twice as fast", 800 * ms, 700 * ms, 300 * ms, "", "c"},
		{"not for one that is hardly faster", 200 * ms, 150 * ms, 180 * ms, "b", ""},
		{"all are slow: the holder's node is left all the same", 200 * ms, 180 * ms, 180 * ms, "a", "b"},
	} {
		answer := func(name string, write time.Duration) *Status {
			return &Status{ID: string(id(name)), LeaderID: "a", Write: write}
		}
		best, found := successor(voters, []*Status{answer("b", tt.b), answer("c", tt.c)}, health{leader: "a", age: time.Second},
			leaderDisk{usual: tt.a, slow: slow, holder: tt.holder, self: "a"})
		if got := nameOf(best.ID); found != (tt.want != "") || found && got != tt.want {
			t.Errorf("%s: %s, %v, want %q", tt.what, best.ID, found, tt.want)
		}
	}
}

func TestADiskIsJudgedByItsRecentWrites(t *testing.T) {
	var now events.Instant = 1
	s := newSpeed(Timings{LeaderLease: 300}, func() events.Instant { return now })
	write := func(took ...time.Duration) {
		for _, d := range took {
			s.begin()
			now = now.Add(d)
			s.end()
		}
	}
	turned := s.turned.wait()
	write(1000, 1000, 1000, 1000)
	if s.usual() != 0 {
		t.Errorf("judged after four writes: %d", s.usual())
	}
	write(10)
	select {
	case <-turned:
	default:
		t.Error("nobody was told that it is slow")
	}
	write(10, 10)
	if s.usual() != 10 {
		t.Errorf("usual is %d, want 10: one stall among fast writes is none", s.usual())
	}
	s.begin()
	if now = now.Add(299); s.standing() != 0 {
		t.Errorf("after 299: %d", s.standing())
	}
	if now = now.Add(1); s.standing() != 300 {
		t.Errorf("after 300: %d", s.standing())
	}
	s.end()
	if s.standing() != 0 {
		t.Error("it has ended")
	}
}
