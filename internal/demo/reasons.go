package demo

import (
	"context"
	"encoding/json"
	"time"

	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/sandbox"
)

// turn is a change of phase in a journal.
type turn struct {
	at      time.Time
	derived fsm.Derived
}

// turns reads from a node's journal, which its agent may be writing, the changes of phase
// since a moment.
func turns(n *sandbox.Node, from time.Time) ([]turn, error) {
	var out []turn
	for e, err := range journal.Read(n.JournalDir()) {
		if err != nil {
			return out, err
		}
		at := time.Unix(0, e.Wall)
		if !e.Derived || at.Before(from) {
			continue
		}
		var d fsm.Derived
		if err := json.Unmarshal(e.Payload, &d); err != nil {
			return out, err
		}
		if d.Trigger != "" && d.From != d.To {
			out = append(out, turn{at: at, derived: d})
		}
	}
	return out, nil
}

// settleLimit is how long a journal is waited for; one that lags is told as it is.
const settleLimit = 3 * time.Second

// reasons prints why a node's agent did what it did since a moment, in its own words, once its
// journal has come to the given phase.
func (d *demo) reasons(ctx context.Context, n *sandbox.Node, from time.Time, phase fsm.Phase) error {
	deadline := time.Now().Add(settleLimit)
	found, err := turns(n, from)
	for err == nil && (len(found) == 0 || found[len(found)-1].derived.To != phase) && time.Now().Before(deadline) && ctx.Err() == nil {
		d.wait(ctx, 20*time.Millisecond)
		found, err = turns(n, from)
	}
	if err != nil {
		return err
	}
	d.print("\n")
	d.note("Why? From the journal of %s, on the same clock (regent -c …/%s/patroni.yml journal show):", n.Name(), n.Name())
	for _, t := range found {
		d.note("%7.3f s  %-26s %s", t.at.Sub(d.began).Seconds(), string(t.derived.From)+" → "+string(t.derived.To), t.derived.Text)
	}
	d.print("\n")
	return nil
}
