package replay

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
)

// TestFactThatPanicsMakesTheJournalUnusable: the agent that panicked on it has
// journaled it before; the next one must not panic at every start.
func TestFactThatPanicsMakesTheJournalUnusable(t *testing.T) {
	facts := []journal.Record{
		{Seq: 3, Kind: string(events.KindTick), Payload: json.RawMessage("{}")},
		{Seq: 4, Kind: KindPanic, Derived: true, Payload: json.RawMessage(`{"why":"it"}`)},
		{Seq: 5, Kind: string(events.KindTick), Payload: json.RawMessage("{}")},
	}
	steps := 0
	step := func(s fsm.State, e events.Entry) (fsm.State, fsm.Decision) {
		if steps++; e.Seq == 5 {
			panic("broken rule")
		}
		return s, fsm.Decision{}
	}
	if _, err := fold(fsm.State{}, facts, step); err == nil || !strings.Contains(err.Error(), "record 5: the machine panicked: broken rule") {
		t.Errorf("%v", err)
	}
	if steps != 2 {
		t.Errorf("%d steps: derived records are no facts", steps)
	}
	unreadable := []journal.Record{{Seq: 9, Kind: "of the future", Payload: json.RawMessage("{}")}}
	if _, err := fold(fsm.State{}, unreadable, step); err == nil || errors.Is(err, ErrUnusable) {
		t.Errorf("%v", err)
	}
}

// TestPanicRecordsAreNoDecisions: a replay passes over them.
func TestPanicRecordsAreNoDecisions(t *testing.T) {
	c := checker{machine: fsm.New(), table: fsm.TableHash(), usable: true, compare: true}
	if err := c.take(journal.Record{Seq: 4, Kind: KindPanic, Derived: true, Payload: json.RawMessage(`{"why":"it"}`)}); err != nil {
		t.Error(err)
	}
	if c.report.LastSeq != 4 || c.report.Compared != 0 || !c.usable {
		t.Errorf("%+v", c.report)
	}
}
