package metrics

import (
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// outage follows which primary this member sees at work, and measures the gap between two.
type outage struct {
	primary events.NodeName // seen last
	at      events.Instant  // when
	last    time.Duration   // gap at the last change of primary
	changes uint64
}

// see takes in a state. A gap begins with this member's last sight of the old primary, so a
// primary that vanishes without a word counts from the moment at which that was noticed
// (its lease gone), not from its death, which nobody here knows.
func (o *outage) see(s *fsm.State) {
	primary, ok := atWork(s)
	if !ok {
		return
	}
	if o.primary != "" && o.primary != primary {
		o.last = s.Now.Sub(o.at)
		o.changes++
	}
	o.primary, o.at = primary, s.Now
}

// atWork is the primary that this member sees at work: itself, or the one whose changes
// it receives.
func atWork(s *fsm.State) (events.NodeName, bool) {
	pg := s.Postgres.State
	leader := s.Store.View.Leader
	switch {
	case !pg.Running || !pg.Ready:
		return "", false
	case s.Phase == fsm.Leading && !pg.InRecovery && s.Leads(s.Now):
		return s.Self, true
	case s.Phase == fsm.Following && pg.Streaming && s.Store.Known && leader.Locked() && leader.Name != s.Self:
		// What it publishes of itself comes sooner than the end of a stream that carries nothing.
		m, known := s.Store.View.Member(leader.Name)
		return leader.Name, !known || m.State == "running"
	}
	return "", false
}
