package fsm

import (
	"github.com/pgregent/regent/events"
)

// PatroniVersion is the Patroni behaviour that members publish, because other
// Patronis branch on it; "regent" beside it says who we are.
const PatroniVersion = "4.1.4"

// Member is what this member publishes of itself.
func (s *State) Member() events.Member {
	p := s.pg()
	m := events.Member{
		Name: s.Self, ConnURL: s.Settings.ConnURL, APIURL: s.Settings.APIURL,
		State: s.PostgresState(), Role: s.Role(), Version: PatroniVersion, Regent: s.Version,
		HandOff: s.Lease.ID, PendingRestart: p.PendingRestart, PendingReason: p.PendingReason, Pause: s.HeedsPause(), Tags: s.syncTags(),
		Unfenced: s.Unfenced(), Barred: p.Watchdog, Orphan: s.Race.Orphan, ScheduledRestart: s.ScheduledRestart(),
	}
	if s.Move.Reached {
		m.Move = s.Move.Epoch
	}
	if s.Unfit.Count > 0 {
		m.Unfit = s.Unfit.Why
	}
	if p.Running && p.Ready {
		m.XLogLocation, m.Timeline = s.position(), p.Timeline
		if p.InRecovery {
			m.ReceiveLSN, m.ReplayLSN = p.Received, p.Replayed
		}
	}
	if p.InRecovery && p.Streaming {
		m.ReplicationState = "streaming"
	}
	m.CheckpointPending = s.primaryUp() && p.CheckpointTimeline < p.Timeline
	return m
}

// PostgresState is the state word that Patroni's interfaces use.
func (s *State) PostgresState() string {
	p := s.pg()
	switch {
	case s.Phase == Bootstrapping && !p.Running:
		return "initializing new cluster"
	case s.Phase == Cloning || s.Phase == Rejoining && s.Rejoin.Reinit:
		return "creating replica"
	case s.Phase == Restarting && !p.Ready:
		return "restarting"
	case s.doing(Stop{}):
		return "stopping"
	case p.Running && p.Ready:
		return "running"
	case p.Running || s.doing(StartStandby{}) || s.doing(StartPrimary{}):
		return "starting"
	case s.Postgres.Down != nil && !s.Postgres.Down.Ours:
		return "crashed"
	default:
		return "stopped"
	}
}

// Role is the role word that Patroni's interfaces use.
func (s *State) Role() string {
	p := s.pg()
	switch {
	case s.Postgres.Known && p.Data.Content == events.DataEmpty:
		return "uninitialized"
	case s.Phase == Demoting || (s.Phase == Stopping && s.Demote.HandOff):
		return "demoted"
	case p.Running && p.Ready && !p.InRecovery:
		return "primary"
	case s.Phase == Leading || s.Phase == Reviving || (s.Phase == Restarting && s.Restart.Primary):
		return "primary"
	default:
		return "replica"
	}
}
