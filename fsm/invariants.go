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
		case HandOver, ReleaseLeader:
			if h, ok := o.Action.(HandOver); ok && h.To == after.Self {
				continue // to a lease of our own
			}
			if after.pg().Running && after.pg().Data.Content != "empty" {
				bad("%s is ordered while PostgreSQL runs", o.Action.Kind())
			}
		}
	}
	if ops > 1 {
		bad("%d PostgreSQL operations are ordered in one step", ops)
	}
	if d.Trigger == BeliefEnding && before.holds() && d.At.Before(before.fenceAt()) {
		bad("demoted %s before the stop budget begins", before.fenceAt().Sub(d.At))
	}
	if after.Op != nil && !after.inFlightID(*after.Op) {
		bad("operation %s is noted, and not in flight", after.Op.Kind)
	}
	return out
}

func (s *State) inFlightID(f Flight) bool {
	for _, x := range s.Flight {
		if x.ID == f.ID {
			return true
		}
	}
	return false
}
