package embedded

import (
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// queued are the commands in this node's log that its copy doesn't hold yet. raft counts
// an entry as applied when it has put it into the queue to the machine; on a busy host
// the machine may be tens of milliseconds behind, and a view would claim to be younger
// than it is.
type queued struct {
	mu       sync.Mutex // guards commands
	commands []uint64   // indexes, ascending
}

// fill looks for them in the folder of a node that starts: what follows its newest
// snapshot, which raft restores at once.
func (q *queued) fill(f *folder) error {
	snaps, err := f.snaps.List()
	if err != nil {
		return fmt.Errorf("raft folder: list snapshots: %w", err)
	}
	last, err := f.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("raft folder: read the log: %w", err)
	}
	next, err := f.logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("raft folder: read the log: %w", err)
	}
	if len(snaps) > 0 {
		next = max(next, snaps[0].Index+1)
	}
	for ; next > 0 && next <= last; next++ {
		var entry raft.Log
		if err := f.logs.GetLog(next, &entry); err != nil {
			return fmt.Errorf("raft folder: read entry %d: %w", next, err)
		}
		q.stored(&entry)
	}
	return nil
}

func (q *queued) stored(entries ...*raft.Log) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, entry := range entries {
		if entry.Type == raft.LogCommand {
			q.commands = append(q.commands, entry.Index)
		}
	}
}

// deleted forgets entries that a new leader took back, or that a snapshot replaced.
func (q *queued) deleted(low, high uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.commands = slices.DeleteFunc(q.commands, func(index uint64) bool { return index >= low && index <= high })
}

// applied forgets what the copy holds now.
func (q *queued) applied(index uint64) { q.deleted(0, index) }

// restored: a snapshot of the leader's took the place of all.
func (q *queued) restored() { q.deleted(0, ^uint64(0)) }

// bound is how far the copy really is, if raft says applied.
func (q *queued) bound(applied uint64) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.commands) > 0 && q.commands[0] <= applied {
		return q.commands[0] - 1
	}
	return applied
}
