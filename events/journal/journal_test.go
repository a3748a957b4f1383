package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a journal whose Run is under way until the test ends or stop is called.
type running struct {
	*Journal
	cancel context.CancelFunc
	done   chan error
	ended  bool
}

// start opens a journal and runs it.
func start(t *testing.T, dir string, opt Options) (*running, Recovered) {
	t.Helper()
	j, recovered, err := Open(dir, opt)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Journal: j, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- j.Run(ctx) }()
	t.Cleanup(func() { _ = r.stop() })
	return r, recovered
}

// stop ends Run and returns its error; the second call returns nil.
func (r *running) stop() error {
	if r.ended {
		return nil
	}
	r.ended = true
	r.cancel()
	return <-r.done
}

func fact(n int) Record {
	return Record{
		Kind: "Tick", At: events.Instant(n), Wall: int64(n) * 1000, Boot: "boot-1",
		Payload: json.RawMessage(fmt.Sprintf(`{"n":%d,"html":"<&>"}`, n)),
	}
}

func decision(n int) Record {
	r := fact(n)
	r.Kind, r.Derived = "Decided", true
	return r
}

func mustAppend(t *testing.T, j *Journal, r Record) uint64 {
	t.Helper()
	seq, err := j.Append(r)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return seq
}

// mustSync waits until everything appended is on disk.
func mustSync(t *testing.T, j *Journal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := j.Sync(ctx); err != nil {
		t.Fatalf("sync: %v", err)
	}
}

// eventually polls until ok, without an upper bound on how slow the machine may be but
// the test's own deadline of ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		<-tick.C
	}
}

func mustVerify(t *testing.T, dir string) Report {
	t.Helper()
	report, err := Verify(dir)
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	if !report.OK() {
		t.Fatalf("the journal isn't sound: %v", report.Problems)
	}
	return report
}

func readAll(t *testing.T, dir string) []Entry {
	t.Helper()
	var out []Entry
	for e, err := range Read(dir) {
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		out = append(out, e)
	}
	return out
}

func facts(entries []Entry) []Record {
	var out []Record
	for _, e := range entries {
		if e.Kind != KindSnapshot && e.Kind != KindGap {
			out = append(out, e.Record)
		}
	}
	return out
}

func TestWhatWasAppendedIsReadBackByteForByte(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	state := json.RawMessage(`{"phase":"init"}`)
	j, recovered := start(t, dir, Options{Snapshot: func() json.RawMessage { return state }})
	if recovered.Snapshot != nil || recovered.LastSeq != 0 {
		t.Fatalf("a new journal holds %+v", recovered)
	}
	for n := 1; n <= 10; n += 2 {
		mustAppend(t, j.Journal, fact(n))
		mustAppend(t, j.Journal, decision(n+1))
	}
	if err := j.stop(); err != nil {
		t.Fatalf("run: %v", err)
	}
	mustVerify(t, dir)

	_, again := start(t, dir, Options{})
	if again.Snapshot == nil || string(again.Snapshot.Payload) != string(state) || again.Snapshot.Seq != 0 {
		t.Fatalf("snapshot %+v, want %s at 0", again.Snapshot, state)
	}
	if len(again.Records) != 10 || again.LastSeq != 10 {
		t.Fatalf("%d records to %d, want 10 to 10", len(again.Records), again.LastSeq)
	}
	for i, r := range again.Records {
		want := fact(i + 1)
		if i%2 == 1 {
			want = decision(i + 1)
		}
		want.Seq, want.Epoch = uint64(i+1), 1
		if got, want := fmt.Sprintf("%+v", r), fmt.Sprintf("%+v", want); got != want {
			t.Errorf("record %d:\n got %s\nwant %s", i+1, got, want)
		}
	}
}

func TestNumbersGoOnAfterARestartInTheSameEpoch(t *testing.T) {
	dir := t.TempDir()
	for run := range 3 {
		j, recovered := start(t, dir, Options{})
		if want := uint64(run * 5); recovered.LastSeq != want {
			t.Fatalf("run %d recovered up to %d, want %d", run, recovered.LastSeq, want)
		}
		for n := range 5 {
			if got, want := mustAppend(t, j.Journal, fact(n)), uint64(run*5+n+1); got != want {
				t.Fatalf("number %d, want %d", got, want)
			}
		}
		if err := j.stop(); err != nil {
			t.Fatal(err)
		}
	}
	report := mustVerify(t, dir)
	if len(report.Segments) != 3 || len(report.Gaps) != 0 || report.Segments[2].Epoch != 1 {
		t.Fatalf("%+v, want three segments of one epoch without a gap", report)
	}
}

func TestEverySegmentBeginsWithTheStateBeforeItsFirstFact(t *testing.T) {
	dir := t.TempDir()
	state := 0 // the number of facts applied, as the loop would hold it
	j, _ := start(t, dir, Options{MaxSize: 64 << 10, Snapshot: func() json.RawMessage {
		return json.RawMessage(fmt.Sprintf(`{"applied":%d}`, state))
	}})
	for n := 1; n <= 2000; n++ {
		seq := mustAppend(t, j.Journal, fact(n)) // the fact enters before it is acted on
		state = int(seq)
		state = int(mustAppend(t, j.Journal, decision(n)))
	}
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	report := mustVerify(t, dir)
	var total int64
	for _, s := range report.Segments {
		total += s.Bytes
	}
	if len(report.Segments) < 4 || total > 64<<10 {
		t.Fatalf("%d segments of %d bytes, want some within 64 KiB", len(report.Segments), total)
	}
	if report.Segments[0].Number == 1 {
		t.Fatal("the oldest segment was never deleted")
	}
	for _, e := range readAll(t, dir) {
		if e.Kind != KindSnapshot {
			continue
		}
		if want := fmt.Sprintf(`{"applied":%d}`, e.Seq); string(e.Payload) != want {
			t.Errorf("the snapshot at %d holds %s, want %s", e.Seq, e.Payload, want)
		}
	}
}

func TestReadFromBeginsAtTheSnapshotBefore(t *testing.T) {
	dir := t.TempDir()
	j, _ := start(t, dir, Options{MaxSize: 64 << 10})
	for n := 1; n <= 400; n++ {
		mustAppend(t, j.Journal, fact(n))
	}
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	all := readAll(t, dir)
	for _, seq := range []uint64{all[1].Seq, 200, 399, 400} {
		first, found := Record{}, false
		for e, err := range ReadFrom(dir, seq) {
			if err != nil {
				t.Fatal(err)
			}
			if first.Kind == "" {
				first = e.Record
			}
			found = found || e.Seq == seq && e.Kind == "Tick"
		}
		if first.Kind != KindSnapshot || first.Seq >= seq || !found {
			t.Errorf("from %d: begins with %s at %d, found %v", seq, first.Kind, first.Seq, found)
		}
	}
	tail, err := Tail(dir, 150)
	if err != nil || len(tail) != 150 || tail[0].Seq != 251 || tail[149].Seq != 400 {
		t.Fatalf("tail of %d records, %v", len(tail), err)
	}
}

func TestASecondWriterIsRefused(t *testing.T) {
	dir := t.TempDir()
	first, _ := start(t, dir, Options{})
	if _, _, err := Open(dir, Options{}); !errors.Is(err, ErrRefused) {
		t.Fatalf("a second writer got %v, want refused", err)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	second, _ := start(t, dir, Options{})
	mustAppend(t, second.Journal, fact(1))
}

// A process that is being started has a copy of its parent's open files until it becomes its
// program, and with it the lock.
func TestAChildBeingStartedDoesNotKeepTheLock(t *testing.T) {
	dir := t.TempDir()
	first, _ := start(t, dir, Options{})
	copied, err := unix.Dup(int(first.lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	second, _ := start(t, dir, Options{})
	mustAppend(t, second.Journal, fact(1))
}

func TestAnUnusableRecordIsAnErrorAndLeavesNoTrace(t *testing.T) {
	dir := t.TempDir()
	j, _ := start(t, dir, Options{})
	for name, r := range map[string]Record{
		"no kind":   {Payload: json.RawMessage(`{}`)},
		"not JSON":  {Kind: "Tick", Payload: json.RawMessage(`{`)},
		"too large": {Kind: "Tick", Payload: append(append([]byte{'"'}, make([]byte, MaxPayload)...), '"')},
	} {
		if _, err := j.Append(r); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v, want ErrRecord", name, err)
		}
	}
	if got := mustAppend(t, j.Journal, fact(1)); got != 1 {
		t.Fatalf("the first good record has number %d", got)
	}
}

func TestStartEpochKeepsAReplayFromCrossing(t *testing.T) {
	dir := t.TempDir()
	j, _ := start(t, dir, Options{})
	mustAppend(t, j.Journal, fact(1))
	j.StartEpoch("the state could not be read")
	mustAppend(t, j.Journal, fact(2))
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	report := mustVerify(t, dir)
	if len(report.Gaps) != 1 || report.Gaps[0].Gap.Reason != "the state could not be read" || report.Gaps[0].Gap.To != 0 {
		t.Fatalf("gaps %+v, want one without missing records", report.Gaps)
	}
	_, recovered := start(t, dir, Options{})
	if recovered.Epoch != 2 || len(recovered.Records) != 1 || recovered.Records[0].Seq != 2 {
		t.Fatalf("recovered %+v, want record 2 of epoch 2", recovered)
	}
}

func TestRecentHoldsTheNewestWhateverTheDiskDoes(t *testing.T) {
	j, _, err := Open(t.TempDir(), Options{}) // nobody writes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { runOnce(t, j) })
	for n := 1; n <= maxRecent+100; n++ {
		mustAppend(t, j, fact(n))
	}
	recent := j.Recent(10)
	if len(recent) != 10 || recent[9].Seq != maxRecent+100 {
		t.Fatalf("%d recent records, last %d", len(recent), recent[len(recent)-1].Seq)
	}
	if all := j.Recent(1 << 20); len(all) != maxRecent {
		t.Fatalf("%d records are kept, want %d", len(all), maxRecent)
	}
}

// runOnce gives the folder of a journal back that was never run.
func runOnce(t *testing.T, j *Journal) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := j.Run(ctx); err != nil {
		t.Logf("run: %v", err)
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"notes.txt", "1.journal", "000000000000000x.journal"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j, _ := start(t, dir, Options{})
	mustAppend(t, j.Journal, fact(1))
	mustSync(t, j.Journal)
	if got := len(readAll(t, dir)); got != 2 {
		t.Fatalf("%d entries, want a snapshot and a fact", got)
	}
	for _, name := range []string{"notes.txt", "1.journal", "000000000000000x.journal"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != "mine" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// TestStatsAreWhatTheFolderHolds: monitoring sees the folder's size without reading it,
// across rotation, pruning and a restart.
func TestStatsAreWhatTheFolderHolds(t *testing.T) {
	dir := t.TempDir()
	for run := range 2 {
		j, _ := start(t, dir, Options{MaxSize: 64 << 10})
		for n := range 1500 {
			if _, err := j.Append(fact(n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		files, err := listSegments(dir)
		if err != nil {
			t.Fatal(err)
		}
		var size int64
		for _, f := range files {
			size += f.size
		}
		st := j.Stats()
		if st.Bytes != size || size == 0 || st.Epoch != 1 || st.Records != uint64(1500*(run+1)) {
			t.Errorf("run %d: %+v; the folder holds %d bytes in %d segments", run, st, size, len(files))
		}
		if err := j.stop(); err != nil {
			t.Fatal(err)
		}
	}
}
