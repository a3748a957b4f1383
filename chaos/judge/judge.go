// Package judge decides whether a cluster kept its promises during a fault, from what a
// writer and a watcher saw of it and from the rows that are left. It is pure, knows nothing
// of how the fault was made, and tests itself with planted violations: a judge that acquits
// those must not be believed.
package judge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/regent/internal/sandbox/history"
)

// Evidence is what was seen during one fault, and what was promised for it.
type Evidence struct {
	// Fault names it, for the texts.
	Fault string
	// From is when the fault began, To when the cluster counted as whole again.
	From, To time.Duration
	// Members are all that were watched.
	Members []string
	// Writes is the writer's log from its beginning; WriterSpans and WatcherSpans are when
	// members were seen in which role.
	Writes                    history.Writes
	WriterSpans, WatcherSpans []history.Span
	// Present are the rows that are in the table at To, sorted.
	Present []int64
	// Others are writers beside the one whose outage is measured.
	Others []Testimony
	// Lists are questions about lists and their answers, in a mode in which nothing acknowledged
	// may be lost; nil: there were none.
	Lists []history.ListOp
	// LostBefore are rows that an earlier fault's verdict reported lost, sorted.
	LostBefore []int64
	// MayLose: acknowledged rows may be lost in this fault (asynchronous replication, and
	// the node that had them is gone).
	MayLose bool
	// Freezes are the times in which whole members stood still.
	Freezes []history.Freeze
	// MaxOutage is the longest outage that is allowed; zero: any.
	MaxOutage time.Duration
	// MinRate is how often per second each member must have been looked at for the verdict
	// to be worth something; zero: any.
	MinRate float64
	// Unread: the rows that are left couldn't be read. That is a violation of its own, and no
	// reason to call all of them lost.
	Unread bool
	// Trouble is why the cluster isn't whole at To; empty when it is.
	Trouble string

	// MayBeTwo: two primaries are part of the story; how long is measured and may be bounded.
	MayBeTwo bool
	// Bounds are demanded of what is measured.
	Bounds []Bound
	// FailedWrites, Streaming and Noticed are figures that were taken elsewhere.
	FailedWrites int
	Streaming    time.Duration
	Noticed      map[string]time.Duration
	// Reigns are what the members' journals say, Broken what else was found, as sentences.
	Reigns []Reign
	Broken []string
}

// Testimony is of a writer that stood somewhere: on a member's own host, where it goes on when the
// host is cut off.
type Testimony struct {
	// Who tells the writer from others, for the texts.
	Who    string
	Writes history.Writes
	Spans  []history.Span
	// Present are its rows that are there at To, LostBefore those that an earlier fault's verdict
	// reported lost. Both are sorted.
	Present, LostBefore []int64
}

// MaxThaw is how long a whole member that was frozen past its lease may go on as a primary beside
// the one that replaced it: until its keeper, thawed with it, has fenced it. The promise names
// this window, so it is measured, and a violation only beyond that length.
const MaxThaw = 50 * time.Millisecond

// Window is the time for which a thawed member went on as a primary beside another one.
type Window struct {
	Node string
	// At is the thaw. Length is the time from it to the last answer as a primary: the longest
	// that fits what was seen.
	At, Length time.Duration
}

// String is for reports.
func (w Window) String() string {
	return fmt.Sprintf("%s, thawed at %s, was a primary beside another one for at most %s", w.Node, ms(w.At), ms(w.Length))
}

// Kind of a violation.
type Kind string

// The violations.
const (
	// TwoPrimaries: two members were out of recovery at once.
	TwoPrimaries Kind = "two primaries"
	// LostRows: acknowledged rows are gone that no exception covers.
	LostRows Kind = "lost rows"
	// ForeignRows: rows are there that the writer never sent.
	ForeignRows Kind = "foreign rows"
	// LongOutage: nothing was acknowledged for too long.
	LongOutage Kind = "long outage"
	// NotWhole: the cluster did not come back.
	NotWhole Kind = "not whole again"
	// Blind: the watcher looked too seldom to vouch for anything.
	Blind Kind = "blind watcher"
)

// Violation is one broken promise.
type Violation struct {
	Kind Kind
	Text string
}

// String is for reports.
func (v Violation) String() string { return string(v.Kind) + ": " + v.Text }

// Verdict on the evidence.
type Verdict struct {
	// Outage is the longest time without an acknowledged insert.
	Outage history.Gap
	// Lost are the acknowledged rows that went missing in this fault, allowed or not.
	Lost []history.Ack
	// LostOf are the same of the other writers, by Who.
	LostOf map[string][]history.Ack
	// Overlaps are proven times with two primaries; Doubts are pairs of observations too
	// close to each other to tell.
	Overlaps, Doubts []history.Overlap
	// Two is for how long there certainly were two, or more.
	Two time.Duration
	// Windows are overlaps right after a thaw that are within MaxThaw.
	Windows []Window
	// Lists and Questions are how many lists were judged, by how many questions.
	Lists, Questions int
	// Rate is the least looks per second at any member, Blind the longest time without one.
	Rate  float64
	Blind time.Duration

	Violations []Violation
}

// OK reports that no promise was broken.
func (v Verdict) OK() bool { return len(v.Violations) == 0 }

// Inconclusive reports that nothing was found, by a watcher who looked too seldom to vouch for
// it: the trial doesn't count.
func (v Verdict) Inconclusive() bool {
	return !v.OK() && !slices.ContainsFunc(v.Violations, func(x Violation) bool { return x.Kind != Blind })
}

// Has reports whether there is a violation of that kind.
func (v Verdict) Has(k Kind) bool {
	return slices.ContainsFunc(v.Violations, func(x Violation) bool { return x.Kind == k })
}

// String lists the violations, one a line.
func (v Verdict) String() string {
	if v.OK() {
		return "no violation"
	}
	var lines []string
	for _, x := range v.Violations {
		lines = append(lines, x.String())
	}
	return strings.Join(lines, "\n")
}

// Judge gives the verdict.
func Judge(e Evidence) Verdict {
	v := Verdict{Outage: e.Writes.LongestGap(e.From, e.To)}
	v.judgeRoles(e)
	v.judgeRows(e)
	v.judgeLists(e)
	if e.MaxOutage > 0 && v.Outage.Length() > e.MaxOutage {
		v.violate(LongOutage, "nothing was acknowledged for %s, %s are allowed (%s)",
			ms(v.Outage.Length()), ms(e.MaxOutage), e.Fault)
	}
	if e.Trouble != "" {
		v.violate(NotWhole, "%s after %s: %s", e.Fault, ms(e.To-e.From), e.Trouble)
	}
	v.judgeBounds(e)
	v.judgeWatch(e)
	return v
}

func (v *Verdict) violate(k Kind, format string, args ...any) {
	v.Violations = append(v.Violations, Violation{Kind: k, Text: fmt.Sprintf(format, args...)})
}

// judgeRoles looks for two primaries among the watcher's sightings and the writes.
func (v *Verdict) judgeRoles(e Evidence) {
	spans := slices.Concat(e.WatcherSpans, e.WriterSpans)
	for _, o := range e.Others {
		spans = append(spans, o.Spans...)
	}
	for _, f := range e.Freezes {
		spans = f.Cut(spans)
	}
	spans = slices.DeleteFunc(spans, func(s history.Span) bool {
		return s.Role != history.Primary || s.LastAnswered < e.From || s.FirstSent > e.To
	})
	for _, o := range history.Overlaps(spans) {
		if !o.Proven {
			v.Doubts = append(v.Doubts, o)
			continue
		}
		if w, ok := e.window(o); ok {
			v.Windows = append(v.Windows, w)
			continue
		}
		v.Overlaps = append(v.Overlaps, o)
		if !e.MayBeTwo {
			v.violate(TwoPrimaries, "%s (%s)", o, e.Fault)
		}
	}
	v.Two = together(v.Overlaps)
}

// window tells whether an overlap is the end of a thawed primary. Only a question that was asked
// after MaxThaw proves that it was one for longer: the moment of an answer is unknown.
func (e Evidence) window(o history.Overlap) (Window, bool) {
	for _, f := range e.Freezes {
		for _, p := range [][2]history.Span{{o.A, o.B}, {o.B, o.A}} {
			thawed, other := p[0], p[1]
			if thawed.Node != f.Node || thawed.FirstSent < f.To || other.FirstAnswered > f.To+MaxThaw {
				continue
			}
			if min(thawed.LastSent, other.LastSent)-f.To <= MaxThaw {
				return Window{Node: f.Node, At: f.To, Length: min(thawed.LastAnswered, other.LastAnswered) - f.To}, true
			}
		}
	}
	return Window{}, false
}

func (v *Verdict) judgeRows(e Evidence) {
	if e.Unread {
		v.violate(NotWhole, "the rows that are left couldn't be read (%s)", e.Fault)
		return
	}
	v.Lost = v.judgeWriter(e, Testimony{Writes: e.Writes, Present: e.Present, LostBefore: e.LostBefore}, e.MayLose)
	for _, o := range e.Others {
		if v.LostOf == nil {
			v.LostOf = map[string][]history.Ack{}
		}
		// Who stands beside a member that isn't to be a primary may write there while it is one.
		v.LostOf[o.Who] = v.judgeWriter(e, o, e.MayLose || e.MayBeTwo)
	}
}

// judgeWriter compares what was acknowledged to a writer with what is left of it, and returns what
// this fault lost.
func (v *Verdict) judgeWriter(e Evidence, t Testimony, mayLose bool) (lost []history.Ack) {
	for _, a := range t.Writes.Missing(t.Present) {
		if _, known := slices.BinarySearch(t.LostBefore, a.Seq); !known && a.Acked <= e.To {
			lost = append(lost, a)
		}
	}
	by := ""
	if t.Who != "" {
		by = " of the writer " + t.Who
	}
	if len(lost) > 0 && !mayLose {
		first, last := lost[0], lost[len(lost)-1]
		v.violate(LostRows, "%d acknowledged rows%s are gone after %s, from %d (acknowledged by %s at %s) to %d (by %s at %s)",
			len(lost), by, e.Fault, first.Seq, first.Node, ms(first.Acked), last.Seq, last.Node, ms(last.Acked))
	}
	if foreign := t.Writes.Foreign(t.Present); len(foreign) > 0 {
		v.violate(ForeignRows, "%d rows%s were never sent, the first is %d", len(foreign), by, foreign[0])
	}
	return lost
}

// judgeWatch makes sure that somebody was looking.
func (v *Verdict) judgeWatch(e Evidence) {
	for i, m := range e.Members {
		rate, blind := e.watched(m)
		if i == 0 || rate < v.Rate {
			v.Rate = rate
		}
		v.Blind = max(v.Blind, blind)
		if rate < e.MinRate {
			v.violate(Blind, "%s was looked at %.0f times a second, and at least %.0f are needed", m, rate, e.MinRate)
		}
	}
}

// watched is how often a member was looked at while it could answer.
func (e Evidence) watched(member string) (rate float64, blind time.Duration) {
	from, awake, looks := e.From, time.Duration(0), 0.0
	piece := func(to time.Duration) {
		if to <= from {
			return
		}
		r, b := history.Rate(e.WatcherSpans, member, from, to)
		looks, awake, blind = looks+r*(to-from).Seconds(), awake+to-from, max(blind, b)
	}
	for _, f := range e.Freezes {
		if f.Node == member {
			piece(min(f.From, e.To))
			from = max(from, f.To)
		}
	}
	piece(e.To)
	if awake <= 0 {
		return e.MinRate, blind // there was nothing to look at
	}
	return looks / awake.Seconds(), blind
}

func ms(d time.Duration) string { return d.Round(time.Millisecond).String() }
