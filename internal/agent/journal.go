package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/internal/replay"
)

// recorder writes the loop's facts and decisions. It belongs to the loop.
type recorder struct {
	j    *journal.Journal
	boot string
	log  *slog.Logger
	// lost: the last fact is not in the journal, so what follows from it can't be
	// compared, and the next fact begins a new epoch (S19).
	lost bool
}

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

// fact journals an event before it is acted on, and returns its number. A fact that
// can't be recorded is numbered all the same: the journal must never stop the agent.
func (r *recorder) fact(last uint64, at events.Instant, wall int64, ev events.Event) uint64 {
	payload, err := events.Marshal(ev)
	r.lost = false
	if err == nil {
		var seq uint64
		seq, err = r.j.Append(journal.Record{Kind: string(ev.Kind()), At: at, Wall: wall, Boot: r.boot, Payload: payload})
		if err == nil {
			return seq
		}
	}
	r.lost = true
	r.j.StartEpoch("an event could not be journaled")
	r.log.Error("an event could not be journaled", "event", string(ev.Kind()), "err", err)
	return last + 1
}

// decision journals what the machine made of the fact.
func (r *recorder) decision(entry events.Entry, s fsm.State, d fsm.Decision) {
	if r.lost {
		return
	}
	derived, err := fsm.Derive(s, d)
	if err != nil {
		r.log.Error("a decision could not be journaled", "seq", entry.Seq, "err", err)
		return
	}
	payload, err := json.Marshal(derived)
	if err == nil {
		_, err = r.j.Append(journal.Record{
			Kind: replay.KindDecision, At: entry.At, Wall: entry.Wall, Boot: r.boot, Derived: true, Payload: payload,
		})
	}
	if err != nil {
		r.log.Error("a decision could not be journaled", "seq", entry.Seq, "err", err)
	}
}

// crash journals that a part of the agent panicked.
func (r *recorder) crash(s fsm.State, why error) {
	payload, err := json.Marshal(replay.Panic{Why: why.Error()})
	if err == nil {
		_, err = r.j.Append(journal.Record{
			Kind: replay.KindPanic, At: mono.Now(), Wall: time.Now().UnixNano(), Boot: r.boot, Derived: true, Payload: payload,
		})
	}
	if err != nil {
		r.log.Error("the panic could not be journaled", "seq", s.Seq, "err", err)
	}
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
