package agent_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/ctl/story"
)

// clocks are wall clocks that are wrong, each by its own amount.
type clocks map[string]*atomic.Int64 // nanoseconds

func (c clocks) read(name string) time.Time { return time.Now().Add(time.Duration(c[name].Load())) }

func (c clocks) set(name string, by time.Duration) { c[name].Store(int64(by)) }

const year = 365 * 24 * time.Hour

// TestAWrongClockDecidesNothing: one member's clock stands 25 years in the past, another's
// ten in the future, a third's is set back by an hour while it leads. They join, lead, hand
// over and fail over as ever, and each explains itself by its own clock.
func TestAWrongClockDecidesNothing(t *testing.T) {
	needsPostgres(t)
	w := newWorld(t)
	c := clocks{"pg01": {}, "pg02": {}, "pg03": {}}
	w.clock = c.read
	c.set("pg02", -25*year)
	c.set("pg03", 10*year)
	pg01 := w.add("pg01")
	pg01.await("bootstrap", leading)
	pg02, pg03 := w.add("pg02"), w.add("pg03")
	pg02.await("streaming", streaming)
	pg03.await("streaming", streaming)

	// The primary's clock is set back: nobody notices. Two heartbeats of it are enough to see.
	held := pg01.agent.Snapshot().Holder.Revision
	seen := pg01.agent.Snapshot().NextTick
	c.set("pg01", -time.Hour)
	pg01.await("two heartbeats", func(s *fsm.State) bool { return s.NextTick > seen.Add(2*time.Second) })
	if s := pg01.agent.Snapshot(); !leading(s) || s.Holder.Revision != held {
		t.Errorf("a clock that was set back cost the leadership: phase %s, held since revision %d, now %d", s.Phase, held, s.Holder.Revision)
	}

	// The member in the past leads, dies with its server, and comes back.
	if err := pg01.agent.Submit(events.SwitchoverRequested{ID: "1", From: "pg01", To: "pg02"}); err != nil {
		t.Fatal(err)
	}
	pg02.await("lead", leading)
	pg01.await("follow", streaming)
	pg03.await("follow", streaming)
	pg02.explains("leading")
	pg02.kill()
	next := leaderOf(t, []*node{pg01, pg03})
	pg02.start()
	pg02.await("rejoin", streaming)
	if next.agent.Snapshot().Postgres.State.Timeline != 3 {
		t.Errorf("%s leads on timeline %d, want 3", next.name, next.agent.Snapshot().Postgres.State.Timeline)
	}

	// A restart with a clock that is right again, and one that is wrong by now: times in the
	// journals go forwards by 25 years, and backwards by one.
	for name, by := range map[string]time.Duration{"pg02": 0, "pg03": -year} {
		n := w.nodes[name]
		before := n.agent.Snapshot().Phase
		n.kill()
		c.set(name, by)
		n.start()
		n.await("the same as before", func(s *fsm.State) bool { return s.Phase == before })
	}
	phases := map[string]fsm.Phase{}
	for name, n := range w.nodes {
		phases[name] = n.agent.Snapshot().Phase
	}
	w.allReplay()
	for name, n := range w.nodes {
		n.explains(phases[name])
		if report, err := journal.Verify(n.jdir); err != nil || !report.OK() {
			t.Errorf("%s: %v, %v", name, err, report.Problems)
		}
	}
	// What it did 25 years ago, by its clock, can still be asked for.
	then, err := story.Ask(pg02.jdir, time.Now().Add(-25*year))
	if err != nil || !then.Known || then.Time.Year() > time.Now().Year()-20 {
		t.Errorf("pg02, 25 years ago: %v, %+v", err, then)
	}
}

// explains checks what `regent why` says of the present.
func (n *node) explains(phase fsm.Phase) {
	n.t.Helper()
	deadline := time.After(patience)
	for { // the journal of a running agent is a moment behind
		a, err := story.AskNow(n.jdir, n.wall())
		if err == nil && a.Known && a.Phase == phase && a.Reason != "" && strings.Contains(a.Text(time.UTC), string(phase)) {
			return
		}
		select {
		case <-deadline:
			n.t.Fatalf("%s should explain why it is %s: %v\n%s", n.name, phase, err, a.Text(time.UTC))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
