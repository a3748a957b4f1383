// Package fsm is the decision-making heart of Regent: a pure state machine.
//
//	              ┌────────────── Step ──────────────┐
//	entry ──────▶ │ absorb ─▶ decide ─▶ fire ─▶ upkeep │ ──────▶ State', Decision
//	(event + time)│  facts    one rule   table  leases │        (reason, actions)
//	              └───────────────────────────────────┘
//
// Step is total and deterministic. It reads no clock and does no I/O: time comes
// with each entry, and what is to be done leaves as plain data. So a decision can
// be explained (every one carries its reason, "no action" too), replayed from the
// journal, and simulated.
//
// Two vocabularies are kept apart. An event is a fact in the past tense (package
// events). A trigger is the label of an edge of the transition table, chosen by at
// most one rule per step. looplab/fsm, which calls triggers "events", arbitrates
// whether the edge exists, and draws the picture; it runs no callbacks.
//
// Reading order: phase.go, table.go, rule.go, then step_<phase>.go for the phase
// at hand; testdata/scripts holds the scripts that specify the behaviour.
package fsm
