package story

import (
	"encoding/json"
	"errors"
	"iter"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/replay"
)

// Chapter is one fact with what came of it.
type Chapter struct {
	Seq  uint64
	Wall time.Time
	Kind string
	// Event is nil when this program doesn't know the kind.
	Event events.Event
	// Journaled is what the agent decided then; nil when the record is missing, as at a
	// live journal's end.
	Journaled *fsm.Derived
	// Decision and State are recomputed; Known says that they could be.
	Known    bool
	Decision fsm.Decision
	State    fsm.State
	// Note is set instead of all else but Wall for a hole in the journal.
	Note string
	// Quiet is set for a stretch of facts that only confirmed the decision: Seq and Wall
	// are those of the last one, and Event is nil.
	Quiet *fsm.Stretch
	// From is the time of a quiet stretch's first fact; otherwise Wall.
	From time.Time
}

// Phase after the chapter; empty when nothing tells.
func (c Chapter) Phase() fsm.Phase {
	switch {
	case c.Journaled != nil:
		return c.Journaled.To
	case c.Known:
		return c.Decision.To
	default:
		return ""
	}
}

// Turned reports whether the chapter changed the phase.
func (c Chapter) Turned() bool {
	switch {
	case c.Journaled != nil:
		return c.Journaled.From != c.Journaled.To
	case c.Known:
		return c.Decision.From != c.Decision.To
	default:
		return false
	}
}

// derived is the decision in the journal's form.
func (c Chapter) derived() (fsm.Derived, bool) {
	switch {
	case c.Journaled != nil:
		return *c.Journaled, true
	case c.Known:
		d, err := fsm.Derive(c.State, c.Decision)
		return d, err == nil
	default:
		return fsm.Derived{}, false
	}
}

// Agrees reports whether the recomputed decision is the journaled one, as far as people
// can see. Without either of the two there is nothing to disagree about.
func (c Chapter) Agrees() bool {
	if c.Journaled == nil || !c.Known {
		return true
	}
	j, d := c.Journaled, c.Decision
	return j.From == d.From && j.To == d.To && j.Trigger == d.Trigger && j.Rule == d.Reason.Rule && j.Text == d.Reason.Text
}

// Read iterates over the journal in dir, oldest first. A place that can't be read becomes
// a chapter with a Note; an error is one of the file system. Times are told in zone.
func Read(dir string, zone *time.Location) iter.Seq2[Chapter, error] {
	return readEntries(journal.Read(dir), zone)
}

// readEntries makes chapters of records.
func readEntries(entries iter.Seq2[journal.Entry, error], zone *time.Location) iter.Seq2[Chapter, error] {
	return func(yield func(Chapter, error) bool) {
		r := reader{machine: fsm.New(), zone: zone, yield: yield}
		for e, err := range entries {
			var damage *journal.Damage
			switch {
			case errors.As(err, &damage):
				r.known = false
				r.flush()
				r.tell(Chapter{Note: "unreadable: " + damage.Error()})
			case err != nil:
				r.flush()
				r.end(err)
			default:
				r.take(e.Record)
			}
			if r.stopped {
				return
			}
		}
		r.flush()
	}
}

// reader puts a fact and the decision that follows it together. While the state isn't
// known it recomputes nothing, and needs no machine.
type reader struct {
	machine *fsm.Machine
	state   fsm.State
	known   bool // the state is
	epoch   uint64
	zone    *time.Location
	pending *Chapter
	stopped bool
	yield   func(Chapter, error) bool
}

func (r *reader) tell(c Chapter) {
	if !r.stopped && !r.yield(c, nil) {
		r.stopped = true
	}
}

func (r *reader) end(err error) {
	if !r.stopped {
		r.yield(Chapter{}, err)
		r.stopped = true
	}
}

func (r *reader) flush() {
	if c := r.pending; c != nil {
		r.pending = nil
		r.tell(*c)
	}
}

func (r *reader) take(rec journal.Record) {
	if rec.Epoch != r.epoch {
		r.epoch, r.known = rec.Epoch, false
	}
	switch {
	case rec.Kind == journal.KindGap:
		r.flush()
		r.known = false
		var g journal.Gap
		note := "a gap"
		if err := json.Unmarshal(rec.Payload, &g); err == nil {
			note = "a gap: " + g.Reason
		}
		r.tell(Chapter{Seq: rec.Seq, Wall: r.wall(rec.Wall), From: r.wall(rec.Wall), Note: note})
	case rec.Kind == journal.KindSnapshot:
		r.flush()
		r.snapshot(rec)
	case rec.Kind == replay.KindQuiet:
		r.flush()
		r.quiet(rec)
	case rec.Kind == replay.KindPanic || rec.Kind == replay.KindLost:
		r.flush()
		r.broken(rec)
	case rec.Derived:
		r.decided(rec)
	default:
		r.flush()
		r.fact(rec)
	}
}

// snapshot is where the state is known from, unless it was written under another schema.
func (r *reader) snapshot(rec journal.Record) {
	var s replay.Snapshot
	if err := json.Unmarshal(rec.Payload, &s); err != nil || s.Schema != fsm.StateSchema {
		r.known = false
		return
	}
	r.state, r.known = s.State, true
}

func (r *reader) fact(rec journal.Record) {
	c := Chapter{Seq: rec.Seq, Wall: r.wall(rec.Wall), Kind: rec.Kind}
	c.From = c.Wall
	entry, err := replay.Entry(rec)
	switch {
	case err != nil:
		r.known = false
	case r.known:
		c.Event = entry.Event
		r.state, c.Decision = r.machine.Step(r.state, entry)
		c.State, c.Known = r.state, true
	default:
		c.Event = entry.Event
	}
	r.pending = &c
}

func (r *reader) wall(nanos int64) time.Time { return time.Unix(0, nanos).In(r.zone) }

// quiet tells a stretch in which one decision was confirmed again and again.
func (r *reader) quiet(rec journal.Record) {
	c := Chapter{Seq: rec.Seq, Wall: r.wall(rec.Wall), Kind: rec.Kind}
	c.From = c.Wall
	var q fsm.Stretch
	if err := json.Unmarshal(rec.Payload, &q); err != nil {
		r.known = false
		r.tell(c)
		return
	}
	c.Quiet, c.From = &q, r.wall(q.Since)
	c.Journaled = &fsm.Derived{From: q.Phase, To: q.Phase, Rule: q.Rule, Text: q.Text, Status: q.Status}
	if r.known {
		after, err := q.Unfold(r.state)
		r.known = err == nil && after.Last.Reason.Rule == q.Rule
		if r.known {
			r.state = after
			c.State, c.Decision, c.Known = after, after.Last, true
		}
	}
	r.tell(c)
}

// broken tells of a panic, or of a fact that could not be journaled.
func (r *reader) broken(rec journal.Record) {
	var p replay.Panic
	note := "a part of the agent panicked"
	if rec.Kind == replay.KindLost {
		note = "an event could not be journaled"
	}
	if err := json.Unmarshal(rec.Payload, &p); err == nil && p.Why != "" {
		why, _, _ := strings.Cut(p.Why, "\n")
		note += ": " + why
	}
	r.tell(Chapter{Seq: rec.Seq, Wall: r.wall(rec.Wall), From: r.wall(rec.Wall), Note: note})
}

func (r *reader) decided(rec journal.Record) {
	if r.pending == nil {
		return // its fact was lost
	}
	var d fsm.Derived
	if err := json.Unmarshal(rec.Payload, &d); err == nil {
		r.pending.Journaled = &d
	}
	r.flush()
}
