package embedded

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded/kv"
	"github.com/pgregent/regent/events"
)

// replica is this node's copy of the replicated machine, and raft's view of it.
type replica struct {
	// changed tells that the content is another; deadlines, that the next lease to
	// end may be another one.
	changed   *signal
	deadlines *signal

	now func() events.Instant
	// queued learns what was applied.
	queued queued
	// running: snapshots come from a leader from now on, not from the own folder.
	running atomic.Bool

	mu      sync.Mutex // guards the rest
	machine *kv.Machine
	// applied is when this node last applied an entry: the moment that the machine's
	// clock stands for, or a later one. Zero: never.
	applied events.Instant
	view    dcs.View // of the content; rebuilt when the revision grows, never changed in place
	changer position // the last entry that changed the content
}

func newReplica(now func() events.Instant) *replica {
	return &replica{changed: newSignal(), deadlines: newSignal(), now: now, machine: kv.New()}
}

// Apply implements raft.FSM. Its answer is a kv.Result.
func (r *replica) Apply(entry *raft.Log) any {
	r.mu.Lock()
	term, next, any := r.machine.NextDeadline()
	result := r.machine.Apply(entry.Term, entry.Data)
	r.applied = r.now()
	changed := r.refresh(position{entry.Index, entry.Term})
	r.queued.applied(entry.Index)
	term2, next2, any2 := r.machine.NextDeadline()
	r.mu.Unlock()
	if changed {
		r.changed.notify()
	}
	// Only an earlier end needs telling: who waits for the old one looks again then.
	if any2 && (!any || term2 != term || next2 < next) {
		r.deadlines.notify()
	}
	return result
}

// lastApplied is when this node last applied an entry; zero: never.
func (r *replica) lastApplied() events.Instant {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied
}

// refresh rebuilds the view if the content changed. The caller holds mu.
func (r *replica) refresh(by position) bool {
	if r.machine.Revision() == r.view.Revision && r.view.KVs != nil {
		return false
	}
	before := r.view.Revision
	r.view = dcs.View{Revision: r.machine.Revision(), KVs: r.machine.Content()}
	r.changer = by
	return r.view.Revision != before
}

// content is the view without its age.
func (r *replica) content() dcs.View {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view
}

// newest is the last entry that changed the content.
func (r *replica) newest() position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changer
}

// holder is the value of the leader key, empty when there is none.
func (r *replica) holder() events.NodeName {
	r.mu.Lock()
	defer r.mu.Unlock()
	name, _ := r.machine.Value(dcs.KeyLeader)
	return events.NodeName(name)
}

func (r *replica) nextDeadline() (term uint64, at time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machine.NextDeadline()
}

// Snapshot implements raft.FSM.
func (r *replica) Snapshot() (raft.FSMSnapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return snapshot{r.machine.Clone()}, nil
}

// Restore implements raft.FSM.
func (r *replica) Restore(from io.ReadCloser) error {
	data, err := io.ReadAll(from)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	if err := from.Close(); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	r.mu.Lock()
	err = r.machine.Restore(data)
	if err == nil {
		r.applied = r.now() // later than when the clock moved, which is the safe side
		r.refresh(r.changer)
		if r.running.Load() {
			r.queued.restored()
		}
	}
	r.mu.Unlock()
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	r.changed.notify()
	r.deadlines.notify()
	return nil
}

type snapshot struct{ machine *kv.Machine }

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	data, err := s.machine.Snapshot()
	if err == nil {
		_, err = sink.Write(data)
	}
	if err != nil {
		return fmt.Errorf("persist snapshot: %w", joinCancel(err, sink))
	}
	if err := sink.Close(); err != nil {
		return fmt.Errorf("persist snapshot: %w", err)
	}
	return nil
}

func joinCancel(err error, sink raft.SnapshotSink) error {
	if cancelErr := sink.Cancel(); cancelErr != nil {
		return fmt.Errorf("%w; cancel: %w", err, cancelErr)
	}
	return err
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}
