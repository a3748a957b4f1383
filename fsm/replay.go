package fsm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/pgregent/regent/events"
)

// Derived is what the journal keeps of a decision beside the event: enough to read
// it as a story, and a digest of all of it, against which a replay is compared.
type Derived struct {
	From    Phase    `json:"from"`
	To      Phase    `json:"to"`
	Trigger Trigger  `json:"trigger,omitempty"`
	Refused bool     `json:"refused,omitempty"`
	Rule    string   `json:"rule"`
	Text    string   `json:"text"`
	Status  string   `json:"status,omitempty"`
	Actions []string `json:"actions,omitempty"`
	Digest  string   `json:"digest"`
}

// Derive condenses a decision and the state it led to.
func Derive(s State, d Decision) (Derived, error) {
	out := Derived{
		From: d.From, To: d.To, Trigger: d.Trigger, Refused: d.Refused,
		Rule: d.Reason.Rule, Text: d.Reason.Text, Status: d.Status,
	}
	h := sha256.New()
	for _, o := range d.Actions {
		b, err := json.Marshal(o.Action)
		if err != nil {
			return Derived{}, fmt.Errorf("encode action %s: %w", o.Action.Kind(), err)
		}
		out.Actions = append(out.Actions, o.Action.Kind())
		fmt.Fprintf(h, "%d/%d %s %s %d %s\n", o.ID.Seq, o.ID.Index, o.Action.Kind(), o.Needs, o.Until, b)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return Derived{}, fmt.Errorf("encode state: %w", err)
	}
	h.Write(b)
	out.Digest = hex.EncodeToString(h.Sum(nil)[:12])
	return out, nil
}

// Differ says in words how a recomputed decision differs from the journaled one;
// empty if it doesn't.
func (d Derived) Differ(journaled Derived) string {
	switch {
	case d.Trigger != journaled.Trigger || d.From != journaled.From || d.To != journaled.To:
		return fmt.Sprintf("journal: %s -%s-> %s; recomputed: %s -%s-> %s",
			journaled.From, journaled.Trigger, journaled.To, d.From, d.Trigger, d.To)
	case d.Rule != journaled.Rule || d.Text != journaled.Text:
		return fmt.Sprintf("journal: %s (%s); recomputed: %s (%s)", journaled.Rule, journaled.Text, d.Rule, d.Text)
	case fmt.Sprint(d.Actions) != fmt.Sprint(journaled.Actions):
		return fmt.Sprintf("journal: actions %v; recomputed: %v", journaled.Actions, d.Actions)
	case d.Digest != journaled.Digest:
		return "same decision, but its actions' contents or the state differ"
	default:
		return ""
	}
}

// TableHash identifies the transition table and the schema; a replay compares
// decisions only within one hash (S20).
func TableHash() string {
	b, err := json.Marshal(struct {
		Schema int
		Events int
		Table  []Edge
	}{StateSchema, events.SchemaVersion, Table()})
	if err != nil {
		return "" // a literal of strings always encodes
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
