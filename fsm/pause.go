package fsm

import (
	"time"

	"github.com/pgregent/regent/events"
)

// Maintenance mode (S11), and primaries without a fence deadline. Two certainties are
// kept apart. That the mode is *asked for* (Settings.Pause) is enough to leave things
// undone: no race, no start. That it was *read linearizably* (Pause.Revision) is needed
// before anything dangerous is left standing: a primary without the lease, a keeper
// without a deadline.

// Pause is what is known of maintenance mode.
type Pause struct {
	// Since is when it was first seen to be on; 0: it is off.
	Since events.Instant `json:"since,omitempty"`
	// Revision is the version of the config key at which a linearizable read showed
	// it; 0: none did yet.
	Revision events.Revision `json:"revision,omitempty"`
	// Armable is the latest version of the config key that asked for a fence deadline.
	Armable events.Revision `json:"armable,omitempty"`
	// Kept is the version of the config key at which the keeper was told of the mode by an
	// agent before this one; 0: it wasn't, or a linearizable read has answered since.
	Kept events.Revision `json:"kept,omitempty"`
	// Denied: older settings than that say that the mode is off.
	Denied bool `json:"denied,omitempty"`
	// Left is the member, as last published, that the leader key was lost by while the
	// mode was on, or after it by one that had not said that its deadline stands again. Its
	// PostgreSQL may be a primary still, whatever became of its agent.
	Left *events.Member `json:"left,omitempty"`
}

// noteLeft watches whether the leader key is lost by a member without a fence deadline.
// Its agent may have died before the mode ended, and its lease end long after.
func (s *State) noteLeft(before, now events.ClusterView) {
	switch m, ok := before.Member(before.Leader.Name); {
	case now.Leader.Locked():
		s.Pause.Left = nil
	case !before.Leader.Locked() || !ok || m.Name == s.Self:
	case s.Settings.Pause || m.Pause || m.Unfenced == events.WaivedPause:
		s.Pause.Left = &m
	}
}

// paused: maintenance mode is on, and that is certain.
func (s *State) paused() bool { return s.Settings.Pause && s.Pause.Revision != 0 }

// HeedsPause reports whether maintenance mode is on and nothing here can stop PostgreSQL
// any more but an operator: the keeper of a primary has let go of its deadline. It is what
// a member publishes, so whoever waited for that may kill the agent.
func (s *State) HeedsPause() bool {
	return s.Settings.Pause && !(s.pg().Running && s.Keeper.Armed)
}

// unfenced is why a primary here is to run without a deadline; empty: it isn't.
func (s *State) unfenced() string {
	switch {
	case s.paused():
		return events.WaivedPause
	case s.Settings.FencingOff && s.Store.Read != 0:
		return events.WaivedFencingOff
	default:
		return ""
	}
}

// Unfenced is why the primary here runs without a fence deadline; empty: it has one,
// or there is no primary.
func (s *State) Unfenced() string {
	if !s.primaryUp() || s.Keeper.Armed {
		return ""
	}
	return s.unfenced()
}

// adjust puts other settings in force. When a primary is to have a deadline again, the
// holder arms its keeper in the same step (S11).
func (e *effects) adjust(set events.Settings) {
	was, before := e.unfenced(), e.Settings
	e.Pause.Denied = !set.Pause && set.ConfigVersion < e.Pause.Kept && e.Store.Read == 0
	if e.Pause.Denied {
		set.Pause = true
	} else if !set.Pause {
		e.Pause.Kept = 0
	}
	e.Settings = set
	if before.Failsafe && !set.Failsafe {
		e.Failsafe.OffSince = e.Now
	}
	switch {
	case !set.Pause:
		if before.Pause {
			e.Store.ResumedAt = e.Now
		}
		e.Pause.Since, e.Pause.Revision = 0, 0
	case e.Pause.Since == 0:
		e.Pause.Since = e.Now
	}
	if !set.Pause && !set.FencingOff {
		e.Pause.Armable = max(e.Pause.Armable, set.ConfigVersion)
	}
	if was != "" && e.unfenced() == "" {
		e.rearm()
	}
}

// rearm gives the primary under the lease its deadline back, whoever promoted it (S3).
func (e *effects) rearm() {
	if e.Phase == Leading && e.believes() && e.primaryUp() {
		e.Keeper.Sent = 0
		e.arm()
	}
}

// arm notes that the server was made a primary by this agent, and sees to its deadline.
func (e *effects) arm() {
	e.Postgres.Promoted = true
	if e.unfenced() == "" {
		e.Keeper.Armed = true
	}
	if e.Keeper.Armed {
		e.extendFence()
	}
}

// confirmPause notes what a linearizable read says of maintenance mode. The settings
// come from the config key, so they count only when they are of the version read. A view
// that was overtaken by a newer one will do as well: that has the same config key.
func (e *effects) confirmPause(v events.ClusterView, read events.Instant) {
	if read == 0 || v.Config.Version != e.Settings.ConfigVersion {
		return
	}
	e.Pause.Kept = 0
	if e.Pause.Denied {
		set := e.Settings
		set.Pause = false
		e.adjust(set)
	}
	if e.Settings.Pause && v.Config.Version != 0 {
		e.Pause.Revision = v.Config.Version
	}
}

// waived takes in that the keeper was told to do without a deadline by an agent before
// this one. Until the store has answered a linearizable read, what held then is taken to
// hold still (S11): settings that are older don't count, and without a quorum the first
// view of the embedded store is this node's own old copy.
func (e *effects) waived(ev events.KeeperFound) {
	at := max(ev.WaivedAt, 1)
	if ev.Waived != events.WaivedPause || e.Store.Read != 0 || !e.Settings.Pause && e.Settings.ConfigVersion >= at {
		return
	}
	e.Pause.Since, e.Pause.Revision, e.Pause.Kept = e.Now, at, at
	e.adjust(e.Settings)
}

// keepPause reads the store when maintenance mode was seen and isn't certain, takes the
// deadline away from a primary that is to run without one, and sees to it that every
// other one has one. The keeper goes by revisions, so a renewal that is still under way
// doesn't arm it again.
func (e *effects) keepPause() {
	if e.Settings.Pause && e.Pause.Revision == 0 && e.Store.Read <= e.Pause.Since {
		e.refresh()
	}
	why := e.unfenced()
	if why == "" && e.Keeper.Up && !e.Keeper.Armed && !e.unseen() {
		e.rearm()
	}
	if why == "" || !e.Keeper.Up || !e.Keeper.Armed || e.Keeper.Fencing || e.busy() || e.Now < e.Keeper.DisarmAfter || !e.pg().Running {
		return
	}
	at := e.Pause.Revision
	if why == events.WaivedFencingOff {
		at = e.view().Config.Version
	}
	e.once(Disarm{Reason: why, Config: at})
}

// outcomeDisarm: the deadline was taken away, or not. When it is wanted again
// meanwhile, it is given back whatever happened.
func (e *effects) outcomeDisarm(ev events.ActionFinished) {
	e.Keeper.DisarmAfter = e.Now.Add(min(e.Settings.LoopWait, time.Second))
	switch {
	case e.unfenced() == "":
		e.rearm()
	case ev.Class == events.Done:
		e.Keeper.Armed, e.Keeper.Sent, e.Keeper.Revision, e.Keeper.DisarmAfter = false, 0, 0, 0
	default:
		e.Keeper.Why = ev.Why
		e.Keeper.Refuses = ev.Class == events.Refused
	}
}
