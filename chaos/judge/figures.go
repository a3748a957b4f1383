package judge

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/regent/internal/sandbox/history"
)

// Figure is something that is measured in a fault and may be bounded.
type Figure string

// The figures. Counts are counts, the others are times.
const (
	// Outage is the longest time without an acknowledged insert.
	Outage Figure = "outage"
	// Lost is the number of acknowledged rows that are gone.
	Lost Figure = "lost rows"
	// Failed is the number of inserts that were sent and not acknowledged.
	Failed Figure = "failed writes"
	// Two is the time for which two members or more were certainly out of recovery at once.
	Two Figure = "two primaries"
	// Streaming is the time from the beginning until all members streamed again for good.
	Streaming Figure = "streaming again"
	// AsPrimary is the time from a member's first sighting as a primary to its last.
	AsPrimary Figure = "time as primary"
	// Noticed is the time from the end of a member's server until its agent had journaled it.
	Noticed Figure = "noticed"
)

// Figures lists them all.
func Figures() []Figure { return []Figure{Outage, Lost, Failed, Two, Streaming, AsPrimary, Noticed} }

// Count reports that a figure is a number of things.
func (f Figure) Count() bool { return f == Lost || f == Failed }

// Bound is what is demanded of a figure. Value is a number of things or of nanoseconds.
type Bound struct {
	Figure Figure
	// Node is whose figure it is, for AsPrimary and Noticed.
	Node string
	// AtLeast turns the bound around.
	AtLeast bool
	Value   int64
}

// String is for reports.
func (b Bound) String() string {
	name, side := string(b.Figure), "at most"
	if b.Node != "" {
		name += " of " + b.Node
	}
	if b.AtLeast {
		side = "at least"
	}
	return fmt.Sprintf("%s %s %s", name, side, b.Figure.Text(b.Value))
}

// Text prints a value of the figure.
func (f Figure) Text(value int64) string {
	if f.Count() {
		return fmt.Sprint(value)
	}
	return ms(time.Duration(value))
}

// Reign is what a member's journal says of its server: it was out of recovery on a timeline.
type Reign struct {
	Node     string
	Timeline uint32
}

// OutOfBounds: a figure isn't what was demanded of it.
const OutOfBounds Kind = "out of bounds"

// TwoOnATimeline: two members wrote the same timeline. Where acknowledged rows may be lost that can
// come of a member that is promoted without ever having heard of the newest timeline: PostgreSQL
// gives it the same number, and the other one's data is copied anew.
const TwoOnATimeline Kind = "two on a timeline"

// Broken: a step of the story didn't come as it must, or a journal breaks an invariant.
const Broken Kind = "promise"

// value measures a figure; false: there is nothing to measure, and no bound is kept by that.
func (v *Verdict) value(e Evidence, b Bound) (int64, bool) {
	switch b.Figure {
	case Outage:
		return int64(v.Outage.Length()), true
	case Lost:
		return int64(len(v.Lost)), true
	case Failed:
		return int64(e.FailedWrites), true
	case Two:
		return int64(v.Two), true
	case Streaming:
		return int64(e.Streaming), e.Trouble == ""
	case AsPrimary:
		return int64(e.asPrimary(b.Node)), true
	case Noticed:
		at, known := e.Noticed[b.Node]
		return int64(at), known
	}
	return 0, false
}

func (v *Verdict) judgeBounds(e Evidence) {
	for _, b := range e.Bounds {
		value, known := v.value(e, b)
		if !known {
			v.violate(OutOfBounds, "%s: it couldn't be measured (%s)", b, e.Fault)
			continue
		}
		if b.AtLeast && value < b.Value || !b.AtLeast && value > b.Value {
			v.violate(OutOfBounds, "%s, and it was %s (%s)", b, b.Figure.Text(value), e.Fault)
		}
	}
	for _, text := range e.Broken {
		v.violate(Broken, "%s (%s)", text, e.Fault)
	}
	if e.MayBeTwo || e.MayLose {
		return
	}
	first := map[uint32]string{}
	for _, r := range e.Reigns {
		if other, taken := first[r.Timeline]; taken && other != r.Node {
			v.violate(TwoOnATimeline, "%s and %s were both primary on timeline %d (%s)", other, r.Node, r.Timeline, e.Fault)
			continue
		}
		first[r.Timeline] = r.Node
	}
}

// asPrimary is from the first sighting to the last, whatever was between: too long if it errs.
func (e Evidence) asPrimary(node string) time.Duration {
	from, to, seen := time.Duration(0), time.Duration(0), false
	for _, s := range slices.Concat(e.WatcherSpans, e.WriterSpans) {
		if s.Node != node || s.Role != history.Primary || s.LastAnswered < e.From || s.FirstSent > e.To {
			continue
		}
		if !seen || s.FirstSent < from {
			from = s.FirstSent
		}
		to, seen = max(to, s.LastAnswered), true
	}
	if !seen {
		return 0
	}
	return min(to, e.To) - max(from, e.From)
}

// together is the length of the union of proven overlaps.
func together(overlaps []history.Overlap) time.Duration {
	sorted := slices.Clone(overlaps)
	slices.SortFunc(sorted, func(a, b history.Overlap) int { return int(a.From - b.From) })
	total, end := time.Duration(0), time.Duration(0)
	for _, o := range sorted {
		if o.To > end {
			total += o.To - max(o.From, end)
			end = o.To
		}
	}
	return total
}
