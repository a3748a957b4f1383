package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/internal/replay"
)

// eventful is a journal with everything in it: a start, quiet stretches, edges, changes
// of phase, an end. It returns the only segment.
func eventful(d *diary) []byte {
	d.t.Helper()
	d.states[0] = d.encoded(d.state)
	d.begin()
	d.idle(10 * time.Second)
	d.take(time.Millisecond, events.WalReceiverEnded{Upstream: "h1:5432"})
	d.idle(3 * time.Second)
	d.take(time.Millisecond, events.PostgresDown{PID: 7, Signal: 9})
	d.take(time.Millisecond, events.ShutdownRequested{By: "SIGTERM"})
	d.r.flush(d.state)
	d.close()
	files, err := filepath.Glob(filepath.Join(d.dir, "*.journal"))
	if err != nil || len(files) != 1 {
		d.t.Fatalf("segments %v, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		d.t.Fatal(err)
	}
	return b
}

// starts has an agent begin with a damaged journal, again and again in one folder.
type starts struct {
	d    *diary
	path string
	dir  string
	// last is what was resumed from so many records; it needs no second look.
	last map[int]uint64
}

func newStarts(d *diary) *starts {
	dir := d.t.TempDir()
	return &starts{d: d, dir: dir, path: filepath.Join(dir, "0000000000000001.journal"), last: map[int]uint64{}}
}

// from starts with a segment, and returns up to which number it was resumed. What comes
// out is a state that the machine has been in, or the empty one.
func (s *starts) from(what string, segment []byte) uint64 {
	t := s.d.t
	t.Helper()
	if err := os.WriteFile(s.path, segment, 0o600); err != nil {
		t.Fatal(err)
	}
	j, found, err := journal.Open(s.dir, journal.Options{})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer func() {
		runOnce(t, j)
		names, err := filepath.Glob(filepath.Join(s.dir, "*.journal*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}()
	if found.Snapshot != nil && len(found.Records) > 0 {
		if seq, ok := s.last[len(found.Records)]; ok && found.Records[len(found.Records)-1].Seq >= seq {
			return seq
		}
	}
	state, err := replay.Resume(found)
	if err != nil && !errors.Is(err, replay.ErrUnusable) {
		t.Fatalf("%s: %v", what, err)
	}
	if want, ok := s.d.states[state.Seq]; err == nil && (!ok || want != s.d.encoded(state)) {
		t.Fatalf("%s: resumed a state, at %d, in which the machine never was:\n%s", what, state.Seq, s.d.encoded(state))
	}
	if err == nil && len(found.Records) > 0 {
		s.last[len(found.Records)] = state.Seq
	}
	return state.Seq
}

// runOnce gives the folder of a journal back.
func runOnce(t testing.TB, j *journal.Journal) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := j.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// Wherever the writing was cut short, the agent starts with what it knew until then.
func TestAJournalCutAtAnyByteIsALegalStart(t *testing.T) {
	d := newDiary(t)
	whole := eventful(d)
	step := 1
	if testing.Short() {
		step = 13
	}
	s := newStarts(d)
	var last uint64
	for n := 0; n <= len(whole); n += step {
		seq := s.from(fmt.Sprintf("cut at byte %d", n), whole[:n])
		if seq < last {
			t.Fatalf("cut at byte %d: resumed up to %d; a shorter one was good for %d", n, seq, last)
		}
		last = seq
	}
	if got := s.from("the whole", whole); got != d.state.Seq {
		t.Errorf("the whole journal was resumed up to %d, want %d", got, d.state.Seq)
	}
	if len(s.last) < 20 {
		t.Errorf("%d different beginnings: this test saw little", len(s.last))
	}
}

// Whatever bit of a record is wrong, nothing is made of that record or of those behind it.
func TestAJournalWithAnyBitFlippedIsALegalStart(t *testing.T) {
	d := newDiary(t)
	whole := eventful(d)
	type victim struct{ from, to int }
	victims := map[string]victim{}
	var before uint64
	limit := map[string]uint64{}
	name := ""
	for e, err := range journal.Read(d.dir) {
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := victims[name]; ok && v.to == 0 {
			victims[name] = victim{v.from, int(e.Offset)}
		}
		name = e.Kind
		if name == string(events.KindAgentStarted) || name == replay.KindQuiet || name == string(events.KindPostgresDown) {
			if _, ok := victims[name]; !ok {
				victims[name], limit[name] = victim{from: int(e.Offset)}, before
			}
		}
		before = e.Seq
	}
	if len(victims) != 3 {
		t.Fatalf("the journal has only %v", victims)
	}
	for kind, v := range victims {
		s := newStarts(d)
		step := 1
		if testing.Short() {
			step = 7
		}
		for bit := v.from * 8; bit < v.to*8; bit += step {
			damaged := slices.Clone(whole)
			damaged[bit/8] ^= 1 << (bit % 8)
			if seq := s.from(fmt.Sprintf("%s, bit %d of byte %d", kind, bit%8, bit/8), damaged); seq > limit[kind] {
				t.Fatalf("%s, bit %d of byte %d: resumed up to %d; the record before the damage is %d", kind, bit%8, bit/8, seq, limit[kind])
			}
		}
	}
}
