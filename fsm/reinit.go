package fsm

import (
	"fmt"

	"github.com/pgregent/regent/events"
)

// A member is built anew because an operator asked for it: the server is stopped, and a
// copy takes the place of its data. The wish outlives the agent (RejoinWork, S21), so
// one that is killed between the two goes on.

// absorbReinit accepts or refuses the wish.
func (e *effects) absorbReinit(ev events.ReinitRequested) {
	if text := e.refuseReinit(ev.Force); text != "" {
		e.order(Respond{ID: ev.ID, Text: text})
		return
	}
	if e.Op != nil {
		e.abandon()
	}
	e.Rejoin = RejoinWork{Reinit: true, FromLeader: ev.FromLeader, Why: "an operator asked to begin anew"}
	e.order(Respond{ID: ev.ID, OK: true, Text: "reinitialize started"})
}

// refuseReinit says why the member can't be built anew now; empty: it can.
func (s *State) refuseReinit(force bool) string {
	switch {
	case s.holds() || s.leader().Name == s.Self:
		return "I am the leader, can not reinitialize"
	case !s.otherLeads():
		return "Cluster has no leader, can not reinitialize"
	case s.Phase == Restarting:
		return "restart already in progress"
	case !reinitable(s.Phase):
		return fmt.Sprintf("PostgreSQL can't be reinitialized while the member is %s", s.Phase)
	case force:
		return ""
	case s.Rejoin.Reinit || s.Phase == Cloning:
		return "reinitialize already in progress"
	case s.doing(Rewind{}):
		return "pg_rewind already in progress"
	case s.doing(StartStandby{}):
		return "start already in progress"
	default:
		return ""
	}
}

func reinitable(p Phase) bool {
	switch p {
	case Joining, Cloning, Starting, Following, Rejoining:
		return true
	default:
		return false
	}
}

// reinitRule leaves a phase in which the server would be kept. The ladder's last rung
// does the rest.
func reinitRule() rule {
	return rule{
		id: "reinitialize", trigger: ReinitAccepted,
		when: func(s *State) (bool, string) {
			switch {
			case !s.Rejoin.Reinit:
				return false, "nobody asked for a new copy"
			case !s.otherLeads():
				return false, "a new copy was asked for, and nobody leads to copy from"
			default:
				return true, "an operator asked for a new copy"
			}
		},
		status: func(*State) string { return "reinitialize in progress" },
	}
}

// reinitWaitingRule holds the ladder's other rungs back while nobody can be copied from.
func reinitWaitingRule() rule {
	return rule{
		id: "reinitialize-waiting", when: func(s *State) (bool, string) {
			if !s.Rejoin.Reinit {
				return false, "nobody asked for a new copy"
			}
			_, text := s.cloneable()
			return true, "an operator asked for a new copy: " + text
		},
		status: func(*State) string { return "reinitialize in progress" },
	}
}
