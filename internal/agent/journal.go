package agent

import (
	"context"
	"encoding/json"
	"log/slog"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/replay"
)

// recorder writes the loop's facts and decisions. It belongs to the loop.
type recorder struct {
	j    *journal.Journal
	boot string
	log  *slog.Logger
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
	if err == nil {
		var seq uint64
		seq, err = r.j.Append(journal.Record{Kind: string(ev.Kind()), At: at, Wall: wall, Boot: r.boot, Payload: payload})
		if err == nil {
			return seq
		}
	}
	r.log.Error("an event could not be journaled", "event", string(ev.Kind()), "err", err)
	return last + 1
}

// decision journals what the machine made of the fact.
func (r *recorder) decision(entry events.Entry, s fsm.State, d fsm.Decision) {
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
