package history

import (
	"fmt"
	"time"
)

// Role is what a member's PostgreSQL was seen as.
type Role string

// The roles. A member that answers nothing is down as far as anybody can tell.
const (
	Down    Role = "down"
	Replica Role = "replica"
	// Primary: out of recovery. A server in that state that runs clients' statements
	// accepts their writes, and Span.Writes counts the proofs.
	Primary Role = "primary"
)

// Span is a stretch of time in which a member was seen in one role over one connection,
// without a break. The role is certain between FirstAnswered and LastSent, if that isn't
// empty, and at some moment in each of the two pairs.
type Span struct {
	Node string
	Role Role
	// Conn tells the connections of a member apart. Two observations over one connection
	// come from one server process, so that what held at both held in between.
	Conn int
	// The first and the last observation.
	FirstSent, FirstAnswered time.Duration
	LastSent, LastAnswered   time.Duration
	// Sightings counts the observations, MaxGap is the longest time from one question to
	// the next.
	Sightings int
	MaxGap    time.Duration
	// Writes counts the acknowledged writes among them.
	Writes int
}

// String is for reports.
func (s Span) String() string {
	return fmt.Sprintf("%s %s from %s to %s (%d sightings, %d writes)", s.Node, s.Role,
		s.FirstAnswered.Round(time.Millisecond), s.LastSent.Round(time.Millisecond), s.Sightings, s.Writes)
}

// Sighting is one observation.
type Sighting struct {
	Node           string
	Role           Role
	Conn           int
	Sent, Answered time.Duration
	// Wrote: it was a write, and it was acknowledged.
	Wrote bool
}

// Track condenses sightings into spans. The zero value is ready. It isn't safe for
// concurrent use.
type Track struct {
	spans []Span
	// open is the index of each member's running span, plus one.
	open map[string]int
}

// See adds an observation. The sightings of a member must come in order; another role or
// another connection begins a new span.
func (t *Track) See(s Sighting) {
	if t.open == nil {
		t.open = map[string]int{}
	}
	if i := t.open[s.Node] - 1; i >= 0 && t.spans[i].Role == s.Role && t.spans[i].Conn == s.Conn {
		span := &t.spans[i]
		span.MaxGap = max(span.MaxGap, s.Sent-span.LastSent)
		span.LastSent, span.LastAnswered = s.Sent, s.Answered
		span.Sightings++
		if s.Wrote {
			span.Writes++
		}
		return
	}
	span := Span{
		Node: s.Node, Role: s.Role, Conn: s.Conn, Sightings: 1,
		FirstSent: s.Sent, FirstAnswered: s.Answered, LastSent: s.Sent, LastAnswered: s.Answered,
	}
	if s.Wrote {
		span.Writes = 1
	}
	t.spans = append(t.spans, span)
	t.open[s.Node] = len(t.spans)
}

// Spans returns a copy of all spans, in the order in which they began.
func (t *Track) Spans() []Span { return append([]Span(nil), t.spans...) }

// Overlap is a time in which two members were primaries at once.
type Overlap struct {
	A, B Span
	// From and To bound it from inside when it is proven, from outside otherwise.
	From, To time.Duration
	// Proven: it happened whatever the moments were at which the questions were answered.
	// Otherwise the two were so close that the observations can't tell.
	Proven bool
}

// Length is the time that is proven, or the uncertainty.
func (o Overlap) Length() time.Duration { return o.To - o.From }

// String is for reports.
func (o Overlap) String() string {
	word := "may have been"
	if o.Proven {
		word = "were"
	}
	return fmt.Sprintf("%s and %s %s primaries at once from %s for %s (writes acknowledged: %d and %d)",
		o.A.Node, o.B.Node, word, o.From.Round(time.Microsecond), o.Length().Round(time.Microsecond), o.A.Writes, o.B.Writes)
}

// Overlaps finds the pairs of primaries of different members whose times touch, in the
// order of the spans.
func Overlaps(spans []Span) []Overlap {
	var out []Overlap
	for i, a := range spans {
		if a.Role != Primary {
			continue
		}
		for _, b := range spans[i+1:] {
			if b.Role != Primary || a.Node == b.Node {
				continue
			}
			if o, touch := overlap(a, b); touch {
				out = append(out, o)
			}
		}
	}
	return out
}

func overlap(a, b Span) (Overlap, bool) {
	o := Overlap{A: a, B: b}
	o.From, o.To = max(a.FirstAnswered, b.FirstAnswered), min(a.LastSent, b.LastSent)
	if o.From <= o.To {
		o.Proven = true
		return o, true
	}
	// A single short look lies somewhere between its question and its answer: within the
	// certain time of the other it is proof as well.
	for _, p := range [][2]Span{{a, b}, {b, a}} {
		sure, look := p[0], p[1]
		for _, m := range [][2]time.Duration{{look.FirstSent, look.FirstAnswered}, {look.LastSent, look.LastAnswered}} {
			if sure.FirstAnswered <= m[0] && m[1] <= sure.LastSent {
				o.From, o.To, o.Proven = m[0], m[1], true
				return o, true
			}
		}
	}
	o.From, o.To = max(a.FirstSent, b.FirstSent), min(a.LastAnswered, b.LastAnswered)
	return o, o.From < o.To
}

// Rate returns how often per second a member was looked at between from and to, and the
// longest time without a look, from the spans of that member. Observations of spans that
// lie across a border are counted in proportion.
func Rate(spans []Span, node string, from, to time.Duration) (perSecond float64, blind time.Duration) {
	if to <= from {
		return 0, 0
	}
	var count float64
	last := from
	for _, s := range spans {
		if s.Node != node || s.LastSent < from || s.FirstSent > to {
			continue
		}
		share := 1.0
		if length := s.LastSent - s.FirstSent; length > 0 {
			share = float64(min(s.LastSent, to)-max(s.FirstSent, from)) / float64(length)
		}
		count += share * float64(s.Sightings)
		blind = max(blind, s.FirstSent-last, s.MaxGap)
		last = max(last, s.LastSent)
	}
	blind = max(blind, to-last)
	return count / (to - from).Seconds(), blind
}
