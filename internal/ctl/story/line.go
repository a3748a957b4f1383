package story

import (
	"fmt"
	"strings"

	"github.com/pgregent/regent/events"
)

// TimeLayout is how times are printed.
const TimeLayout = "2006-01-02 15:04:05.000"

// Line tells a chapter on one line: time, number, what happened, and after => what the
// agent made of it.
func (c Chapter) Line() string {
	if c.Note != "" {
		return "------- " + c.Note + " -------"
	}
	fact := c.Kind + ", which this version doesn't know"
	if c.Event != nil {
		fact = Sentence(c.Event)
	}
	line := fmt.Sprintf("%s  #%d  %s", c.Wall.Format(TimeLayout), c.Seq, fact)
	if made := c.decided(); made != "" {
		line += "  =>  " + made
	}
	return oneLine(line)
}

// decided is the phase or its change, the reason and the actions.
func (c Chapter) decided() string {
	d, ok := c.derived()
	if !ok {
		return ""
	}
	s := string(d.From)
	if d.From == "" {
		s = "(new)"
	}
	if d.To != d.From {
		s += " -> " + string(d.To)
	}
	s += ": " + d.Text
	if d.Refused {
		s += " (REFUSED)"
	}
	if len(d.Actions) > 0 {
		s += "  [" + strings.Join(d.Actions, ", ") + "]"
	}
	return s
}

// oneLine keeps a story one line a chapter whatever an error's text holds.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r == 0x7f:
			return '?'
		}
		return r
	}, s)
}

// Digest leaves out what a person would skip: heartbeats and observations after which
// the same rule kept the same phase. The zero Digest is ready.
type Digest struct {
	rule    string
	skipped int
}

// Take reports whether the chapter is worth telling, and how many were skipped since the
// last one that was.
func (d *Digest) Take(c Chapter) (tell bool, skipped int) {
	rule := d.rule
	if j, ok := c.derived(); ok {
		rule = j.Rule
	}
	tell = rule != d.rule || c.Note != "" || c.Turned() || !routine(c)
	d.rule = rule
	if !tell {
		d.skipped++
		return false, 0
	}
	skipped, d.skipped = d.skipped, 0
	return true, skipped
}

// Skipped is how many were skipped since the last one told.
func (d *Digest) Skipped() int { return d.skipped }

// routine are the facts that come all the time.
func routine(c Chapter) bool {
	switch e := c.Event.(type) {
	case events.Tick, events.TimerFired, events.Reconsider, events.LeaseRenewed, events.ClusterObserved, events.PostgresObserved:
		return true
	case events.ActionFinished:
		return e.Class == events.Done
	default:
		return false
	}
}
