// Package storytest writes journals for tests, in the way in which an agent does.
package storytest

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/replay"
)

// Fact is an event and when it happened, on the wall clock.
type Fact struct {
	At    time.Time
	Event events.Event
}

// Writer is a journal under construction. Its decisions are the real machine's.
type Writer struct {
	tb      testing.TB
	j       *journal.Journal
	running sync.WaitGroup // the journal's writer; Close waits for it
	ended   error          // what it ended with
	cancel  context.CancelFunc
	machine *fsm.Machine
	state   fsm.State
}

// Open begins a journal in dir. The test closes it by Close, or its cleanup does.
func Open(tb testing.TB, dir string) *Writer {
	tb.Helper()
	w := &Writer{tb: tb, machine: fsm.New()}
	j, _, err := journal.Open(dir, journal.Options{Snapshot: w.snapshot})
	if err != nil {
		tb.Fatal(err)
	}
	w.j = j
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.running.Go(func() { w.ended = j.Run(ctx) })
	tb.Cleanup(w.Close)
	return w
}

func (w *Writer) snapshot() json.RawMessage {
	b, err := json.Marshal(replay.Snapshot{Schema: fsm.StateSchema, Table: fsm.TableHash(), Binary: "test", State: w.state})
	if err != nil {
		w.tb.Fatal(err)
	}
	return b
}

// Close waits until everything is written. Closing twice is harmless.
func (w *Writer) Close() {
	if w.cancel == nil {
		return
	}
	w.cancel()
	w.cancel = nil
	w.running.Wait()
	if w.ended != nil {
		w.tb.Error(w.ended)
	}
}

// Step journals a fact and its decision, and reconsiders until the machine is at rest.
// It returns the last decision.
func (w *Writer) Step(f Fact) fsm.Decision {
	w.tb.Helper()
	d := w.step(f)
	for d.Fired() {
		d = w.step(Fact{f.At, events.Reconsider{}})
	}
	return d
}

func (w *Writer) step(f Fact) fsm.Decision {
	w.tb.Helper()
	payload, err := events.Marshal(f.Event)
	if err != nil {
		w.tb.Fatal(err)
	}
	at := instant(f.At)
	seq := w.append(journal.Record{Kind: string(f.Event.Kind()), At: at, Wall: f.At.UnixNano(), Boot: "b", Payload: payload})
	var d fsm.Decision
	w.state, d = w.machine.Step(w.state, events.Entry{Seq: seq, At: at, Wall: f.At.UnixNano(), Event: f.Event})
	derived, err := fsm.Derive(w.state, d)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.Decided(f.At, derived)
	return d
}

// Quiet steps facts that change nothing, and journals them as one record. It fails the
// test when one of them is none of that sort.
func (w *Writer) Quiet(facts ...Fact) {
	w.tb.Helper()
	before := w.state
	seq := w.j.LastSeq()
	kinds := map[events.Kind]int{}
	for i, f := range facts {
		entry := events.Entry{Seq: seq + uint64(i) + 1, At: instant(f.At), Wall: f.At.UnixNano(), Event: f.Event}
		next, d := w.machine.Step(w.state, entry)
		if !fsm.Quiet(w.state, next, f.Event, d) {
			w.tb.Fatalf("%s is not quiet: %+v", f.Event.Kind(), d)
		}
		w.state = next
		kinds[f.Event.Kind()]++
	}
	stretch, err := fsm.Fold(before, w.state)
	if err != nil {
		w.tb.Fatal(err)
	}
	stretch.Count, stretch.Kinds, stretch.Since = uint64(len(facts)), kinds, facts[0].At.UnixNano()
	payload, err := json.Marshal(stretch)
	if err != nil {
		w.tb.Fatal(err)
	}
	last := facts[len(facts)-1].At
	w.append(journal.Record{
		Kind: replay.KindQuiet, Covers: stretch.Count, At: instant(last), Wall: last.UnixNano(), Boot: "b", Derived: true, Payload: payload,
	})
}

// instant is the monotonic time that goes with a wall time.
func instant(t time.Time) events.Instant { return events.Instant(t.UnixNano() % int64(24*time.Hour)) }

// Fact journals a fact alone; Decided, a decision as another program could have made it.
// Together they make journals that this program's machine would not have written.
func (w *Writer) Fact(f Fact, payload string) {
	w.tb.Helper()
	w.append(journal.Record{Kind: string(f.Event.Kind()), Wall: f.At.UnixNano(), Boot: "b", Payload: json.RawMessage(payload)})
}

// Decided journals a decision.
func (w *Writer) Decided(at time.Time, d fsm.Derived) {
	w.tb.Helper()
	payload, err := json.Marshal(d)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.append(journal.Record{Kind: replay.KindDecision, Wall: at.UnixNano(), Boot: "b", Derived: true, Payload: payload})
}

// Raw journals a record as it is.
func (w *Writer) Raw(r journal.Record) {
	w.tb.Helper()
	w.append(r)
}

// Gap breaks the journal off and begins a new epoch.
func (w *Writer) Gap(reason string) { w.j.StartEpoch(reason) }

// Sync waits until what was written can be read back.
func (w *Writer) Sync() {
	w.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.j.Sync(ctx); err != nil {
		w.tb.Fatal(err)
	}
}

func (w *Writer) append(r journal.Record) uint64 {
	w.tb.Helper()
	seq, err := w.j.Append(r)
	if err != nil {
		w.tb.Fatal(err)
	}
	return seq
}
