package judge

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/regent/internal/sandbox/history"
)

// Planted is evidence with a known verdict.
type Planted struct {
	Name     string
	Evidence Evidence
	// Want are the kinds that must be found, and no others.
	Want []Kind
}

// SelfTest judges the planted evidence and returns an error if a violation is acquitted, or
// innocence convicted. Whoever relies on a verdict calls it first.
func SelfTest() error {
	for _, p := range PlantedEvidence() {
		v := Judge(p.Evidence)
		for _, k := range p.Want {
			if !v.Has(k) {
				return fmt.Errorf("judge %s: %q was acquitted", p.Name, k)
			}
		}
		for _, x := range v.Violations {
			if !slices.Contains(p.Want, x.Kind) {
				return fmt.Errorf("judge %s: wrongly convicted: %s", p.Name, x)
			}
		}
	}
	return nil
}

// PlantedEvidence returns one innocent story of a fail-over, and the same story with each
// violation planted in it.
func PlantedEvidence() []Planted {
	plant := func(name string, change func(e *Evidence), want ...Kind) Planted {
		e := story()
		change(&e)
		return Planted{Name: name, Evidence: e, Want: want}
	}
	return slices.Concat(plantedFigures(plant), plantedLists(plant), plantedWriters(plant), []Planted{
		plant("an innocent fail-over", func(*Evidence) {}),
		plant("two primaries over one millisecond", func(e *Evidence) {
			e.WatcherSpans[0].LastSent, e.WatcherSpans[0].LastAnswered = 3001*time.Millisecond, 3002*time.Millisecond
		}, TwoPrimaries),
		plant("a single look at a second primary", func(e *Evidence) {
			e.WatcherSpans = append(e.WatcherSpans, history.Span{
				Node: "c", Role: history.Primary, Conn: 9, Sightings: 1,
				FirstSent: 4 * time.Second, FirstAnswered: 4001 * time.Millisecond,
				LastSent: 4 * time.Second, LastAnswered: 4001 * time.Millisecond,
			})
		}, TwoPrimaries),
		plant("a write that the old primary acknowledged late", func(e *Evidence) {
			last := &e.WriterSpans[0]
			last.LastSent, last.LastAnswered = 3500*time.Millisecond, 3501*time.Millisecond
		}, TwoPrimaries),
		plant("a lost row", func(e *Evidence) {
			e.Present = slices.DeleteFunc(e.Present, func(seq int64) bool { return seq == 77 })
		}, LostRows),
		plant("a lost row that an earlier fault lost", func(e *Evidence) {
			e.Present = slices.DeleteFunc(e.Present, func(seq int64) bool { return seq == 77 })
			e.LostBefore = []int64{77}
		}),
		plant("a lost row that may be lost", func(e *Evidence) {
			e.Present = slices.DeleteFunc(e.Present, func(seq int64) bool { return seq == 77 })
			e.MayLose = true
		}),
		plant("a row from nowhere", func(e *Evidence) { e.Present = append(e.Present, 100_000) }, ForeignRows),
		plant("too long an outage", func(e *Evidence) { e.MaxOutage = 900 * time.Millisecond }, LongOutage),
		plant("an outage without an end", func(e *Evidence) {
			e.Writes.Acks = slices.DeleteFunc(e.Writes.Acks, func(a history.Ack) bool { return a.Acked > 2*time.Second })
		}, LongOutage),
		plant("a member that never came back", func(e *Evidence) { e.Trouble = "a doesn't stream" }, NotWhole),
		plant("rows that nobody could read", func(e *Evidence) { e.Unread, e.Present = true, nil }, NotWhole),
		plant("a frozen primary that writes on when it is thawed, for 40 ms", func(e *Evidence) { thawed(e, 40*time.Millisecond) }),
		plant("a frozen primary that writes on when it is thawed, for 60 ms", func(e *Evidence) { thawed(e, 60*time.Millisecond) }, TwoPrimaries),
		plant("a primary that was said to be frozen only before", func(e *Evidence) {
			e.Freezes = []history.Freeze{{Node: "a", From: 1200 * time.Millisecond, To: 1300 * time.Millisecond}}
			e.WatcherSpans[0].LastSent, e.WatcherSpans[0].LastAnswered = 3001*time.Millisecond, 3002*time.Millisecond
		}, TwoPrimaries),
		plant("a watcher that slept", func(e *Evidence) {
			for i := range e.WatcherSpans {
				e.WatcherSpans[i].Sightings /= 4
			}
		}, Blind),
	})
}

// plantedWriters are about a writer that stands on the host of the former primary.
func plantedWriters(plant func(string, func(*Evidence), ...Kind) Planted) []Planted {
	stands := func(e *Evidence, change func(*Testimony)) {
		t := Testimony{Who: "at a", Writes: e.Writes, Spans: e.WriterSpans, Present: slices.Clone(e.Present)}
		change(&t)
		e.Others = []Testimony{t}
	}
	loses := func(t *Testimony) {
		t.Present = slices.DeleteFunc(t.Present, func(seq int64) bool { return seq == 77 })
	}
	return []Planted{
		plant("a second writer that lost nothing", func(e *Evidence) { stands(e, func(*Testimony) {}) }),
		plant("a lost row of a second writer", func(e *Evidence) { stands(e, loses) }, LostRows),
		plant("a lost row of a second writer, known before", func(e *Evidence) {
			stands(e, func(t *Testimony) { loses(t); t.LostBefore = []int64{77} })
		}),
		plant("a lost row of a second writer where two primaries are part of the story", func(e *Evidence) {
			e.MayBeTwo = true
			stands(e, loses)
		}),
		plant("a row of a second writer from nowhere", func(e *Evidence) {
			stands(e, func(t *Testimony) { t.Present = append(t.Present, 100_000) })
		}, ForeignRows),
		plant("a write that only a second writer had acknowledged by the old primary", func(e *Evidence) {
			stands(e, func(t *Testimony) {
				t.Spans = slices.Clone(t.Spans)
				t.Spans[0].LastSent, t.Spans[0].LastAnswered = 3500*time.Millisecond, 3501*time.Millisecond
			})
		}, TwoPrimaries),
	}
}

// plantedFigures have a bound that is kept, and the same bound by a hair not kept.
func plantedFigures(plant func(string, func(*Evidence), ...Kind) Planted) []Planted {
	var out []Planted
	pair := func(name string, b Bound, kept, broken int64, more func(*Evidence)) {
		bounded := func(value int64) func(*Evidence) {
			b := b
			b.Value = value
			return func(e *Evidence) { more(e); e.Bounds = []Bound{b} }
		}
		out = append(out, plant(name+", as demanded", bounded(kept)), plant(name+", not as demanded", bounded(broken), OutOfBounds))
	}
	nothing := func(*Evidence) {}
	const ms = int64(time.Millisecond)
	pair("an outage of 1010 ms", Bound{Figure: Outage}, 1010*ms, 1009*ms, nothing)
	pair("an outage of at least 1010 ms", Bound{Figure: Outage, AtLeast: true}, 1010*ms, 1011*ms, nothing)
	pair("two lost rows", Bound{Figure: Lost}, 2, 1, func(e *Evidence) {
		e.MayLose = true
		e.Present = slices.DeleteFunc(e.Present, func(seq int64) bool { return seq == 77 || seq == 78 })
	})
	pair("three failed writes", Bound{Figure: Failed}, 3, 2, func(e *Evidence) { e.FailedWrites = 3 })
	two := func(e *Evidence) { // a and c beside b, from 3.001 s to 3.5 s, and c alone until 4 s
		e.MayBeTwo = true
		e.WatcherSpans[0].LastSent, e.WatcherSpans[0].LastAnswered = 3500*time.Millisecond, 3501*time.Millisecond
		e.WatcherSpans = append(e.WatcherSpans, history.Span{
			Node: "c", Role: history.Primary, Conn: 9, Sightings: 100, FirstSent: 3200 * time.Millisecond, FirstAnswered: 3201 * time.Millisecond,
			LastSent: 4 * time.Second, LastAnswered: 4001 * time.Millisecond,
		})
	}
	pair("two primaries for 999 ms, together", Bound{Figure: Two}, 999*ms, 998*ms, two)
	pair("two primaries for at least 999 ms", Bound{Figure: Two, AtLeast: true}, 999*ms, 1000*ms, two)
	pair("two primaries that were demanded", Bound{Figure: Two, AtLeast: true}, 0, 1, nothing)
	pair("a rogue for 801 ms", Bound{Figure: AsPrimary, Node: "c"}, 801*ms, 800*ms, two)
	pair("streaming after 3 s", Bound{Figure: Streaming}, 3000*ms, 2999*ms, func(e *Evidence) { e.Streaming = 3 * time.Second })
	pair("noticed after 90 ms", Bound{Figure: Noticed, Node: "a"}, 90*ms, 89*ms, func(e *Evidence) {
		e.Noticed = map[string]time.Duration{"a": 90 * time.Millisecond}
	})
	return append(out,
		plant("a figure that nobody took", func(e *Evidence) {
			e.Bounds = []Bound{{Figure: Noticed, Node: "a", Value: int64(time.Hour)}}
		}, OutOfBounds),
		plant("reigns one after the other", func(e *Evidence) {
			e.Reigns = []Reign{{"a", 1}, {"b", 2}, {"a", 1}, {"a", 3}}
		}),
		plant("two on a timeline", func(e *Evidence) { e.Reigns = []Reign{{"a", 1}, {"b", 2}, {"a", 2}} }, TwoOnATimeline),
		plant("two on a timeline, where rows may be lost", func(e *Evidence) {
			e.MayLose, e.Reigns = true, []Reign{{"a", 1}, {"b", 2}, {"a", 2}}
		}),
		plant("a step that didn't come", func(e *Evidence) { e.Broken = []string{"line 3"} }, Broken),
	)
}

// thawed lets a stand still when it dies, and go on for some time when it is thawed at 4 s, over
// the connections it had before: what a watcher sees of a suspended machine.
func thawed(e *Evidence, goesOn time.Duration) {
	const dies, thaws = 2 * time.Second, 4 * time.Second
	e.Freezes = []history.Freeze{{Node: "a", From: dies, To: thaws}}
	old := &e.WatcherSpans[0]
	old.LastSent, old.LastAnswered = thaws+goesOn, thaws+goesOn+time.Millisecond
	old.Sightings += int(goesOn / (5 * time.Millisecond))
	e.WatcherSpans[1].FirstSent, e.WatcherSpans[1].FirstAnswered = thaws+goesOn+2*time.Millisecond, thaws+goesOn+3*time.Millisecond
}

// story is a fail-over from a to b: a dies at 2 s, b is primary from 3 s on; an insert every
// 10 ms, a look every 5 ms.
func story() Evidence {
	const dies, takesOver, ends = 2 * time.Second, 3 * time.Second, 6 * time.Second
	span := func(node string, role history.Role, conn int, from, to time.Duration) history.Span {
		return history.Span{
			Node: node, Role: role, Conn: conn, FirstSent: from, FirstAnswered: from + time.Millisecond,
			LastSent: to - time.Millisecond, LastAnswered: to, Sightings: int((to - from) / (5 * time.Millisecond)),
			MaxGap: 6 * time.Millisecond, Writes: 1,
		}
	}
	e := Evidence{
		Fault: "kill of a", From: time.Second, To: ends, Members: []string{"a", "b", "c"},
		MaxOutage: 1500 * time.Millisecond, MinRate: 100,
		WatcherSpans: []history.Span{
			span("a", history.Primary, 1, 0, dies), span("a", history.Down, 0, dies, ends),
			span("b", history.Replica, 1, 0, takesOver), span("b", history.Primary, 1, takesOver, ends),
			span("c", history.Replica, 1, 0, ends),
		},
		WriterSpans: []history.Span{span("a", history.Primary, 1, 0, dies), span("b", history.Primary, 2, takesOver, ends)},
	}
	seq := int64(0)
	for at := time.Duration(0); at < ends; at += 10 * time.Millisecond {
		node := "a"
		if at >= takesOver {
			node = "b"
		}
		if at >= dies && at < takesOver {
			continue
		}
		seq++
		e.Writes.Acks = append(e.Writes.Acks, history.Ack{Seq: seq, Node: node, Sent: at, Acked: at + time.Millisecond})
		e.Present = append(e.Present, seq)
	}
	e.Writes.Next = seq + 1
	return e
}
