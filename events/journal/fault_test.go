package journal

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk is a file system whose faults a test switches.
type disk struct {
	mu      sync.Mutex
	writing error // given by every write while set
	syncing error // given by every sync while set
	// room for writes; negative is unlimited. A write that doesn't fit is torn.
	room  int
	block chan struct{} // writes wait for it to be closed, while set
	files []string
}

func newDisk() *disk { return &disk{room: -1} }

func (d *disk) set(change func(*disk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *disk) create(path string) (file, error) {
	f, err := createFile(path)
	if err != nil {
		return nil, err
	}
	d.set(func(d *disk) { d.files = append(d.files, path) })
	return &faultyFile{file: f, disk: d}, nil
}

type faultyFile struct {
	file
	disk *disk
}

func (f *faultyFile) Write(p []byte) (int, error) {
	f.disk.mu.Lock()
	block, fail, room := f.disk.block, f.disk.writing, f.disk.room
	if room >= 0 {
		f.disk.room = max(0, room-len(p))
	}
	f.disk.mu.Unlock()
	if block != nil {
		<-block
	}
	switch {
	case fail != nil:
		return 0, fail
	case room >= 0 && room < len(p):
		n, err := f.file.Write(p[:room])
		return n, errors.Join(err, syscall.ENOSPC)
	}
	return f.file.Write(p)
}

func (f *faultyFile) Sync() error {
	f.disk.mu.Lock()
	fail := f.disk.syncing
	f.disk.mu.Unlock()
	if fail != nil {
		return fail
	}
	return f.file.Sync()
}

// checkGapped fails unless every record is either on disk or inside a marked gap.
func checkGapped(t *testing.T, dir string, last uint64) Report {
	t.Helper()
	report := mustVerify(t, dir)
	have := map[uint64]bool{}
	for _, r := range facts(readAll(t, dir)) {
		have[r.Seq] = true
	}
	for seq := uint64(1); seq <= last; seq++ {
		covered := have[seq]
		for _, g := range report.Gaps {
			covered = covered || g.Gap.From <= seq && seq <= g.Gap.To
		}
		if !covered {
			t.Errorf("record %d is neither on disk nor in a gap %+v", seq, report.Gaps)
		}
	}
	return report
}

func TestAFullDiskCostsRecordsAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	d := newDisk()
	j, _ := start(t, dir, Options{create: d.create, RetryAfter: time.Millisecond})
	mustAppend(t, j.Journal, fact(1))
	mustSync(t, j.Journal)

	d.set(func(d *disk) { d.room = 50 }) // the next write is torn
	mustAppend(t, j.Journal, fact(2))
	eventually(t, "the full disk is visible", func() bool { _, bad := j.Degraded(); return bad })
	select {
	case <-j.Changed():
	default:
		t.Error("nobody was told of the degradation")
	}
	for n := 3; n <= 200; n++ {
		mustAppend(t, j.Journal, fact(n))
	}
	if bad, _ := j.Degraded(); bad.Lost == 0 || bad.Reason == "" {
		t.Errorf("degraded without lost records or a reason: %+v", bad)
	}
	if err := j.Sync(context.Background()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("sync on a full disk: %v, want unavailable", err)
	}
	if got := j.Recent(1)[0].Seq; got != 200 {
		t.Errorf("the newest record in memory is %d, want 200", got)
	}

	d.set(func(d *disk) { d.room = -1 })
	last := uint64(200)
	eventually(t, "the journal writes again", func() bool {
		last = mustAppend(t, j.Journal, fact(1000))
		_, bad := j.Degraded()
		return !bad
	})
	mustSync(t, j.Journal)
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	report := checkGapped(t, dir, last)
	if len(report.Gaps) != 1 || report.Gaps[0].Gap.From != 2 {
		t.Fatalf("gaps %+v, want one from record 2", report.Gaps)
	}
}

// TestARealFullDisk uses a small tmpfs where it may be mounted, and otherwise the
// kernel's device that is always full.
func TestARealFullDisk(t *testing.T) {
	dir := t.TempDir()
	opt := Options{MaxSize: 64 << 20, RetryAfter: time.Millisecond}
	var free func() // makes room
	if os.Geteuid() == 0 && unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k") == nil {
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Errorf("unmount: %v", err)
			}
		})
		free = func() {
			if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=4m"); err != nil {
				t.Fatalf("enlarge the tmpfs: %v", err)
			}
		}
	} else {
		full, mu := true, sync.Mutex{}
		free = func() { mu.Lock(); defer mu.Unlock(); full = false }
		opt.create = func(path string) (file, error) {
			mu.Lock()
			defer mu.Unlock()
			if !full {
				return createFile(path)
			}
			f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			return neverTruncated{f}, err
		}
	}
	j, _ := start(t, dir, opt)
	eventually(t, "the disk is full", func() bool {
		for n := range 50 {
			mustAppend(t, j.Journal, fact(n))
		}
		_, bad := j.Degraded()
		return bad
	})
	if bad, _ := j.Degraded(); bad.Reason == "" {
		t.Error("no reason is given")
	}
	free()
	last := uint64(0)
	eventually(t, "the journal writes again", func() bool {
		last = mustAppend(t, j.Journal, fact(1))
		_, bad := j.Degraded()
		return !bad
	})
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	checkGapped(t, dir, last)
}

type neverTruncated struct{ *os.File }

func (neverTruncated) Truncate(int64) error { return nil }

func TestAStalledDiskNeverHoldsUpTheCaller(t *testing.T) {
	dir := t.TempDir()
	d := newDisk()
	release := make(chan struct{})
	once := sync.OnceFunc(func() { d.set(func(d *disk) { d.block = nil }); close(release) })
	t.Cleanup(once)
	d.block = release
	j, _ := start(t, dir, Options{create: d.create, RetryAfter: time.Millisecond, StallAfter: 5 * time.Millisecond})
	mustAppend(t, j.Journal, fact(1))
	select {
	case <-j.Changed():
	case <-time.After(10 * time.Second):
		t.Fatal("a write that hangs was never reported")
	}
	if bad, ok := j.Degraded(); !ok || bad.Reason != "the disk doesn't answer" {
		t.Fatalf("degraded %v: %+v", ok, bad)
	}
	payload := json.RawMessage(`"` + string(make([]byte, 0)) + repeat("x", 64<<10) + `"`)
	longest := time.Duration(0)
	for range 1000 { // 64 MB, eight times what the queue may hold
		began := time.Now()
		mustAppend(t, j.Journal, Record{Kind: "Big", Payload: payload})
		longest = max(longest, time.Since(began))
	}
	if longest > time.Second {
		t.Errorf("an append took %v while the disk hung", longest)
	}
	j.mu.Lock()
	queued := j.queued
	j.mu.Unlock()
	if queued > maxQueueBytes+(1<<20) {
		t.Errorf("%d bytes are queued, more than the bound", queued)
	}

	once()
	last := uint64(0)
	eventually(t, "the journal writes again", func() bool {
		last = mustAppend(t, j.Journal, fact(1))
		_, bad := j.Degraded()
		return !bad
	})
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	report := checkGapped(t, dir, last)
	if len(report.Gaps) != 1 || report.Gaps[0].Gap.From < 2 {
		t.Fatalf("gaps %+v, want one, after the records that were queued", report.Gaps)
	}
}

func repeat(s string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = s[0]
	}
	return string(b)
}

func TestClosingDoesNotWaitForADeadDisk(t *testing.T) {
	d := newDisk()
	release := make(chan struct{})
	d.block = release
	j, _, err := Open(t.TempDir(), Options{create: d.create, CloseTimeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	mustAppend(t, j, fact(1))
	eventually(t, "the writer hangs", func() bool { j.mu.Lock(); defer j.mu.Unlock(); return len(j.queue) == 0 })
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("run returned %v, want unknown", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("run waits for a dead disk")
	}
	close(release) // the writer left behind ends now
}

func TestAFailedSyncIsNeverTriedOnTheSameFileAgain(t *testing.T) {
	dir := t.TempDir()
	d := newDisk()
	j, _ := start(t, dir, Options{create: d.create, RetryAfter: time.Millisecond})
	mustAppend(t, j.Journal, fact(1))
	d.set(func(d *disk) { d.syncing = syscall.EIO })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := j.Sync(ctx); !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v, want unavailable with its cause", err)
	}
	d.set(func(d *disk) { d.syncing = nil })
	if err := j.Sync(ctx); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("the second sync says %v; nothing was written anew, so it must not succeed", err)
	}
	last := uint64(0)
	eventually(t, "a new segment is safe", func() bool {
		last = mustAppend(t, j.Journal, fact(2))
		return j.Sync(ctx) == nil
	})
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	if len(d.files) != 2 || filepath.Base(d.files[1]) == filepath.Base(d.files[0]) {
		t.Fatalf("segments %v, want a second one after the failure", d.files)
	}
	checkGapped(t, dir, last)
}

func TestSyncTellsWhenItDoesNotKnow(t *testing.T) {
	d := newDisk()
	release := make(chan struct{})
	d.block = release
	j, _ := start(t, t.TempDir(), Options{create: d.create})
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	mustAppend(t, j.Journal, fact(1))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := j.Sync(ctx); !errors.Is(err, ErrUnknown) {
		t.Fatalf("sync on a hanging disk: %v, want unknown", err)
	}
}

func TestAFolderThatCannotBeMadeIsADegradedStart(t *testing.T) {
	base := t.TempDir()
	obstacle := filepath.Join(base, "run")
	dir := filepath.Join(obstacle, "journal")
	// What is there from before, which the blind start doesn't see.
	before := filepath.Join(base, "before")
	old, _ := start(t, filepath.Join(before, "journal"), Options{})
	mustAppend(t, old.Journal, fact(1))
	if err := old.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(obstacle, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j, recovered := start(t, dir, Options{RetryAfter: time.Millisecond})
	if _, bad := j.Degraded(); !bad || len(recovered.Problems) == 0 {
		t.Fatal("a journal without a folder claims to be well")
	}
	first := mustAppend(t, j.Journal, fact(1))
	if first <= 1 {
		t.Fatalf("number %d may be on the disk already", first)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(before, obstacle); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the folder is used", func() bool {
		mustAppend(t, j.Journal, fact(2))
		_, bad := j.Degraded()
		return !bad
	})
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	report := mustVerify(t, dir)
	if len(report.Segments) != 2 || report.Segments[0].LastSeq != 1 || report.Segments[1].Epoch <= report.Segments[0].Epoch {
		t.Fatalf("segments %+v, want the old one and one of a later epoch", report.Segments)
	}
}

// TestReadersSeeOnlyWholeRecordsWhileTheJournalIsWritten also rotates and deletes
// segments below the reader.
func TestReadersSeeOnlyWholeRecordsWhileTheJournalIsWritten(t *testing.T) {
	dir := t.TempDir()
	j, _ := start(t, dir, Options{MaxSize: 64 << 10})
	written := make(chan struct{})
	go func() {
		defer close(written)
		for n := 1; n <= 5000; n++ {
			if _, err := j.Append(fact(n)); err != nil {
				t.Errorf("append: %v", err)
				return
			}
		}
	}()
	rounds, seen := 0, uint64(0)
	for finished := false; !finished; rounds++ {
		select {
		case <-written:
			finished = true
		default:
		}
		previous := uint64(0)
		for e, err := range Read(dir) {
			if err != nil {
				t.Fatalf("round %d: %v", rounds, err)
			}
			if e.Kind == KindSnapshot {
				// Segments may have been deleted in front of it.
				if e.Seq < previous {
					t.Fatalf("round %d: the snapshot at %d follows record %d", rounds, e.Seq, previous)
				}
				previous = e.Seq
				continue
			}
			if e.Seq != previous+1 {
				t.Fatalf("round %d: record %d follows %d", rounds, e.Seq, previous)
			}
			previous = e.Seq
		}
		if previous < seen {
			t.Fatalf("round %d ends at %d, an earlier one ended at %d", rounds, previous, seen)
		}
		seen = previous
	}
	if err := j.stop(); err != nil {
		t.Fatal(err)
	}
	tail, err := Tail(dir, 1)
	if err != nil || len(tail) != 1 || tail[0].Seq != 5000 {
		t.Fatalf("the last record is %+v, %v", tail, err)
	}
}
