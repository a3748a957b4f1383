package embedded

import "testing"

// A local view's age counts from what the copy holds, not from what raft has queued for it.
func TestAViewIsAsOldAsTheMachineIsBehind(t *testing.T) {
	c := newCluster(t, 3).startAll()
	leader := c.leader()
	store := c.nodes[c.follower(leader)].store
	c.put(c.nodes[leader].store, "k", "1", "")
	eventually(t, "the follower knows its age", func() bool { return store.localView().Age >= 0 })

	store.replica.mu.Lock() // the machine stands still
	unlocked := false
	defer func() {
		if !unlocked {
			store.replica.mu.Unlock()
		}
	}()
	c.put(c.nodes[leader].store, "k", "2", "")
	entry := c.nodes[leader].store.replica.newest().index
	written := store.cfg.now()
	eventually(t, "raft counts the entry as applied, and hears more", func() bool {
		store.transport.heard.mu.Lock()
		defer store.transport.heard.mu.Unlock()
		return store.raft.AppliedIndex() >= entry && store.transport.heard.at > written
	})
	if since, _ := store.knownSince(); since > written {
		t.Errorf("the copy lacks an entry and claims to be complete as of %v after it was written", since.Sub(written))
	}
	store.replica.mu.Unlock()
	unlocked = true
	eventually(t, "the copy has caught up", func() bool {
		since, ok := store.knownSince()
		return ok && since > written
	})
}
