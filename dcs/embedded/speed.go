package embedded

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/pgregent/regent/events"
)

// Every entry waits for the leader's own disk before it is sent to anyone, so a leader with a
// slow one slows all renewals down. And while a write stands still, raft's loop stands with
// it: nothing is decided, but heartbeats go on, and keep the others from electing a leader
// whose disk works. So a leader hands its office on while its writes are slow and another
// voter's aren't (placement.go), and one whose write stands still falls silent: the others
// elect a new leader after their time-out, and this node uses the store through them.

// recentWrites are what a disk is judged by: half of them may be outliers.
const recentWrites = 5

// speed is how long writes to the raft folder take. Its own calls don't wait for the disk.
type speed struct {
	now func() events.Instant
	// slow is the least usual time of a slow disk; still, the least time of a write under way
	// that stands still.
	slow, still time.Duration
	turned      *signal // the disk has become slow, or isn't any more

	mu    sync.Mutex     // guards the rest
	began events.Instant // of the write under way; 0: none
	took  []time.Duration
}

// newSpeed judges by the time-outs: half of the leader's lease is slow, because a renewal's
// other half is the network's and the followers'; all of it is more than a leader may be silent.
func newSpeed(t Timings, now func() events.Instant) *speed {
	return &speed{now: now, slow: t.LeaderLease / 2, still: t.LeaderLease, turned: newSignal()}
}

func (s *speed) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = s.now()
}

// end returns how long the write took.
func (s *speed) end() (took time.Duration) {
	s.mu.Lock()
	before := s.usualLocked() >= s.slow
	if len(s.took) == recentWrites {
		s.took = s.took[1:]
	}
	took = s.now().Sub(s.began)
	s.took = append(s.took, took)
	s.began = 0
	after := s.usualLocked() >= s.slow
	s.mu.Unlock()
	if before != after {
		s.turned.notify()
	}
	return took
}

// usual is the median of the recent writes; 0 until there were enough.
func (s *speed) usual() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usualLocked()
}

func (s *speed) usualLocked() time.Duration {
	if len(s.took) < recentWrites {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.took))
	return sorted[len(sorted)/2]
}

// standing is how long the write under way has been standing still; 0: none does.
func (s *speed) standing() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began == 0 {
		return 0
	}
	if under := s.now().Sub(s.began); under >= s.still {
		return under
	}
	return 0
}

// errStandsStill: a write to the raft folder takes longer than a leader may be silent.
var errStandsStill = errors.New("the disk of the raft folder stands still")

// silent reports whether this node, as the leader, must say nothing now.
func (d *disk) silent() bool {
	under := d.speed.standing()
	if under > 0 {
		d.log.warn("the disk of the raft folder stands still: this node is silent until it answers, so that another can lead the store",
			d.dir, "dir", d.dir, "for", under.Round(time.Millisecond))
	}
	return under > 0
}
