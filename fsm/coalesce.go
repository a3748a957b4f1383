package fsm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pgregent/regent/events"
)

// An idle member renews its lease, looks at its server and comes to the decision that
// is in force already, several times a second and for months. The journal folds such a
// stretch into one record: how many events there were, and what they changed in the
// state. A replay puts the changes in place and is where it would be had it stepped
// every event; whatever mattered is journaled as it was.

// Stretch is what the journal keeps of a quiet stretch, written when it has ended.
type Stretch struct {
	// Count of the events, and their kinds.
	Count uint64              `json:"count"`
	Kinds map[events.Kind]int `json:"kinds"`
	// Since is the wall time of the first event; the record's own is that of the last.
	Since int64 `json:"since"`
	// The decision that every one of them confirmed. Text may hold figures: the last ones.
	Phase  Phase  `json:"phase"`
	Rule   string `json:"rule"`
	Text   string `json:"text"`
	Status string `json:"status,omitempty"`
	// Changes of the state between the stretch's ends, by path.
	Changes map[string]json.RawMessage `json:"changes"`
	// Digest of the state at the end.
	Digest string `json:"digest"`
}

// Quiet reports whether a step brought nothing but time and figures: a routine fact
// confirmed the decision in force, routine actions followed, and in the state only
// what may vary has changed. Everything else is to be journaled by itself. A field of
// the state that nobody has listed in varies counts as something that matters.
func Quiet(before, after State, ev events.Event, d Decision) bool {
	return routineFact(ev) && !d.Fired() && !d.Refused && routineActions(d.Actions) &&
		slices.Equal(unusual(before.Flight), unusual(after.Flight)) &&
		eachChange(reflect.ValueOf(before), reflect.ValueOf(after), make([]turning, 0, 16), func(path []string, _ reflect.Value) bool {
			return varies(path)
		})
}

// routineFact: the events that come of themselves while nothing happens.
func routineFact(ev events.Event) bool {
	switch e := ev.(type) {
	case events.Tick, events.TimerFired, events.LeaseRenewed, events.ClusterObserved, events.PostgresObserved:
		return true
	case events.ActionFinished:
		return e.Class == events.Done && routineAction(e.Action)
	default:
		return false
	}
}

// routineAction: the kinds of actions by which a member at rest stays what it is.
func routineAction(kind string) bool {
	switch kind {
	case SetTimer{}.Kind(), ObservePostgres{}.Kind(), RenewLease{}.Kind(), ExtendFence{}.Kind(), PublishMember{}.Kind(), WriteStatus{}.Kind():
		return true
	default:
		return false
	}
}

func routineActions(ordered []Ordered) bool {
	return !slices.ContainsFunc(ordered, func(o Ordered) bool { return !routineAction(o.Action.Kind()) })
}

// unusual are the actions in flight that are no routine.
func unusual(flight []Flight) []Flight {
	return slices.DeleteFunc(slices.Clone(flight), func(f Flight) bool { return routineAction(f.Kind) })
}

// varies reports whether a path of the state may change without anything having
// happened: clocks, counters of the store, positions in the WAL, and the figures in the
// words of the same decision. An index is written as *.
func varies(path []string) bool {
	pattern := slices.Clone(path)
	for i, name := range pattern {
		if name[0] >= '0' && name[0] <= '9' {
			pattern[i] = "*"
		}
	}
	switch strings.Join(pattern, ".") {
	case "seq", "now", "wall", "chain", "next_tick", "timer.name", "timer.at",
		"flight", "flight.*.id.seq", "flight.*.id.index", "flight.*.kind", "flight.*.since",
		"store.at", "store.read", "store.tended_at", "store.view.revision", "store.view.age",
		"store.view.members.*.xlog_location", "store.view.members.*.receive_lsn", "store.view.members.*.replay_lsn",
		"store.view.status.version", "store.view.status.optime",
		"lease.sent", "lease.tried", "keeper.sent",
		"postgres.at", "postgres.look", "postgres.streamed_at",
		"postgres.state.position", "postgres.state.received", "postgres.state.replayed", "postgres.state.replayed_at",
		"postgres.state.client_backends", "postgres.state.standbys.*.flushed", "postgres.state.slots.*.restart_lsn",
		"postgres.state.data.checkpoint_lsn", "postgres.state.data.min_recovery_lsn",
		"publish.member.xlog_location", "publish.member.receive_lsn", "publish.member.replay_lsn",
		"publish.position", "publish.status", "slots.*.at",
		"last.seq", "last.at", "last.event", "last.reason.text", "last.reason.rejected.*.why":
		return true
	default:
		return false
	}
}

// Fold makes the record of a quiet stretch from the states at its ends. Count, Kinds
// and Since are the caller's. The error says that the states can't be encoded.
func Fold(before, after State) (Stretch, error) {
	out := Stretch{
		Phase: after.Phase, Rule: after.Last.Reason.Rule, Text: after.Last.Reason.Text, Status: after.Last.Status,
		Changes: map[string]json.RawMessage{},
	}
	var failed error
	eachChange(reflect.ValueOf(before), reflect.ValueOf(after), make([]turning, 0, 16), func(path []string, to reflect.Value) bool {
		b, err := json.Marshal(to.Interface())
		if err != nil {
			failed = fmt.Errorf("fold a quiet stretch: encode %s: %w", strings.Join(path, "."), err)
		}
		out.Changes[strings.Join(path, ".")] = b
		return err == nil
	})
	if failed != nil {
		return Stretch{}, failed
	}
	var err error
	out.Digest, err = digest(after)
	return out, err
}

// ErrStretch: a stretch does not fit the state that it is put upon.
var ErrStretch = errors.New("the quiet stretch doesn't fit the state")

// Unfold returns the state at the stretch's end. An error, which wraps ErrStretch, says
// that the state has no such parts: it was written under another schema.
func (f Stretch) Unfold(before State) (State, error) {
	after := before
	for path, raw := range f.Changes {
		if err := put(reflect.ValueOf(&after).Elem(), strings.Split(path, "."), raw); err != nil {
			return State{}, fmt.Errorf("%w: %s: %w", ErrStretch, path, err)
		}
	}
	return after, nil
}

// Verify checks the state that Unfold led to, bit for bit. It holds for states of the
// program that wrote the stretch: another may know more parts of a state.
func (f Stretch) Verify(after State) error {
	switch sum, err := digest(after); {
	case err != nil:
		return err
	case sum != f.Digest:
		return fmt.Errorf("%w: it leads to another one than was journaled", ErrStretch)
	}
	return nil
}

func digest(s State) (string, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode state: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12]), nil
}
