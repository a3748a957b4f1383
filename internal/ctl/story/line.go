package story

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// TimeLayout is how times are printed.
const TimeLayout = "2006-01-02 15:04:05.000"

// Line tells a chapter on one line: time, number, what happened, and after => what the
// agent made of it.
func (c Chapter) Line() string {
	if c.Note != "" {
		return "------- " + oneLine(c.Note) + " -------"
	}
	if c.Quiet != nil {
		i := Idle{Count: c.Quiet.Count, From: c.From, To: c.Wall, Phase: c.Quiet.Phase}
		return i.Line() + " (" + kindsText(c.Quiet.Kinds) + "): " + oneLine(c.Quiet.Text)
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

// decided is the phase or its change, the reason and what was ordered.
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
	return s + ordered(d.Actions)
}

// ordered tells a decision's actions in brackets.
func ordered(kinds []string) string {
	if told := orders(kinds); len(told) > 0 {
		return "  [" + strings.Join(told, ", ") + "]"
	}
	return ""
}

// orders are the actions that say something to a person: not that the machine will be
// woken, or looks again.
func orders(kinds []string) []string {
	var out []string
	for _, kind := range kinds {
		switch kind {
		case fsm.SetTimer{}.Kind(), fsm.ObservePostgres{}.Kind(), fsm.RefreshView{}.Kind():
		default:
			out = append(out, kind)
		}
	}
	return out
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

// Idle is what a digest left out: facts after which the same rule kept the same phase.
type Idle struct {
	Count    uint64
	From, To time.Time
	Phase    fsm.Phase
}

// Line tells it in the place of its facts.
func (i Idle) Line() string {
	if i.To.Before(i.From) {
		return fmt.Sprintf("%s  ...  quiet until %s, by a clock that was set back, %d routine event%s, still %s",
			i.From.Format(TimeLayout), i.To.Format(TimeLayout), i.Count, plural(int(min(i.Count, 2))), i.Phase)
	}
	return fmt.Sprintf("%s  ...  quiet for %s, %d routine event%s, still %s",
		i.From.Format(TimeLayout), short(i.To.Sub(i.From)), i.Count, plural(int(min(i.Count, 2))), i.Phase)
}

// tellsIdle is how long a stretch must be to be told: between the steps of a fail-over
// there are routine facts too, and a line for each pause would hide the story.
const tellsIdle = time.Second

// Digest leaves out what a person would skip: heartbeats and observations after which
// the same rule kept the same phase. The zero Digest is ready.
type Digest struct {
	rule string
	idle Idle
}

// Take reports whether the chapter is worth telling, and what was left out since the
// last one that was, if that is worth a line.
func (d *Digest) Take(c Chapter) (tell bool, idle *Idle) {
	rule := d.rule
	j, ok := c.derived()
	if ok {
		rule = j.Rule
	}
	tell = rule != d.rule && c.Quiet == nil || c.Note != "" || c.Turned() || !routine(c)
	d.rule = rule
	if tell {
		return true, d.End()
	}
	if d.idle.Count == 0 {
		d.idle = Idle{From: c.From}
	}
	d.idle.To, d.idle.Phase = c.Wall, c.Phase()
	d.idle.Count++
	if c.Quiet != nil {
		d.idle.Count += c.Quiet.Count - 1
	}
	return false, nil
}

// End is what was left out since the last chapter that was told; nil when that is not
// worth a line.
func (d *Digest) End() *Idle {
	out := d.idle
	d.idle = Idle{}
	if lasted := out.To.Sub(out.From); out.Count == 0 || lasted >= 0 && lasted < tellsIdle {
		return nil
	}
	return &out
}

// routine are the facts that come all the time.
func routine(c Chapter) bool {
	if c.Quiet != nil {
		return true
	}
	switch e := c.Event.(type) {
	case events.Tick, events.TimerFired, events.Reconsider, events.LeaseRenewed, events.ClusterObserved, events.PostgresObserved:
		return true
	case events.ActionFinished:
		return e.Class == events.Done
	default:
		return false
	}
}
