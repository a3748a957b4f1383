// Package replay reads a journal back through the machine: to rebuild an agent's
// state at its start, and to prove that every journaled decision is what the
// machine decides today from the same facts.
package replay

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
)

// KindDecision is the kind of the derived records.
const KindDecision = "decision"

// KindQuiet is the kind of the record that stands for a quiet stretch: facts that only
// confirmed the decision in force, folded into what they changed (an fsm.Stretch).
const KindQuiet = "quiet"

// KindLost is the kind of the record in the place of a fact that could not be encoded.
// A new epoch begins after it.
const KindLost = "lost"

// KindPanic is the kind of the record that tells of a panic; it decides nothing.
const KindPanic = "panic"

// Panic is the payload of KindPanic and KindLost.
type Panic struct {
	Why string `json:"why"`
}

// Snapshot is the payload of a journal's snapshot record (S20).
type Snapshot struct {
	Schema int       `json:"schema"`
	Table  string    `json:"table"`  // hash of the transition table and schemas
	Binary string    `json:"binary"` // hash of the program that wrote it
	State  fsm.State `json:"state"`
}

// BinaryHash identifies the running program, which another may have replaced at its path.
func BinaryHash() (string, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil { // not Linux
		var path string
		if path, err = os.Executable(); err != nil {
			return "", fmt.Errorf("find the running program: %w", err)
		}
		f, err = os.Open(path)
	}
	if err != nil {
		return "", fmt.Errorf("hash the running program: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("hash the running program: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// Entry decodes a fact's record.
func Entry(r journal.Record) (events.Entry, error) {
	ev, err := events.Unmarshal(events.Kind(r.Kind), r.Payload)
	if err != nil {
		return events.Entry{}, fmt.Errorf("record %d: %w", r.Seq, err)
	}
	return events.Entry{Seq: r.Seq, At: r.At, Wall: r.Wall, Event: ev}, nil
}

// ErrUnusable: the journal is in order, and this program can't continue it (another
// schema, an event it doesn't know, decisions that it would take otherwise). The
// agent begins a new epoch with an empty state, which is always legal and safe (S19).
var ErrUnusable = errors.New("the journal can't be continued")

// Resume rebuilds the state from what a journal remembers: the snapshot, and the
// facts after it. With an error the state is the zero State.
func Resume(r journal.Recovered) (fsm.State, error) {
	if r.Snapshot == nil {
		if len(r.Records) > 0 {
			return fsm.State{}, fmt.Errorf("resume: %w: no snapshot", ErrUnusable)
		}
		return fsm.State{}, nil
	}
	var snap Snapshot
	switch err := json.Unmarshal(r.Snapshot.Payload, &snap); {
	case err != nil:
		return fsm.State{}, fmt.Errorf("resume: %w: %w", ErrUnusable, err)
	case snap.Schema != fsm.StateSchema:
		return fsm.State{}, fmt.Errorf("resume: %w: its state has schema %d, not %d", ErrUnusable, snap.Schema, fsm.StateSchema)
	case snap.Table != fsm.TableHash():
		return fsm.State{}, fmt.Errorf("resume: %w: it was written under another transition table", ErrUnusable)
	}
	state, err := fold(snap.State, r.Records, fsm.New().Step)
	if err != nil {
		return fsm.State{}, fmt.Errorf("resume: %w: %w", ErrUnusable, err)
	}
	return state, nil
}

// fold steps the facts. A fact on which the machine panics ended the agent once, and
// must not end it at every start: it makes the journal unusable instead.
func fold(
	state fsm.State, records []journal.Record, step func(fsm.State, events.Entry) (fsm.State, fsm.Decision),
) (_ fsm.State, err error) {
	var seq uint64
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("record %d: the machine panicked: %v", seq, p)
		}
	}()
	for _, rec := range records {
		seq = rec.Seq
		if rec.Kind == KindQuiet {
			if state, _, err = unfold(state, rec); err != nil {
				return fsm.State{}, err
			}
			continue
		}
		if rec.Derived {
			continue
		}
		entry, err := Entry(rec)
		if err != nil {
			return fsm.State{}, err
		}
		state, _ = step(state, entry)
	}
	return state, nil
}

// unfold returns the state after the quiet stretch that rec stands for.
func unfold(before fsm.State, rec journal.Record) (after fsm.State, stretch fsm.Stretch, err error) {
	if err := json.Unmarshal(rec.Payload, &stretch); err != nil {
		return fsm.State{}, stretch, fmt.Errorf("record %d: decode the quiet stretch: %w", rec.Seq, err)
	}
	if after, err = stretch.Unfold(before); err != nil {
		return fsm.State{}, stretch, fmt.Errorf("record %d: %w", rec.Seq, err)
	}
	return after, stretch, nil
}

// Report is the result of a Check.
type Report struct {
	Facts     int // events stepped
	Quiet     int // stretches put in place of the facts that they stand for
	Compared  int // decisions recomputed and found equal
	Epochs    int
	Gaps      int
	Uncounted int // decisions of another program or table, which are not compared
	LastSeq   uint64
	// Programs are those that wrote the journal, each from its first record on, while the
	// next one is another: an upgrade begins a new comparison.
	Programs []Program
}

// Program is what wrote a part of a journal.
type Program struct {
	Binary string
	From   uint64 // its first fact
	// Compared: its decisions are this replay's to compare.
	Compared bool
}

// AnyProgram has a Check compare the decisions of every program with the same table.
const AnyProgram = ""

// ErrDiffers: a journaled decision is not what the machine decides from the same facts.
var ErrDiffers = errors.New("the replay differs from the journal")

// Check recomputes every decision of the journal in dir and stops at the first that
// differs. Compared are those of the program with that hash, under this one's table (S20):
// rules that another program had are not this one's, although it reads its facts.
func Check(dir, program string) (Report, error) { return CheckEach(dir, program, nil) }

// CheckEach is Check, and hands every step that it recomputes to each, unless that is nil: the
// states before and after, and the decision with its actions.
func CheckEach(dir, program string, each func(before, after fsm.State, d fsm.Decision)) (Report, error) {
	c := checker{machine: fsm.New(), table: fsm.TableHash(), program: program, each: each}
	for e, err := range journal.Read(dir) {
		if err != nil {
			var damage *journal.Damage
			if errors.As(err, &damage) {
				c.usable = false
				continue
			}
			return c.report, fmt.Errorf("read journal %s: %w", dir, err)
		}
		if err := c.take(e.Record); err != nil {
			return c.report, fmt.Errorf("record %d: %w", e.Seq, err)
		}
	}
	return c.report, nil
}

type checker struct {
	machine  *fsm.Machine
	table    string
	state    fsm.State
	usable   bool // the state is known
	program  string
	compare  bool // what follows was decided by that program, under the same table
	epoch    uint64
	decision fsm.Decision
	report   Report
	each     func(before, after fsm.State, d fsm.Decision) // may be nil
}

func (c *checker) take(r journal.Record) error {
	if r.Epoch != c.epoch {
		c.epoch, c.usable = r.Epoch, false
		c.report.Epochs++
	}
	switch {
	case r.Kind == KindPanic || r.Kind == KindLost:
		c.report.LastSeq = r.Seq
	case r.Kind == KindQuiet:
		return c.quiet(r)
	case r.Kind == journal.KindGap:
		c.usable = false
		c.report.Gaps++
	case r.Kind == journal.KindSnapshot:
		return c.snapshot(r)
	case r.Derived:
		return c.derived(r)
	default:
		return c.fact(r)
	}
	return nil
}

// snapshot begins anew, or, in the middle of an epoch, is compared with the state.
func (c *checker) snapshot(r journal.Record) error {
	var snap Snapshot
	if err := json.Unmarshal(r.Payload, &snap); err != nil || snap.Schema != fsm.StateSchema {
		c.usable = false // another schema: the facts that follow can't be stepped from it
		return nil
	}
	same := c.wrote(snap, r.Seq+1)
	if c.usable && c.compare && same {
		mine, err := json.Marshal(c.state)
		if err != nil {
			return fmt.Errorf("encode state: %w", err)
		}
		theirs, err := json.Marshal(snap.State)
		if err != nil {
			return fmt.Errorf("encode state: %w", err)
		}
		if string(mine) != string(theirs) {
			return fmt.Errorf("%w: the state at the snapshot is another", ErrDiffers)
		}
	}
	c.state, c.usable = snap.State, true
	return nil
}

// wrote notes who has written what follows; false if that isn't who wrote what came before.
// Whoever came later went on from what it made itself of its predecessor's facts.
func (c *checker) wrote(snap Snapshot, from uint64) (same bool) {
	c.compare = snap.Table == c.table && (c.program == AnyProgram || snap.Binary == c.program)
	if n := len(c.report.Programs); n > 0 && c.report.Programs[n-1].Binary == snap.Binary {
		return true
	}
	c.report.Programs = append(c.report.Programs, Program{Binary: snap.Binary, From: from, Compared: c.compare})
	return false
}

func (c *checker) fact(r journal.Record) error {
	c.report.LastSeq = r.Seq
	if !c.usable {
		return nil
	}
	entry, err := Entry(r)
	if err != nil {
		c.usable = false // an event of a newer program
		return nil
	}
	before := c.state
	c.state, c.decision = c.machine.Step(c.state, entry)
	if c.each != nil {
		c.each(before, c.state, c.decision)
	}
	c.report.Facts++
	return nil
}

// quiet puts a stretch in place. One that was folded by this table's machine and doesn't
// fit is a difference like that of a decision.
func (c *checker) quiet(r journal.Record) error {
	c.report.LastSeq = r.Seq
	if !c.usable {
		c.report.Uncounted++
		return nil
	}
	after, stretch, err := unfold(c.state, r)
	if err == nil && c.compare {
		err = stretch.Verify(after)
	}
	switch {
	case err != nil && c.compare:
		return fmt.Errorf("%w: %w", ErrDiffers, err)
	case err != nil:
		c.usable = false
		return nil
	}
	c.state = after
	c.report.Quiet++
	return nil
}

func (c *checker) derived(r journal.Record) error {
	c.report.LastSeq = r.Seq
	if !c.usable || !c.compare {
		c.report.Uncounted++
		return nil
	}
	var journaled fsm.Derived
	if err := json.Unmarshal(r.Payload, &journaled); err != nil {
		return fmt.Errorf("decode decision: %w", err)
	}
	mine, err := fsm.Derive(c.state, c.decision)
	if err != nil {
		return err
	}
	if diff := mine.Differ(journaled); diff != "" {
		return fmt.Errorf("%w: %s", ErrDiffers, diff)
	}
	c.report.Compared++
	return nil
}
