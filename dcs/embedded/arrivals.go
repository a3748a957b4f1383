package embedded

import (
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// arrivals keeps a voter that returns from waiting for the log. raft doubles its pause
// after each request that didn't reach a voter, up to ten seconds, and a voter that is
// back after four is sent nothing for another five: its heartbeats come, so it counts as
// healthy, but no entry can be committed with its help. If the third voter leaves
// meanwhile, the cluster has a quorum and no store.
//
// So a request of the log that failed is answered to raft only when a heartbeat has
// reached the voter (heartbeats' pauses are short), which makes one failure of an
// absence, however long.
type arrivals struct {
	mu      sync.Mutex // guards reached
	reached map[raft.ServerID]chan struct{}
}

// arrived wakes those who wait for the voter.
func (a *arrivals) arrived(id raft.ServerID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if wake, ok := a.reached[id]; ok {
		close(wake)
		delete(a.reached, id)
	}
}

// next returns what is closed when a heartbeat next reaches the voter.
func (a *arrivals) next(id raft.ServerID) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	wake, ok := a.reached[id]
	if !ok {
		if a.reached == nil {
			a.reached = map[raft.ServerID]chan struct{}{}
		}
		wake = make(chan struct{})
		a.reached[id] = wake
	}
	return wake
}

// awaitVoter returns when a heartbeat reaches the voter, or when there is no point in
// waiting: this node no longer leads in the term, the voter was removed, the store closes.
func (t *transport) awaitVoter(id raft.ServerID, term uint64) {
	wake := t.arrivals.next(id)
	check := time.NewTicker(t.recheck)
	defer check.Stop()
	for t.leads(id, term) {
		select {
		case <-wake:
			return
		case <-t.layer.ctx.Done():
			return
		case <-check.C:
		}
	}
}

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse,
) error {
	heartbeat := isHeartbeat(args)
	if heartbeat {
		t.pacing.await(t.layer.ctx, id, args.Term)
	}
	sent := time.Now()
	err := errStandsStill
	if !t.silent() {
		err = t.NetworkTransport.AppendEntries(id, target, args, resp)
	}
	if err == nil && resp.Success {
		t.pacing.accepted(id, args.Term, sent)
		t.promises.note(promise{id, args.Term, stored(args)})
	}
	switch {
	case heartbeat && err == nil:
		t.arrivals.arrived(id)
	case !heartbeat && err != nil:
		t.awaitVoter(id, args.Term)
	}
	return err
}

// isHeartbeat tells raft's heartbeats from its requests of the log: they name no entry
// at all, not even the one before.
func isHeartbeat(args *raft.AppendEntriesRequest) bool {
	return args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
}

// InstallSnapshot implements raft.Transport.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest,
	resp *raft.InstallSnapshotResponse, data io.Reader,
) error {
	err := t.NetworkTransport.InstallSnapshot(id, target, args, resp, data)
	if err != nil {
		t.awaitVoter(id, args.Term)
	}
	return err
}
