package fsm

import (
	"fmt"
)

// Violations checks one step against what must always hold. It is used by every
// test and simulation that steps the machine; the agent counts what it finds.
func Violations(before, after State, d Decision) []string {
	var out []string
	bad := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if d.Refused {
		bad("refused: %s in phase %s (%s)", d.Trigger, d.From, d.Reason.Text)
	}
	ops := 0
	out = append(out, syncViolations(&before, &after, d)...)
	for _, o := range d.Actions {
		if Operation(o.Action) {
			ops++
		}
		if needsLease(o.Action) && !after.believes() {
			bad("%s is ordered without a belief in the lease", o.Action.Kind())
		}
		switch o.Action.(type) {
		case StartPrimary, Promote:
			if after.Postgres.Known && after.pg().Data.SystemID.Valid() && after.view().Initialize.SystemID.Valid() &&
				after.pg().Data.SystemID != after.view().Initialize.SystemID {
				bad("%s is ordered on another cluster's data", o.Action.Kind())
			}
		case AcquireLeader:
			out = append(out, acquiredUnderMove(after, o.Action.(AcquireLeader))...)
			if p := after.Failsafe.Promise; after.Now < p.Until && !after.holds() {
				bad("acquire-leader is ordered although %s has this member's promise", p.To)
			}
		case HandOver, ReleaseLeader:
			if h, ok := o.Action.(HandOver); ok && h.Config != after.view().Config.Stored() {
				bad("hand-over is not guarded by the config key that was read")
			}
			if h, ok := o.Action.(HandOver); ok && (h.To == after.Self || after.Demote.Shut && after.doing(Stop{})) {
				continue // to a lease of our own; or nothing but the server's last processes is left (S15)
			}
			if after.pg().Running && after.pg().Data.Content != "empty" && !after.paused() {
				bad("%s is ordered while PostgreSQL runs", o.Action.Kind())
			}
		}
	}
	if ops > 1 {
		bad("%d PostgreSQL operations are ordered in one step", ops)
	}
	sameLease := before.Lease.ID == after.Lease.ID && before.Lease.Trust == after.Lease.Trust &&
		before.Move.Sent <= after.Move.Sent && before.Move.Lease == after.Move.Lease
	if d.Trigger == BeliefEnding && before.holds() && sameLease && d.At.Before(before.fenceAt()) {
		bad("demoted %s before the stop budget begins", before.fenceAt().Sub(d.At))
	}
	if k := after.Keeper; after.Phase == Leading && after.believes() && after.primaryUp() && !after.unseen() &&
		k.Up && !k.Armed && after.unfenced() == "" && !after.InFlight(Disarm{}) && !d.Fired() {
		bad("the primary under the lease has no fence deadline, and nothing excuses that")
	}
	if bare(&after) && !d.Fired() {
		bad("in phase %s a primary runs without a belief in the lease, and is not being stopped", after.Phase)
	}
	if after.Phase != Stopped && after.Settings.LoopWait > 0 && after.Timer.At <= after.Now {
		bad("in phase %s no timer is armed: only luck would wake the machine", after.Phase)
	}
	if after.Op != nil && !after.inFlightID(*after.Op) {
		bad("operation %s is noted, and not in flight", after.Op.Kind)
	}
	return out
}

// acquiredUnderMove: the leader key is taken under the config key that was read (or, where
// it rests on synchronous mode being off, under the one that says so: if they differ, it is
// refused), and not at all where a move to another store bars it (ADR 0024).
func acquiredUnderMove(s State, a AcquireLeader) []string {
	var out []string
	off := s.view().Sync.Leader != "" && !s.Settings.Sync && a.Config == s.Settings.ConfigVersion
	if a.Config != s.view().Config.Stored() && !off {
		out = append(out, "acquire-leader is not guarded by the config key that was read")
	}
	if why := s.moveBars(); why != "" && !s.holds() {
		out = append(out, "acquire-leader is ordered although "+why)
	}
	return out
}

// bare: PostgreSQL accepts writes without a lease behind it, and nothing is done about
// it. What the agent has found at its start is judged once everything has been seen.
func bare(s *State) bool {
	if !s.primaryUp() || s.believes() || s.unseen() || s.paused() {
		return false
	}
	switch s.Phase {
	case Init:
		return s.Keeper.Up && !s.Keeper.Armed && s.phaseAge() >= s.Settings.TTL
	case Stopped:
		return false
	case Joining:
		waits, _ := s.unsure()
		return !waits && !(s.unlocked() && s.Store.DownSince == 0) && s.pg().Data.SystemID == s.view().Initialize.SystemID
	case Demoting, Stopping:
		return s.Demote.Stage != "stop"
	default:
		return true
	}
}

func (s *State) inFlightID(f Flight) bool {
	for _, x := range s.Flight {
		if x.ID == f.ID {
			return true
		}
	}
	return false
}
