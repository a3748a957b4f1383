package fsm

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/pgregent/regent/events"
)

// What an operator wants later: a restart of this member's server, remembered by the
// member (S21), and a switchover, remembered by the request key. Both are judged when
// their time has come, by the wall clock: it is what the operator meant.

// late is how long after its time something scheduled may still begin. Later than that
// nobody was there to do it, and the operator counts on it no more.
func (s *State) late() time.Duration {
	return max(s.Settings.LoopWait+s.Settings.LoopWait/2, 10*time.Second)
}

// instantOf is when the wall clock will show that time.
func (s *State) instantOf(wall int64) events.Instant {
	return s.Now.Add(time.Duration(wall - s.Wall))
}

// postponed reports whether the request key's wish is for later, and says until when.
// One that can't be read, or whose time is long over, is not: it is to be refused.
func (s *State) postponed() (bool, string) {
	at := s.view().Failover.ScheduledAt
	t, err := time.Parse(time.RFC3339, at)
	switch left := time.Duration(t.UnixNano() - s.Wall); {
	case at == "" || err != nil:
		return false, ""
	case s.Settings.Pause:
		return true, "the request is scheduled for " + at + ", and maintenance mode is on"
	case left > 0:
		return true, fmt.Sprintf("Awaiting switchover at %s (in %.0f seconds)", at, left.Seconds())
	default:
		return false, ""
	}
}

// missed says why a scheduled wish can't be granted any more; empty: it can, or it
// isn't a scheduled one.
func (s *State) missed() string {
	at := s.view().Failover.ScheduledAt
	if at == "" {
		return ""
	}
	t, err := time.Parse(time.RFC3339, at)
	switch {
	case err != nil:
		return "Incorrect value of scheduled_at: " + at
	case s.Wall-t.UnixNano() > int64(s.late()):
		return "Found a stale switchover value, cleaning up: " + at
	default:
		return ""
	}
}

// scheduledRestart judges the restart to come: due, to be dropped, or neither; and why.
func (s *State) scheduledRestart() (due, drop bool, text string) {
	r, p := s.Schedule, s.pg()
	switch {
	case r == nil:
		return false, false, "no restart is scheduled"
	case s.Settings.Pause:
		return false, false, "a restart is scheduled for " + r.At + ", and maintenance mode is on"
	case p.Ready && r.StartedAt != "" && p.StartedAt != "" && r.StartedAt != p.StartedAt:
		return false, true, "postgres restart has already happened at " + p.StartedAt
	case s.Wall < r.Wall:
		return false, false, "a restart is scheduled for " + r.At
	case s.Wall-r.Wall > int64(s.late()):
		return false, true, "nobody was there to restart PostgreSQL at " + r.At
	case r.Role != "" && r.Role != s.Role():
		return false, true, "host role mismatch: " + s.Role() + ", not " + r.Role
	case r.OlderThan != 0 && p.ServerVersion >= r.OlderThan:
		return false, true, "postgres version mismatch: not older than " + r.Version
	case r.Pending && !p.PendingRestart:
		return false, true, "pending restart flag is not set"
	default:
		return true, false, "the restart scheduled for " + r.At + " is due"
	}
}

// dropScheduleRule forgets a scheduled restart that is not to be made.
func dropScheduleRule() rule {
	return rule{
		id: "drop-scheduled-restart", when: func(s *State) (bool, string) {
			_, drop, text := s.scheduledRestart()
			return drop, text
		},
		do: func(e *effects) { e.Schedule = nil },
		status: func(s *State) string {
			_, _, text := s.scheduledRestart()
			return "Cancelling scheduled restart: " + text
		},
	}
}

// absorbSchedule takes in a restart for later, or that there is to be none.
func (e *effects) absorbSchedule() {
	switch ev := e.entry.Event.(type) {
	case events.RestartRequested:
		switch {
		case e.Settings.Pause:
			e.order(Respond{ID: ev.ID, Text: "Can't schedule restart in the paused state"})
		case e.Schedule != nil:
			e.order(Respond{ID: ev.ID, Text: "Another restart is already scheduled"})
		default:
			r := *ev.Schedule
			e.Schedule = &r
			e.order(Respond{ID: ev.ID, OK: true, Text: "Restart scheduled"})
		}
	case events.RestartWithdrawn:
		if e.Schedule == nil {
			e.order(Respond{ID: ev.ID, Text: "no restarts are scheduled"})
			return
		}
		e.Schedule = nil
		e.order(Respond{ID: ev.ID, OK: true, Text: "scheduled restart deleted"})
	}
}

// ScheduledRestart is the restart to come in the form of Patroni's member key; nil: none.
func (s *State) ScheduledRestart() json.RawMessage {
	r := s.Schedule
	if r == nil {
		return nil
	}
	out := struct {
		Schedule  string  `json:"schedule"`
		StartedAt *string `json:"postmaster_start_time"`
		Role      string  `json:"role,omitempty"`
		Version   string  `json:"postgres_version,omitempty"`
		Timeout   int64   `json:"timeout,omitempty"`
		Pending   bool    `json:"restart_pending,omitempty"`
	}{r.At, nil, r.Role, r.Version, int64(r.Timeout / time.Second), r.Pending}
	if r.StartedAt != "" {
		at := events.PythonTime(r.StartedAt)
		out.StartedAt = &at
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil // strings and numbers always encode
	}
	return b
}
