package fsm

import (
	"fmt"

	"github.com/pgregent/regent/events"
)

// MaxChain is how many Reconsiders may follow each other before the machine is
// said to be restless, which is a defect (S22).
const MaxChain = 16

// Machine steps states. It holds no state but looplab's scratch machine, and is
// not safe for concurrent use; the state's owner owns the machine.
type Machine struct {
	arbiter *arbiter
}

// New returns a machine.
func New() *Machine { return &Machine{arbiter: newArbiter()} }

// Step absorbs one entry, decides at most one trigger, fires it, and keeps leases
// and published facts fresh. It is total: every state and every entry have a
// result. The given state is not changed.
//
// When the decision fired, the caller must step a Reconsider next, before
// anything else, so that the machine comes to rest (S22).
func (m *Machine) Step(s State, entry events.Entry) (State, Decision) {
	e := &effects{State: &s, entry: entry}
	e.Seq, e.Wall = entry.Seq, entry.Wall
	e.Now = max(e.Now, entry.At)
	if _, started := entry.Event.(events.AgentStarted); started {
		e.Now = entry.At // another boot's clock starts anew
	}
	if _, again := entry.Event.(events.Reconsider); again {
		e.Chain++
	} else {
		e.Chain = 0
	}
	absorb(e)
	d := m.decide(e)
	upkeep(e)
	e.wake()
	d.Actions = e.out
	s.Last = d
	s.Last.Actions = nil
	return s, d
}

// decide asks the phase's rules and fires the trigger of the first that applies.
func (m *Machine) decide(e *effects) Decision {
	d := Decision{Seq: e.Seq, At: e.Now, Event: e.entry.Event.Kind(), From: e.Phase, To: e.Phase}
	for _, r := range phaseRules(e.Phase) {
		ok, text := r.when(e.State)
		if !ok {
			d.Reason.Rejected = append(d.Reason.Rejected, Rejected{Rule: r.id, Why: text})
			continue
		}
		d.Reason.Rule, d.Reason.Text, d.Trigger = string(e.Phase)+"/"+r.id, text, r.trigger
		m.fire(e, &d, r)
		d.Status = text
		if r.status != nil {
			d.Status = r.status(e.State)
		}
		if e.Settings.Pause {
			d.Status = "PAUSE: " + d.Status
		}
		return d
	}
	e.Defects++
	d.Refused = true
	d.Reason.Text = fmt.Sprintf("no rule of phase %s applies, which must not happen", e.Phase)
	return d
}

// fire moves to the phase that the table says, and runs the rule's effects.
func (m *Machine) fire(e *effects, d *Decision, r rule) {
	if r.trigger != "" {
		to, err := m.arbiter.fire(e.Phase, r.trigger)
		if err == nil && e.Chain >= MaxChain {
			err = fmt.Errorf("still restless after %d reconsiderations", MaxChain)
		}
		if err != nil {
			e.Defects++
			d.Refused = true
			d.Reason.Text += "; refused: " + err.Error()
			return
		}
		d.To = to
		if to != e.Phase {
			e.Phase, e.Since = to, e.Now
		}
	}
	if r.do != nil {
		r.do(e)
	}
}
