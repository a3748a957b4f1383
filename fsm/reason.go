package fsm

import (
	"github.com/pgregent/regent/events"
)

// Reason explains a decision, "no action" included. The log line, the journal,
// `regent why` and the REST API show the same words.
type Reason struct {
	// Rule that decided, as "phase/rule".
	Rule string `json:"rule"`
	// Text says in one sentence what was found, with the values it was read from.
	Text string `json:"text"`
	// Rejected are the rules that were asked before and why they did not apply.
	Rejected []Rejected `json:"rejected,omitempty"`
}

// Rejected is an alternative that was considered.
type Rejected struct {
	Rule string `json:"rule"`
	Why  string `json:"why"`
}

// Decision is what one step came to.
type Decision struct {
	Seq     uint64         `json:"seq"`
	At      events.Instant `json:"at"`
	Event   events.Kind    `json:"event"`
	From    Phase          `json:"from"`
	To      Phase          `json:"to"`
	Trigger Trigger        `json:"trigger,omitempty"`
	// Refused: a rule chose a trigger for which the table has no edge. That is a
	// defect of the rules; the machine stays where it was.
	Refused bool   `json:"refused,omitempty"`
	Reason  Reason `json:"reason"`
	// Status is the Patroni-compatible line for logs.
	Status  string    `json:"status"`
	Actions []Ordered `json:"-"`
}

// Fired reports whether the decision fired a trigger.
func (d Decision) Fired() bool { return d.Trigger != "" && !d.Refused }
