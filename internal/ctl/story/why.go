package story

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgregent/regent/fsm"
)

// Answer says which decision was in force at a time, and how it came to that.
type Answer struct {
	At time.Time
	// Now: the question is about the present, or what the journal has of it.
	Now bool
	// Last is the decision in force; zero Seq: the journal begins later.
	Last Chapter
	// First is where that decision was first come to: the first chapter of the same rule
	// in the same phase, without another between.
	First Chapter
	// Turns are the latest changes of phase before it, oldest first.
	Turns []Chapter
	// Hole: there is a gap after the last chapter, so that it may not have been the last.
	Hole string
}

// maxTurns is how far back an answer tells the way.
const maxTurns = 5

// Ask reads the journal in dir up to a time.
func Ask(dir string, at time.Time) (Answer, error) {
	a := Answer{At: at}
	for c, err := range Read(dir, at.Location()) {
		if err != nil {
			return a, err
		}
		if c.Wall.After(at) {
			continue // not the end: the clock may have been set back later
		}
		if c.Note != "" {
			a.Hole, a.First = c.Note, Chapter{}
			continue
		}
		if a.First.Seq == 0 || !sameRule(a.Last, c) {
			a.First = c
		}
		a.Last, a.Hole = c, ""
		if c.Turned() {
			a.Turns = append(a.Turns, c)
			a.Turns = a.Turns[max(0, len(a.Turns)-maxTurns):]
		}
	}
	return a, nil
}

// sameRule: two chapters came to the same decision, though its numbers may differ.
func sameRule(a, b Chapter) bool {
	x, okX := a.derived()
	y, okY := b.derived()
	return okX && okY && x.Rule == y.Rule && x.To == y.To && x.Trigger == y.Trigger
}

// Text is the answer in words.
func (a Answer) Text() string {
	var b strings.Builder
	c := a.Last
	if c.Seq == 0 {
		fmt.Fprintf(&b, "The journal has nothing from before %s.\n", a.At.Format(TimeLayout))
		return b.String()
	}
	d, ok := c.derived()
	a.heading(&b, d, ok)
	if a.Hole != "" {
		fmt.Fprintf(&b, "The journal has a hole after this (%s): later decisions may be missing.\n", oneLine(a.Hole))
	}
	if !ok {
		return b.String()
	}
	b.WriteString("\n")
	field(&b, "because", d.Text)
	field(&b, "rule", d.Rule)
	field(&b, "edge", edgeText(d))
	field(&b, "fact", factText(a.First))
	if a.First.Seq != c.Seq {
		field(&b, "again", factText(c))
	}
	field(&b, "status", d.Status)
	field(&b, "ordered", strings.Join(d.Actions, ", "))
	a.rejected(&b)
	if len(a.Turns) > 0 {
		b.WriteString("\nthe way there:\n")
		for _, t := range a.Turns {
			fmt.Fprintf(&b, "  %s\n", t.Line())
		}
	}
	return b.String()
}

func (a Answer) heading(b *strings.Builder, d fsm.Derived, ok bool) {
	who := "the agent"
	if a.Last.Known && a.Last.State.Self != "" {
		who = string(a.Last.State.Self)
	}
	when, is := "At "+a.At.Format(TimeLayout), "was"
	if a.Now {
		when, is = "As of "+a.Last.Wall.Format(TimeLayout), "is"
	}
	if !ok {
		fmt.Fprintf(b, "%s nothing is known of what %s made of fact #%d.\n", when, who, a.Last.Seq)
		return
	}
	since := ""
	if n := len(a.Turns); n > 0 && a.Turns[n-1].Phase() == d.To {
		since = ", since " + a.Turns[n-1].Wall.Format(TimeLayout)
	}
	fmt.Fprintf(b, "%s %s %s %s%s.\n", when, who, is, d.To, since)
}

func factText(c Chapter) string {
	text := c.Kind
	if c.Event != nil {
		text = Sentence(c.Event)
	}
	return fmt.Sprintf("#%d at %s: %s", c.Seq, c.Wall.Format(TimeLayout), text)
}

func field(b *strings.Builder, name, text string) {
	if text != "" {
		fmt.Fprintf(b, "%-9s%s\n", name, oneLine(text))
	}
}

// edgeText is the edge that was taken, with the table's sentence for it.
func edgeText(d fsm.Derived) string {
	if d.Trigger == "" {
		return ""
	}
	s := fmt.Sprintf("%s -%s-> %s", d.From, d.Trigger, d.To)
	for _, e := range fsm.Table() {
		if e.Trigger != d.Trigger || e.To != d.To {
			continue
		}
		for _, from := range e.From {
			if from == d.From {
				return s + ": " + e.Why
			}
		}
	}
	return s
}

// rejected lists the rules that were asked before. A journal doesn't keep them, so they
// are recomputed, and shown only if the recomputation comes to the journaled decision.
func (a Answer) rejected(b *strings.Builder) {
	switch {
	case !a.Last.Known:
		b.WriteString("\nThe rejected alternatives can't be recomputed: the journal has no usable snapshot before this.\n")
	case !a.Last.Agrees():
		fmt.Fprintf(b, "\nThis version of the program would decide otherwise: %s\n", oneLine(a.Last.Decision.Reason.Text))
	case len(a.Last.Decision.Reason.Rejected) == 0:
		b.WriteString("\nIt was the first rule of its phase: nothing else was asked.\n")
	default:
		b.WriteString("\nasked before, and rejected:\n")
		for _, r := range a.Last.Decision.Reason.Rejected {
			fmt.Fprintf(b, "  %s: %s\n", r.Rule, oneLine(r.Why))
		}
	}
}
