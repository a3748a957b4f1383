package story

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/replay"
)

// Answer says which decision was in force at a time, and how it came to that. It is what
// GET /why sends, and what Text prints.
type Answer struct {
	Member events.NodeName `json:"member,omitempty"`
	// At is the time that was asked for; Now: the question is about the present.
	At  time.Time `json:"at"`
	Now bool      `json:"now,omitempty"`
	// Known is false when the journal begins later; then nothing else is set.
	Known bool `json:"known"`
	// Seq and Time of the last fact that was taken in.
	Seq  uint64    `json:"seq,omitempty"`
	Time time.Time `json:"time,omitzero"`
	// Phase, and since when, as far as the journal goes back.
	Phase fsm.Phase `json:"phase,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// The decision in the journal's words.
	Rule    string      `json:"rule,omitempty"`
	Reason  string      `json:"reason,omitempty"`
	Trigger fsm.Trigger `json:"trigger,omitempty"`
	From    fsm.Phase   `json:"from,omitempty"`
	Edge    string      `json:"edge,omitempty"`
	Status  string      `json:"status,omitempty"`
	Ordered []string    `json:"ordered,omitempty"`
	// Fact led to the decision first, without another decision since. Again is the last
	// one that led to it, when that is another one.
	Fact  *Moment `json:"fact,omitempty"`
	Again *Moment `json:"again,omitempty"`
	// Confirmed: it held through a quiet stretch.
	Confirmed *Confirmed `json:"confirmed,omitempty"`
	// Rejected are the rules that were asked before, in order. Unsure says why there are
	// none, or none that can be trusted.
	Rejected []fsm.Rejected `json:"rejected,omitempty"`
	Unsure   string         `json:"unsure,omitempty"`
	// Hole: there is a gap after the last fact, so that it may not have been the last.
	Hole string `json:"hole,omitempty"`
	// Turns are the latest changes of phase before, oldest first.
	Turns []Turn `json:"turns,omitempty"`
}

// Moment is a fact and when it was taken in.
type Moment struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// Confirmed tells of a quiet stretch, or of several in a row.
type Confirmed struct {
	Count uint64              `json:"count"`
	Kinds map[events.Kind]int `json:"kinds"`
	Since time.Time           `json:"since"`
	Last  time.Time           `json:"last"`
}

// Turn is a change of phase.
type Turn struct {
	Moment
	From    fsm.Phase `json:"from"`
	To      fsm.Phase `json:"to"`
	Reason  string    `json:"reason"`
	Ordered []string  `json:"ordered,omitempty"`
}

// maxTurns is how far back an answer tells the way; maxLookBack, how many segments are
// searched for it, and for the beginning of the decision.
const (
	maxTurns    = 5
	maxLookBack = 8
)

// Ask reads the journal in dir up to a time. It steps through one segment, the newest
// begun by then, and searches a few before it, so that its cost doesn't depend on the
// length of the journal.
func Ask(dir string, at time.Time) (Answer, error) {
	places, err := journal.Find(dir, at.UnixNano(), maxLookBack)
	if err != nil {
		return Answer{At: at}, err
	}
	return answer(places, search{at: at, answer: Answer{At: at}})
}

// AskNow is Ask about the present: the journal's end, whatever the clock showed there. It
// may have been set back since then, or have been wrong.
func AskNow(dir string, now time.Time) (Answer, error) {
	places, err := journal.Newest(dir, maxLookBack)
	if err != nil {
		return Answer{At: now}, err
	}
	forever := time.Unix(1<<40, 0).In(now.Location())
	return answer(places, search{at: forever, answer: Answer{At: now, Now: true}})
}

func answer(places []journal.Place, s search) (Answer, error) {
	if len(places) == 0 {
		return s.answer, nil
	}
	for c, err := range readEntries(places[0].Read(), s.at.Location()) {
		if err != nil {
			return s.answer, err
		}
		s.take(c)
	}
	if s.last.Seq == 0 {
		return s.answer, nil
	}
	for _, p := range places[1:] {
		if s.settled && len(s.turns) >= maxTurns {
			break
		}
		if err := s.before(p); err != nil {
			return s.answer, err
		}
	}
	s.conclude()
	return s.answer, nil
}

// search collects an answer's chapters.
type search struct {
	at     time.Time
	answer Answer
	last   Chapter // in force at the time
	// first is where the decision was first come to, as far as is known; settled: surely.
	first   Chapter
	settled bool
	// fact is the last one that came from outside, and cause the one that led to first.
	fact, cause Chapter
	// confirmed are the quiet stretches of the same decision.
	confirmed []Chapter
	turns     []Chapter
	hole      string
	// early is the fact of first while that is not decoded.
	early journal.Record
}

// take goes forward in the segment of the time.
func (s *search) take(c Chapter) {
	switch {
	case c.From.After(s.at):
		return // not the end: the clock may have been set back later
	case c.Note != "":
		s.hole, s.first, s.settled, s.confirmed = c.Note, Chapter{}, true, nil
		return
	}
	if _, again := c.Event.(events.Reconsider); !again {
		s.fact = c
	}
	if s.first.Seq == 0 || !sameRule(s.last, c) {
		s.settled = s.settled || s.last.Seq != 0
		s.first, s.cause, s.confirmed = c, s.fact, nil
	}
	if c.Quiet != nil {
		s.confirmed = append(s.confirmed, c)
	}
	s.last, s.hole = c, ""
	if c.Turned() {
		s.turns = append(s.turns, c)
		s.turns = s.turns[max(0, len(s.turns)-maxTurns):]
	}
}

// before goes back through a segment from its end. What it tells of is not recomputed,
// and decoded only where it matters: most decisions confirm the one after them.
func (s *search) before(p journal.Place) error {
	var entries []journal.Entry
	for e, err := range p.Read() {
		var damage *journal.Damage
		switch {
		case errors.As(err, &damage):
			s.settled = true
		case err != nil:
			return err
		default:
			entries = append(entries, e)
		}
	}
	same := s.confirms()
	for i := len(entries) - 1; i > 0 && (!s.settled || len(s.turns) < maxTurns); i-- {
		rec := entries[i].Record
		switch {
		case rec.Kind == journal.KindGap:
			s.settled = true
		case rec.Kind == replay.KindDecision && (s.settled || same(rec.Payload)) && !bytes.Contains(rec.Payload, []byte(`"trigger":`)):
			if !s.settled {
				s.first, s.early = Chapter{}, entries[i-1].Record
			}
		case rec.Kind == replay.KindDecision || rec.Kind == replay.KindQuiet:
			s.earlier(entries[i-1], rec)
		}
	}
	if s.early.Kind != "" {
		s.first = s.only(s.early)
		s.early = journal.Record{}
	}
	return nil
}

// confirms tells from a decision's bytes whether it is certainly the one in force.
func (s *search) confirms() func(payload []byte) bool {
	d, ok := s.last.derived()
	rule, err := json.Marshal(d.Rule)
	if !ok || err != nil || d.Trigger != "" {
		return func([]byte) bool { return false }
	}
	part := append([]byte(`"rule":`), rule...)
	return func(payload []byte) bool { return bytes.Contains(payload, part) }
}

// earlier takes a decision, or a quiet stretch, that comes before all that is known.
func (s *search) earlier(fact journal.Entry, rec journal.Record) {
	r := reader{zone: s.at.Location(), yield: func(c Chapter, _ error) bool {
		switch {
		case s.settled:
		case !sameRule(s.last, c):
			s.settled = true
		case c.Quiet != nil:
			s.first, s.early = c, journal.Record{}
			s.confirmed = slices.Insert(s.confirmed, 0, c)
		default:
			s.first, s.early = c, journal.Record{}
		}
		if c.Turned() && len(s.turns) < maxTurns {
			s.turns = slices.Insert(s.turns, 0, c)
		}
		return true
	}}
	if rec.Kind == replay.KindDecision {
		r.fact(fact.Record)
	}
	r.take(rec)
}

// only is the chapter of a fact alone.
func (s *search) only(fact journal.Record) (c Chapter) {
	r := reader{zone: s.at.Location(), yield: func(told Chapter, _ error) bool {
		c = told
		return true
	}}
	r.fact(fact)
	r.flush()
	return c
}

// conclude puts the answer together.
func (s *search) conclude() {
	a, c := &s.answer, s.last
	a.Known, a.Seq, a.Time, a.Hole = true, c.Seq, c.Wall, s.hole
	if c.Known {
		a.Member = c.State.Self
	}
	for _, t := range s.turns {
		d, _ := t.derived()
		a.Turns = append(a.Turns, Turn{Moment: moment(t), From: d.From, To: d.To, Reason: d.Text, Ordered: d.Actions})
	}
	d, ok := c.derived()
	if !ok {
		a.Unsure = "the journal doesn't say what was made of the fact"
		return
	}
	a.Phase, a.Rule, a.Reason, a.Status, a.Ordered = d.To, d.Rule, d.Text, d.Status, d.Actions
	if d.Trigger != "" {
		a.Trigger, a.From, a.Edge = d.Trigger, d.From, edgeText(d)
	}
	if n := len(s.turns); n > 0 && s.turns[n-1].Phase() == d.To {
		a.Since = s.turns[n-1].Wall
	} else if c.Known && c.State.Since != 0 {
		a.Since = c.Wall.Add(-c.State.Now.Sub(c.State.Since)) // the change itself is further back
	}
	if s.first.Quiet == nil {
		m := moment(s.first)
		if _, again := s.first.Event.(events.Reconsider); again && s.cause.Seq != 0 {
			m = moment(s.cause)
		}
		a.Fact = &m
	}
	if c.Quiet == nil && s.first.Seq != c.Seq {
		m := moment(c)
		a.Again = &m
	}
	for _, q := range s.confirmed {
		a.confirm(*q.Quiet, q.Wall)
	}
	if a.Confirmed != nil && a.Confirmed.Last.After(a.Time) {
		a.Time = a.Confirmed.Last
	}
	a.Rejected, a.Unsure = rejected(c)
}

// confirm adds a quiet stretch, which comes after those before.
func (a *Answer) confirm(q fsm.Stretch, last time.Time) {
	if a.Confirmed == nil {
		a.Confirmed = &Confirmed{Kinds: map[events.Kind]int{}, Since: time.Unix(0, q.Since).In(last.Location())}
	}
	a.Confirmed.Count += q.Count
	a.Confirmed.Last = last
	for kind, n := range q.Kinds {
		a.Confirmed.Kinds[kind] += n
	}
}

// Continue tells what a running agent knows beyond its journal: a quiet stretch that it
// has not written yet, and which decision it confirms.
func (a *Answer) Continue(member events.NodeName, d fsm.Decision, q fsm.Stretch, last time.Time) {
	a.Member, a.Now = member, true
	if q.Count == 0 {
		return
	}
	if !a.Known || a.Rule != d.Reason.Rule || a.Phase != d.To {
		// The journal's end is still being written.
		a.Known, a.Fact, a.Again, a.Confirmed, a.Since, a.Edge, a.Trigger, a.From = true, nil, nil, nil, time.Time{}, "", "", ""
	}
	a.Phase, a.Rule, a.Reason, a.Status, a.Ordered = d.To, d.Reason.Rule, d.Reason.Text, d.Status, nil
	a.Rejected, a.Unsure, a.Hole = d.Reason.Rejected, "", ""
	a.Trigger, a.From, a.Edge = "", "", ""
	a.Seq, a.Time = max(a.Seq, d.Seq), last
	a.confirm(q, last)
}

// sameRule: two chapters came to the same decision, though its figures may differ. What
// took an edge is followed by another one of the same rule at most.
func sameRule(a, b Chapter) bool {
	x, okX := a.derived()
	y, okY := b.derived()
	return okX && okY && x.Rule == y.Rule && x.To == y.To && x.Trigger == y.Trigger
}

func moment(c Chapter) Moment {
	text := c.Kind
	switch {
	case c.Quiet != nil:
		text = "nothing new"
	case c.Event != nil:
		text = Sentence(c.Event)
	}
	return Moment{Seq: c.Seq, Time: c.Wall, Text: text}
}

// edgeText is the edge that was taken, with the table's sentence for it.
func edgeText(d fsm.Derived) string {
	s := string(d.From) + " -" + string(d.Trigger) + "-> " + string(d.To)
	for _, e := range fsm.Table() {
		if e.Trigger == d.Trigger && e.To == d.To && slices.Contains(e.From, d.From) {
			return s + ": " + e.Why
		}
	}
	return s
}

// rejected lists the rules that were asked before. A journal doesn't keep them, so they
// are recomputed, and told only if the recomputation comes to the journaled decision.
func rejected(c Chapter) ([]fsm.Rejected, string) {
	switch {
	case !c.Known:
		return nil, "The rejected alternatives can't be recomputed: the journal has no usable snapshot before this."
	case !c.Agrees():
		return nil, "This version of the program would decide otherwise: " + c.Decision.Reason.Text
	}
	return c.Decision.Reason.Rejected, ""
}
