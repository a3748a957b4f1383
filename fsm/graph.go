package fsm

import (
	"fmt"
	"strings"

	looplab "github.com/looplab/fsm"
)

// Mermaid draws the transition table as a Mermaid state diagram. It is looplab's
// own drawing, so it can't show an edge that the arbiter doesn't have. A fresh
// machine is drawn, because drawing one in use is a data race and would mark
// whatever phase it is in.
func Mermaid() string {
	drawing, err := looplab.VisualizeForMermaidWithGraphType(newArbiter().m, looplab.StateDiagram)
	if err != nil {
		return "" // the one error is an unknown kind of diagram, and this kind is looplab's own
	}
	return drawing
}

// Dot draws the same for Graphviz.
func Dot() string { return looplab.Visualize(newArbiter().m) }

// about says what a phase is, for the generated document.
func about(p Phase) string {
	switch p {
	case Init:
		return "The agent has started. It believes nothing until it has seen the store, its keeper and its PostgreSQL."
	case Joining:
		return "Everything has been seen; the member finds its place: a new cluster, a new copy, or back to what it was."
	case Bootstrapping:
		return "This member creates the cluster: initdb, leader key, start under the lease, roles, record in the store."
	case Cloning:
		return "The data directory is being copied from the primary, or from a replica that offers itself for it."
	case Starting:
		return "PostgreSQL is starting in recovery, which is safe whoever leads."
	case Following:
		return "A standby of the holder, or of the member that replicatefrom names."
	case Rejoining:
		return "PostgreSQL is down or doesn't stream: the way back is judged by ancestry and climbed rung by rung (S23)."
	case Racing:
		return "The leader key is free: leave the old upstream, ask the peers, take the key if nobody is better placed."
	case Promoting:
		return "The lease is held, the keeper is armed, and PostgreSQL is leaving recovery."
	case Leading:
		return "The lease is held and PostgreSQL accepts writes."
	case Reviving:
		return "The lease is held, PostgreSQL crashed, and it is restarted in place within primary_start_timeout."
	case Demoting:
		return "Giving the leadership up: PostgreSQL first, then the key, by hand-over or release (S1, S15)."
	case Restarting:
		return "An operator's restart. A primary keeps its lease meanwhile."
	case Stopping:
		return "The agent is ending: the same as demoting, then the lease is revoked."
	case Stopped:
		return "The agent has ended."
	default:
		return ""
	}
}

// Markdown is docs/fsm.md: the diagram, and for each phase what leads out of it,
// which rule chooses it, and why the edge exists.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# The machine's transitions

<!-- Generated from fsm/table.go and the rules; run "make generate" after a change. -->

A *trigger* labels an edge. Each phase has one list of rules, asked from the top: the first that applies
decides. A rule without a trigger keeps the phase ("no action" is a decision too, and has its reason).
How events of every kind are taken in each phase stands in [fsm-events.md](fsm-events.md); stories that
show the rules at work are the scripts in ` + "`fsm/testdata/scripts`" + `.

` + "```mermaid\n" + Mermaid() + "```\n")
	for _, p := range Phases() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", p, about(p))
		writeEdges(&b, p)
		writeRules(&b, p)
	}
	return b.String()
}

// writeEdges lists the edges out of a phase in the table's order.
func writeEdges(b *strings.Builder, p Phase) {
	var rows int
	for _, e := range Table() {
		for _, from := range e.From {
			if from != p {
				continue
			}
			if rows == 0 {
				b.WriteString("| trigger | leads to | why | chosen by |\n|---|---|---|---|\n")
			}
			rows++
			fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", e.Trigger, e.To, e.Why, strings.Join(choosers(p, e.Trigger), ", "))
		}
	}
	if rows == 0 {
		b.WriteString("Nothing leads out of it.\n")
	}
}

// writeRules lists a phase's rules in the order in which they are asked.
func writeRules(b *strings.Builder, p Phase) {
	b.WriteString("\nAsked in this order: ")
	for i, r := range phaseRules(p) {
		if i > 0 {
			b.WriteString(" · ")
		}
		fmt.Fprintf(b, "`%s`", r.id)
	}
	b.WriteString("\n")
}

// choosers are the rules of the phase that choose the trigger.
func choosers(p Phase, t Trigger) []string {
	var out []string
	for _, r := range phaseRules(p) {
		if r.trigger == t {
			out = append(out, "`"+r.id+"`")
		}
	}
	return out
}
