package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/internal/replay"
)

// recorder writes the loop's facts and decisions. It belongs to the loop, but for Agent.Quiet.
//
// A fact is journaled before it is acted on: what the machine makes of it is computed
// first, which has no effect, then both are journaled, then the actions are carried out.
// Facts that only confirm the decision in force are folded: they wait in memory, as the
// state before the first of them and their count, until one comes that matters or the
// stretch has lasted for longest, and are journaled as one record then (ADR 0014).
type recorder struct {
	j    *journal.Journal
	boot string
	log  *slog.Logger
	// open is the fact that is being stepped; a panic of the machine leaves it here.
	open *events.Entry
	last uint64 // number of the last fact

	// mu guards the stretch under way, which Agent.Quiet reads from elsewhere.
	mu    sync.Mutex
	quiet quietStretch
}

// quietStretch is one that has not been journaled yet. Without events there is none.
type quietStretch struct {
	fsm.Stretch
	before       fsm.State
	began, ended events.Entry // the first and the last fact
}

// longestStretch bounds one: a journal that is read from the disk while its agent runs is at most
// this much behind, and so is the memory of an agent that was killed.
const longestStretch = 2 * time.Minute

// snapshotOf is what the journal begins each segment with.
func snapshotOf(state fsm.State, binary string) json.RawMessage {
	b, err := json.Marshal(replay.Snapshot{
		Schema: fsm.StateSchema, Table: fsm.TableHash(), Binary: binary, State: state,
	})
	if err != nil {
		return nil // the journal writes null, and a replay begins at the next one
	}
	return b
}

// next is the number of the next fact. It belongs to the fact from here on: its actions
// are named by it.
func (r *recorder) next() uint64 {
	return max(r.j.LastSeq()+r.quiet.Count, r.last) + 1
}

// begin notes the fact that is about to be stepped.
func (r *recorder) begin(entry events.Entry) { r.open, r.last = &entry, entry.Seq }

// record journals a fact and what the machine made of it, or takes it into the quiet
// stretch. The journal's snapshots must still be of the state before. A fact that can't
// be recorded is acted on all the same: the journal must never stop the agent.
func (r *recorder) record(before, after fsm.State, entry events.Entry, d fsm.Decision) {
	r.open = nil
	if !r.j.WantsFact() && fsm.Quiet(before, after, entry.Event, d) {
		if r.fold(before, entry) >= longestStretch {
			r.flush(after)
		}
		return
	}
	r.flush(before)
	if !r.fact(entry) {
		return // what follows from it can't be compared
	}
	derived, err := fsm.Derive(after, d)
	if err == nil {
		err = r.append(replay.KindDecision, entry, derived, 0)
	}
	if err != nil {
		r.log.Error("a decision could not be journaled", "seq", entry.Seq, "err", err)
	}
}

// fold takes a fact into the stretch, and returns how long that has lasted.
func (r *recorder) fold(before fsm.State, entry events.Entry) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := &r.quiet
	if q.Count == 0 {
		*q = quietStretch{before: before, began: entry, Stretch: fsm.Stretch{Since: entry.Wall, Kinds: map[events.Kind]int{}}}
	}
	q.Count++
	q.Kinds[entry.Event.Kind()]++
	q.ended = entry
	return entry.At.Sub(q.began.At)
}

// flush journals the stretch under way, if any, which has led to the given state.
func (r *recorder) flush(now fsm.State) {
	r.mu.Lock()
	q := r.quiet
	r.quiet = quietStretch{}
	r.mu.Unlock()
	if q.Count == 0 {
		return
	}
	folded, err := fsm.Fold(q.before, now)
	if err == nil {
		folded.Count, folded.Kinds, folded.Since = q.Count, q.Kinds, q.Since
		err = r.append(replay.KindQuiet, q.ended, folded, q.Count)
	}
	if err != nil {
		r.lose(q.ended, q.Count, err)
	}
}

// fact journals an event by itself.
func (r *recorder) fact(entry events.Entry) bool {
	payload, err := events.Marshal(entry.Event)
	if err == nil {
		_, err = r.j.Append(journal.Record{
			Kind: string(entry.Event.Kind()), Covers: entry.Seq - r.j.LastSeq(), At: entry.At, Wall: entry.Wall, Boot: r.boot, Payload: payload,
		})
	}
	if err != nil {
		r.lose(entry, 1, err)
	}
	return err == nil
}

// append journals what the machine derived from an entry.
func (r *recorder) append(kind string, entry events.Entry, content any, covers uint64) error {
	payload, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("encode %s: %w", kind, err)
	}
	_, err = r.j.Append(journal.Record{
		Kind: kind, Covers: covers, At: entry.At, Wall: entry.Wall, Boot: r.boot, Derived: true, Payload: payload,
	})
	return err
}

// lose puts a note in the place of facts that can't be recorded, so that their numbers
// are not given again, and has the next fact begin a new epoch (S19).
func (r *recorder) lose(entry events.Entry, covers uint64, cause error) {
	r.log.Error("an event could not be journaled", "event", string(entry.Event.Kind()), "err", cause)
	r.j.StartEpoch("an event could not be journaled")
	if err := r.append(replay.KindLost, entry, replay.Panic{Why: cause.Error()}, covers); err != nil {
		r.log.Error("the loss could not be journaled", "seq", entry.Seq, "err", err)
	}
}

// crash journals that a part of the agent panicked, with the fact that was being stepped.
func (r *recorder) crash(s fsm.State, why error) {
	r.flush(s)
	if r.open != nil {
		r.fact(*r.open)
	}
	at := events.Entry{At: mono.Now(), Wall: s.Wall}
	if err := r.append(replay.KindPanic, at, replay.Panic{Why: why.Error()}, 0); err != nil {
		r.log.Error("the panic could not be journaled", "seq", s.Seq, "err", err)
	}
}

// Quiet tells of the quiet stretch under way, whose facts are not journaled yet, and when
// its last one came. Count is 0 when the journal has everything; of the rest only Kinds
// and Since are set. The decision that it confirms is the snapshot's.
func (a *Agent) Quiet() (under fsm.Stretch, last time.Time) {
	r := &a.journal
	r.mu.Lock()
	defer r.mu.Unlock()
	return fsm.Stretch{Count: r.quiet.Count, Kinds: maps.Clone(r.quiet.Kinds), Since: r.quiet.Since}, time.Unix(0, r.quiet.ended.Wall)
}

// watchJournal turns the journal's degradation into events.
func (a *Agent) watchJournal(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.opt.Journal.Changed():
			d, bad := a.opt.Journal.Degraded()
			if !bad {
				d.Reason = ""
			}
			a.mail.put(events.JournalDegraded{Why: d.Reason})
		}
	}
}
