package history

import "time"

// Freeze is a time in which all processes of a member stood still for certain.
type Freeze struct {
	Node     string
	From, To time.Duration
}

// Cut takes the time of a freeze out of the spans in which its member was primary. A frozen
// server is out of recovery and writes nothing; what a span says of that time is only that it
// was primary before and after. A question that was asked during the freeze and answered after
// it was answered at some moment after it. Spans of other members and roles stay as they are.
func (f Freeze) Cut(spans []Span) []Span {
	var out []Span
	for _, s := range spans {
		if s.Node != f.Node || s.Role != Primary || s.LastAnswered <= f.From || s.FirstSent >= f.To {
			out = append(out, s)
			continue
		}
		if s.FirstAnswered <= f.From {
			before := s
			before.LastSent, before.LastAnswered = min(s.LastSent, f.From), min(s.LastAnswered, f.From)
			out = append(out, before)
		}
		// An answer after the freeze to a question from before it may have been given before.
		if s.LastAnswered >= f.To && s.LastSent > f.From {
			after := s
			after.FirstSent, after.FirstAnswered = max(s.FirstSent, f.To), max(s.FirstAnswered, f.To)
			if s.LastSent < f.To { // a single look
				after.FirstAnswered = s.LastAnswered
			}
			after.LastSent = max(s.LastSent, f.To)
			out = append(out, after)
		}
	}
	return out
}
