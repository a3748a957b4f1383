package fsm

import (
	"slices"

	"github.com/pgregent/regent/events"
)

// rule is one line of a phase's decision list. The list is asked from the top;
// the first rule that applies decides, and those before it become the decision's
// rejected alternatives. The last rule of each list always applies.
type rule struct {
	id string
	// trigger that the rule chooses; empty: the phase is kept.
	trigger Trigger
	// when says whether the rule applies, and why (or why not) in a few words.
	when func(s *State) (bool, string)
	// do emits the actions and changes the work in progress, after the edge was fired.
	do func(e *effects)
	// status is the Patroni-compatible line; nil: the reason's own words.
	status func(s *State) string
}

// effects collects what a step changes: the state and the actions.
type effects struct {
	*State
	entry events.Entry
	out   []Ordered
}

// order emits an action and notes it as in flight if an outcome is to come.
func (e *effects) order(a Action) events.ActionID {
	id := events.ActionID{Seq: e.entry.Seq, Index: len(e.out)}
	o := Ordered{ID: id, Action: a}
	if Operation(a) && needsLease(a) || leaseBound(a) {
		o.Needs, o.Until = e.Lease.ID, e.beliefEnd()
	}
	e.out = append(e.out, o)
	if !Silent(a) {
		e.Flight = append(slices.Clone(e.Flight), Flight{ID: id, Kind: a.Kind(), Since: e.Now})
	}
	return id
}

// once emits the action unless one of its kind is in flight already, or a call to
// the store has just failed without an answer.
func (e *effects) once(a Action) {
	if e.InFlight(a) || (Stored(a) && e.Now < e.Store.RetryAt) {
		return
	}
	old := e.Store.At <= e.Store.TendedAt || e.Store.View.Revision < e.Store.Tended
	if tended(a.Kind()) && old && e.Now < e.Store.TendedAt.Add(e.Settings.LoopWait) {
		return
	}
	e.order(a)
}

// operate emits a PostgreSQL operation. One that is under way is superseded: it is
// cancelled, its outcome won't count, and the executor starts the new one only
// after the old one has returned.
func (e *effects) operate(a Action) {
	if e.Op != nil {
		e.drop(e.Op.ID)
		e.order(Cancel{ID: e.Op.ID})
	}
	id := e.order(a)
	e.Op = &Flight{ID: id, Kind: a.Kind(), Since: e.Now}
}

// abandon cancels the operation under way and looks at what it leaves.
func (e *effects) abandon() {
	e.drop(e.Op.ID)
	e.order(Cancel{ID: e.Op.ID})
	e.order(ObservePostgres{})
	e.Op = nil
}

// drop forgets an action in flight, so that its outcome is stale.
func (e *effects) drop(id events.ActionID) {
	e.Flight = slices.DeleteFunc(slices.Clone(e.Flight), func(f Flight) bool { return f.ID == id })
}

// needsLease: operations that make the server writable.
func needsLease(a Action) bool {
	switch a.(type) {
	case StartPrimary, Promote:
		return true
	default:
		return false
	}
}

// leaseBound: writes that only the holder may make.
func leaseBound(a Action) bool {
	switch a.(type) {
	case HandOver, WriteStatus, WriteHistory, WriteSync, WriteFailsafe, SetSyncNames, ExtendFence:
		return true
	default:
		return false
	}
}

// phaseRules returns the decision list of a phase.
func phaseRules(p Phase) []rule {
	switch p {
	case Init:
		return initRules()
	case Joining:
		return joiningRules()
	case Bootstrapping:
		return bootstrappingRules()
	case Cloning:
		return cloningRules()
	case Starting:
		return startingRules()
	case Following:
		return followingRules()
	case Rejoining:
		return rejoiningRules()
	case Racing:
		return racingRules()
	case Promoting:
		return promotingRules()
	case Leading:
		return leadingRules()
	case Reviving:
		return revivingRules()
	case Demoting:
		return demotingRules()
	case Restarting:
		return restartingRules()
	case Stopping:
		return stoppingRules()
	default:
		return stoppedRules()
	}
}

// shutdownRule stands at the top of every phase that an asked-for end interrupts.
func shutdownRule() rule {
	return rule{
		id: "shutdown-asked", trigger: ShutdownAsked,
		when: func(s *State) (bool, string) {
			if s.Shutdown == "" {
				return false, "nobody asked the agent to end"
			}
			return true, "the agent was asked to end by " + s.Shutdown
		},
		do: func(e *effects) { e.beginStop(0, "") },
	}
}

// told chooses a rule's words: why it applies, or why it doesn't.
func told(applies bool, why, whyNot string) (bool, string) {
	if applies {
		return true, why
	}
	return false, whyNot
}

// unresponsive: the server runs, and its monitoring query was not answered.
func (s *State) unresponsive() (bool, string) {
	return told(s.pg().Running && !s.pg().Ready, "PostgreSQL runs and does not answer: "+orNone(s.pg().Why), "PostgreSQL answers, or is down")
}

// always is a when for the last rule of a list.
func always(text string) func(*State) (bool, string) {
	return func(*State) (bool, string) { return true, text }
}
