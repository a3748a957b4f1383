package fsm

import (
	"fmt"
	"time"

	"github.com/pgregent/regent/events"
)

// A member whose promotion fails may have more WAL than anybody, and would win each
// race only to fail again while the others wait for it. So it says in its member key
// that it failed, and leaves the field for a while. The others don't wait for it where
// nothing is at stake; where it has WAL that they lack, they wait for unfitPatience, and
// then lead without that, within maximum_lag_on_failover.

// Unfit is what this member knows of its own failed promotions.
type Unfit struct {
	Count int            `json:"count,omitempty"` // since the last one that succeeded
	Until events.Instant `json:"until,omitempty"` // no race before
	Why   string         `json:"why,omitempty"`
}

// unfitPatience is how long the others wait for the WAL of a member that failed to be
// promoted.
func (s *State) unfitPatience() time.Duration { return max(s.Settings.TTL, 5*time.Second) }

// promotionFailed makes this member stand back. Where nobody else could lead, it tries
// again soon.
func (e *effects) promotionFailed() {
	e.Unfit.Count++
	if e.Unfit.Why == "" {
		e.Unfit.Why = "PostgreSQL did not leave recovery"
	}
	wait := 2 * e.unfitPatience()
	if len(e.candidates(nil)) == 0 {
		wait = e.backoff(e.Unfit.Count)
	}
	e.Unfit.Until = e.Now.Add(wait)
}

// standsBack: this member lets others go first.
func (s *State) standsBack() (bool, string) {
	if s.Now >= s.Unfit.Until || s.wish().Candidate == s.Self {
		return false, ""
	}
	return true, fmt.Sprintf("its last promotion failed (%s), and others may lead first", s.Unfit.Why)
}

// unfit reports whether a peer says that its last promotion failed.
func (s *State) unfit(name events.NodeName) bool {
	m, _ := s.view().Member(name)
	return m.Unfit != ""
}

// outwaited: the peer is ahead, but it failed to be promoted, and it has been waited for.
func (s *State) outwaited(p events.Peer) bool {
	lost := int64(p.Position) - int64(s.position())
	return s.unfit(p.Name) && lost <= s.Settings.MaximumLagOnFailover && s.Now.Sub(s.Store.LeaderSince) >= s.unfitPatience()
}
