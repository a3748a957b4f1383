package fsm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgregent/regent/events"
)

// Handled is one cell of the report: what comes of an event of that kind in that phase.
type Handled struct {
	Phase Phase
	Kind  events.Kind
	// Moves are the edges that were taken, as "trigger → phase"; Orders the kinds of
	// actions that were ordered. Neither: the fact was noted, and nothing is to be done.
	Moves  []string
	Orders []string
}

// Survey steps every sample event on every one of the states, and says what came of
// it per phase and kind of event: the answer to "what does a member in this phase do
// when that happens?". Faults are what must not be: a refused edge, a violated
// invariant, a kind that the machine doesn't know, a pair that no state covers.
func Survey(states []State, samples func(*State) []events.Event) (cells []Handled, faults []string) {
	v := survey{machine: New(), cells: map[[2]string]*Handled{}, faults: map[string]bool{}}
	for i := range states {
		for _, ev := range samples(&states[i]) {
			v.try(states[i], ev)
		}
	}
	for _, p := range Phases() {
		for _, k := range events.Kinds() {
			c, ok := v.cells[[2]string{string(p), string(k)}]
			if !ok {
				v.faults[fmt.Sprintf("nobody tried %s in phase %s", k, p)] = true
				continue
			}
			slices.Sort(c.Moves)
			slices.Sort(c.Orders)
			cells = append(cells, *c)
		}
	}
	for f := range v.faults {
		faults = append(faults, f)
	}
	slices.Sort(faults)
	return cells, faults
}

type survey struct {
	machine *Machine
	cells   map[[2]string]*Handled
	faults  map[string]bool
}

// try steps one event, and the Reconsiders that follow it, on one state.
func (v *survey) try(s State, ev events.Event) {
	key := [2]string{string(s.Phase), string(ev.Kind())}
	c := v.cells[key]
	if c == nil {
		c = &Handled{Phase: s.Phase, Kind: ev.Kind()}
		v.cells[key] = c
	}
	from := fmt.Sprintf("%s in phase %s (%s)", ev.Kind(), s.Phase, s.Last.Reason.Rule)
	for range MaxChain + 1 {
		next, d := v.machine.Step(s, events.Entry{Seq: s.Seq + 1, At: when(&s, ev), Wall: s.Wall + 1, Event: ev})
		for _, bad := range Violations(s, next, d) {
			v.faults[from+": "+bad] = true
		}
		if next.Defects > s.Defects && !d.Refused {
			v.faults[from+": the machine doesn't know this kind of event"] = true
		}
		for _, o := range d.Actions {
			if kind := o.Action.Kind(); kind != (SetTimer{}).Kind() && !slices.Contains(c.Orders, kind) {
				c.Orders = append(c.Orders, kind)
			}
		}
		if !d.Fired() {
			return
		}
		if move := fmt.Sprintf("%s → %s", d.Trigger, d.To); !slices.Contains(c.Moves, move) {
			c.Moves = append(c.Moves, move)
		}
		s, ev = next, events.Reconsider{}
	}
	v.faults[from+": the machine does not come to rest"] = true
}

// when is the earliest time at which the event would come: deadlines' events bring
// their deadline with them.
func when(s *State, ev events.Event) events.Instant {
	at := s.Now + 1
	switch e := ev.(type) {
	case events.Tick:
		at = max(at, s.NextTick)
	case events.TimerFired:
		at = max(at, s.Timer.At)
	case events.PrimaryStartTimeout:
		at = max(at, s.Revive.Deadline)
	case events.LeaseLost:
		if e.Cause == events.LossExpired {
			at = max(at, s.fenceAt())
		}
	}
	return at
}

// ReportMarkdown is docs/fsm-events.md: the survey as one table per phase.
func ReportMarkdown(cells []Handled) string {
	var b strings.Builder
	b.WriteString(`# What happens when

<!-- Generated from the machine and the scripts; run "make generate" after a change. -->

Every kind of event, tried in every phase, on every kind of situation that the scripts in
` + "`fsm/testdata/scripts`" + ` lead to; for outcomes of actions in all their classes. *Noted* means that the fact
is taken in and nothing follows from it at once. What leads to what, and why, is in [fsm.md](fsm.md).
`)
	var phase Phase
	for _, c := range cells {
		if c.Phase != phase {
			phase = c.Phase
			fmt.Fprintf(&b, "\n## %s\n\n| event | may lead to | may order |\n|---|---|---|\n", phase)
		}
		moves, orders := strings.Join(c.Moves, " · "), strings.Join(c.Orders, " · ")
		if moves == "" && orders == "" {
			moves = "*noted*"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", c.Kind, moves, orders)
	}
	return b.String()
}
