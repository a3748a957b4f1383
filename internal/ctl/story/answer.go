package story

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
)

// Text is the answer in words, with times in zone.
func (a Answer) Text(zone *time.Location) string {
	w := answerWriter{zone: zone}
	if !a.Known {
		fmt.Fprintf(&w.b, "The journal has nothing from before %s.\n", w.time(a.At))
		return w.b.String()
	}
	w.heading(a)
	if a.Hole != "" {
		fmt.Fprintf(&w.b, "The journal has a hole after this (%s): later decisions may be missing.\n", oneLine(a.Hole))
	}
	if a.Phase == "" {
		return w.b.String()
	}
	w.b.WriteString("\n")
	w.field("because", a.Reason)
	w.field("rule", a.Rule)
	w.field("edge", a.Edge)
	w.field("fact", w.moment(a.Fact))
	w.field("again", w.moment(a.Again))
	w.field("still", w.confirmed(a.Confirmed))
	w.field("status", a.Status)
	w.field("ordered", strings.Join(orders(a.Ordered), ", "))
	w.rejected(a)
	if len(a.Turns) > 0 {
		w.b.WriteString("\nthe way there:\n")
		for _, t := range a.Turns {
			line := fmt.Sprintf("%s  #%d  %s  =>  %s -> %s: %s", w.time(t.Time), t.Seq, t.Text, t.From, t.To, t.Reason)
			fmt.Fprintf(&w.b, "  %s%s\n", oneLine(line), ordered(t.Ordered))
		}
	}
	return w.b.String()
}

type answerWriter struct {
	b    strings.Builder
	zone *time.Location
}

func (w *answerWriter) time(t time.Time) string { return t.In(w.zone).Format(TimeLayout) }

func (w *answerWriter) heading(a Answer) {
	who := string(a.Member)
	if who == "" {
		who = "the agent"
	}
	when, is := "At "+w.time(a.At), "was"
	if a.Now {
		when, is = "As of "+w.time(a.Time), "is"
	}
	if a.Phase == "" {
		fmt.Fprintf(&w.b, "%s nothing is known of what %s made of fact #%d.\n", when, who, a.Seq)
		return
	}
	since := ""
	if !a.Since.IsZero() {
		since = ", since " + w.time(a.Since)
	}
	fmt.Fprintf(&w.b, "%s %s %s %s%s.\n", when, who, is, a.Phase, since)
}

func (w *answerWriter) moment(m *Moment) string {
	if m == nil {
		return ""
	}
	return fmt.Sprintf("#%d at %s: %s", m.Seq, w.time(m.Time), m.Text)
}

func (w *answerWriter) confirmed(c *Confirmed) string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("the same since %s, last confirmed %s, by %d fact%s (%s)",
		w.time(c.Since), w.time(c.Last), c.Count, plural(int(min(c.Count, 2))), kindsText(c.Kinds))
}

func (w *answerWriter) field(name, text string) {
	if text != "" {
		fmt.Fprintf(&w.b, "%-9s%s\n", name, oneLine(text))
	}
}

func (w *answerWriter) rejected(a Answer) {
	switch {
	case a.Unsure != "":
		fmt.Fprintf(&w.b, "\n%s\n", oneLine(a.Unsure))
	case len(a.Rejected) == 0:
		w.b.WriteString("\nIt was the first rule of its phase: nothing else was asked.\n")
	default:
		w.b.WriteString("\nasked before, and rejected:\n")
		for _, r := range a.Rejected {
			fmt.Fprintf(&w.b, "  %s: %s\n", r.Rule, oneLine(r.Why))
		}
	}
}

// kindsText counts the facts of a quiet stretch by what they were.
func kindsText(kinds map[events.Kind]int) string {
	names := map[events.Kind]string{
		events.KindLeaseRenewed: "renewal", events.KindTick: "heartbeat", events.KindPostgresObserved: "look at PostgreSQL",
		events.KindClusterObserved: "view of the store", events.KindTimerFired: "timer", events.KindActionFinished: "outcome",
	}
	plurals := map[string]string{"look at PostgreSQL": "looks at PostgreSQL", "view of the store": "views of the store"}
	var sorted []events.Kind
	for kind := range kinds {
		sorted = append(sorted, kind)
	}
	slices.SortFunc(sorted, func(a, b events.Kind) int {
		if d := kinds[b] - kinds[a]; d != 0 {
			return d
		}
		return strings.Compare(string(a), string(b))
	})
	var parts []string
	for _, kind := range sorted {
		n, name := kinds[kind], names[kind]
		if name == "" {
			name = string(kind)
		}
		if n != 1 {
			if many, ok := plurals[name]; ok {
				name = many
			} else {
				name += "s"
			}
		}
		parts = append(parts, fmt.Sprintf("%d %s", n, name))
	}
	return strings.Join(parts, ", ")
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}
