package embedded

import (
	"context"
	"testing"
	"time"
)

// A voter that was away for long is of use as soon as it is back: when the third one
// leaves in that moment, writes go on.
func TestAVoterThatReturnsIsSentTheLogAtOnce(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	leader := c.leader()
	away := c.follower(leader)
	leaving := 3 - leader - away
	store := c.nodes[leader].store
	c.kill(away)
	// The longer a voter is away, the longer raft's own pauses: after six seconds, five.
	for until := time.Now().Add(6 * time.Second); time.Now().Before(until); {
		c.put(store, "k", "1", "")
		pause(context.Background(), 20*time.Millisecond)
	}
	c.start(away)
	eventually(t, "heartbeats reach the voter", func() bool {
		_, id := c.nodes[away].store.raft.LeaderWithID()
		return id != ""
	})
	began := time.Now()
	c.kill(leaving)
	c.put(c.nodes[leader].store, "k", "2", "")
	took := time.Since(began)
	t.Logf("the next write took %v", took.Round(time.Millisecond))
	if took > time.Second {
		t.Errorf("with the third voter gone, the next write took %v", took)
	}
}
