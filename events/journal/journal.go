package journal

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Options of a Journal. The zero value of each field takes the default.
type Options struct {
	// MaxSize bounds the segments together, in bytes; 64 MiB by default, 64 KiB at
	// least. It is exceeded by up to one segment while a new one is begun.
	MaxSize int64
	// Snapshot returns the state as JSON. Append calls it, on the caller's goroutine,
	// when a segment is begun: the state must be the one before the fact being
	// appended. Nil, or a nil result, writes null.
	Snapshot func() json.RawMessage
	// Logger gets one line per degradation and repair; none by default.
	Logger *slog.Logger
	// StallAfter is how long a write may last before the journal counts as degraded;
	// 2 s by default.
	StallAfter time.Duration
	// CloseTimeout is how long Run waits, after its context ended, for the disk to
	// take what is queued; 2 s by default.
	CloseTimeout time.Duration
	// RetryAfter is the first pause after a failed write; it doubles up to 30 s. 1 s
	// by default.
	RetryAfter time.Duration

	create func(path string) (file, error) // tests inject faults here
}

// The bounds of memory.
const (
	maxQueueBytes   = 8 << 20
	maxQueueRecords = 1 << 16
	maxRecent       = 1024
	maxRecentBytes  = 4 << 20
	maxRetryPause   = 30 * time.Second
)

// Error classes, as everywhere. Errors of this package wrap one of them, or ErrRecord.
var (
	// ErrRefused: another process writes this journal.
	ErrRefused = errors.New("refused by the journal")
	// ErrUnavailable: the disk doesn't take writes; the records are not safe.
	ErrUnavailable = errors.New("journal unavailable")
	// ErrUnknown: it isn't known whether the records are safe.
	ErrUnknown = errors.New("journal outcome unknown")
)

// Degradation says what is wrong with the disk.
type Degradation struct {
	Since  time.Time
	Reason string
	// Lost counts the records that were not written since then.
	Lost uint64
}

// Journal is one process's journal. Append is for one goroutine at a time, the one that
// owns the state; everything else is for any.
type Journal struct {
	dir string
	opt Options
	log *slog.Logger

	lock  *os.File // held while the journal is open; owned by Open and the writer
	blind bool     // the folder wasn't read at Open; owned by Open and the writer

	// mu guards all below. It is held for copies in memory only, never across I/O or
	// a callback.
	mu       sync.Mutex
	seq      uint64
	epoch    uint64
	nextFile uint64 // the next segment's number
	queue    []item
	queued   int // bytes in queue
	syncs    []chan error
	// segment counts the bytes given to the current segment; 0 when none is begun.
	segment int64
	// broken: records are being lost, from gapFrom on. The next fact after retryAt
	// begins a new epoch.
	broken    bool
	gapFrom   uint64
	gapReason string
	retryAt   time.Time
	// newEpoch, when not empty, is why the next fact begins a new epoch although
	// nothing is broken.
	newEpoch  string
	pause     time.Duration
	degraded  *Degradation
	stalled   *Degradation // a write that hasn't returned
	disk      int64        // bytes of all segments, as of the last write
	recent    []Record
	recentLen int // bytes
	// appended is closed at the next Append; nil while nobody waits for it.
	appended chan struct{}

	wake    chan struct{} // work for the writer
	changed chan struct{} // Degraded changed
}

// item is one record on its way to the disk.
type item struct {
	frame []byte
	seq   uint64
	// begin: a new segment starts with this record.
	begin  bool
	number uint64
	epoch  uint64
	// gapFrom of a gap record: the first record that it stands for.
	gapFrom uint64
}

// Open takes the folder for writing, repairs what is there and returns it. It fails
// with ErrRefused when another process has it; whatever else is wrong with folder or
// disk leaves a journal that is degraded from the start and tries again later. Nothing
// is written before the first Append, which begins a new segment.
func Open(dir string, opt Options) (*Journal, Recovered, error) {
	opt = opt.withDefaults()
	j := &Journal{
		dir: dir, opt: opt, log: opt.Logger, epoch: 1, nextFile: 1,
		wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), pause: opt.RetryAfter,
	}
	err := j.takeLock()
	if errors.Is(err, ErrRefused) {
		return nil, Recovered{}, err
	}
	if err != nil {
		j.startBlind(err)
		return j, Recovered{Problems: []string{err.Error()}}, nil
	}
	r, err := recoverDir(dir)
	if err != nil {
		j.startBlind(err)
		return j, Recovered{Problems: []string{err.Error()}}, nil
	}
	r.must(pruneAside(dir))
	for _, p := range r.out.Problems {
		j.log.Warn("journal repaired", "journal", dir, "what", p)
	}
	j.seq, j.nextFile = r.out.LastSeq, r.next
	j.epoch = max(1, r.out.Epoch)
	if r.damaged {
		j.newEpoch = "damage found at start"
	}
	return j, r.out, nil
}

// startBlind begins without having read what is on the disk. Numbers then start at a
// height that counting never reaches, so that none is given twice; it stays below 2^53,
// the last integer that every JSON reader knows.
func (j *Journal) startBlind(cause error) {
	j.seq = uint64(time.Now().UnixMilli()) * 1000
	j.blind = true
	j.breakOff(j.seq+1, cause.Error())
}

func (o Options) withDefaults() Options {
	if o.MaxSize <= 0 {
		o.MaxSize = 64 << 20
	}
	o.MaxSize = max(o.MaxSize, 64<<10)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&o.StallAfter, 2 * time.Second}, {&o.CloseTimeout, 2 * time.Second}, {&o.RetryAfter, time.Second}} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	if o.create == nil {
		o.create = createFile
	}
	return o
}

// segmentSize is the length at which a segment ends. To explain a decision is to step
// through a segment from its snapshot on, so segments are small; but a folder of four
// thousand is enough.
func (o Options) segmentSize() int64 { return max(min(o.MaxSize/8, 512<<10), o.MaxSize/4096) }

// Append numbers a record and hands it to the writer. It takes microseconds, whatever
// the disk does. Seq and Epoch of r are set by the journal. The error, ErrRecord, says
// that r itself is unusable; then nothing was recorded. A record that the disk can't
// take is no error here: see Degraded.
func (j *Journal) Append(r Record) (seq uint64, err error) {
	if err := checkRecord(r); err != nil {
		return 0, err
	}
	// Only the caller changes broken to false and segment to a new one, so what is read
	// here still holds when the snapshot was taken.
	var snapshot json.RawMessage
	begin := !r.Derived && j.wantsSegment()
	if begin && j.opt.Snapshot != nil {
		snapshot = j.opt.Snapshot()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if begin {
		j.beginSegment(r, snapshot)
	}
	j.seq += max(r.Covers, 1)
	r.Seq, r.Epoch = j.seq, j.epoch
	j.remember(r)
	switch {
	case j.broken:
		j.lose()
	case len(j.queue) >= maxQueueRecords || j.queued >= maxQueueBytes:
		j.breakLocked(r.First(), "the disk is too slow: the queue is full")
		j.lose()
	default:
		j.push(item{frame: appendFrame(nil, r), seq: r.First()})
	}
	j.signal(j.wake)
	if j.appended != nil {
		close(j.appended)
		j.appended = nil
	}
	return r.Seq, nil
}

// wantsSegment reports whether the next fact begins a segment.
func (j *Journal) wantsSegment() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		return !time.Now().Before(j.retryAt) && len(j.queue) == 0
	}
	return j.newEpoch != "" || j.segment == 0 || j.segment >= j.opt.segmentSize()
}

// WantsFact reports whether the journal waits for a fact to begin a segment with: the
// first, the one after a gap, or the one that goes beyond a segment's size. Until it gets
// one, records that only stand for others would be lost, or make the segment larger. It
// belongs to the goroutine that appends.
func (j *Journal) WantsFact() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken || j.newEpoch != "" || j.segment == 0 || j.segment >= j.opt.segmentSize()
}

// beginSegment queues what a segment begins with: the gap that it closes, if any, and
// the snapshot.
func (j *Journal) beginSegment(first Record, snapshot json.RawMessage) {
	if j.broken && len(j.queue) > 0 {
		return // the writer failed meanwhile; the next fact tries again
	}
	meta := Record{Seq: j.seq, At: first.At, Wall: first.Wall, Boot: first.Boot, Derived: true}
	items := make([]item, 0, 2)
	if j.broken || j.newEpoch != "" {
		j.epoch++
		gap := Gap{Reason: j.newEpoch}
		if j.broken {
			gap.Reason = j.gapReason
			if j.gapFrom <= j.seq {
				gap.From, gap.To = j.gapFrom, j.seq
			}
		}
		meta.Kind, meta.Payload, meta.Epoch = KindGap, gap.payload(), j.epoch
		items = append(items, item{frame: appendFrame(nil, meta), seq: j.seq + 1, gapFrom: gap.From})
		j.broken, j.newEpoch = false, ""
	}
	meta.Kind, meta.Payload, meta.Epoch = KindSnapshot, snapshot, j.epoch
	if len(snapshot) == 0 || !json.Valid(snapshot) || len(snapshot) > MaxPayload {
		meta.Payload = json.RawMessage("null")
	}
	items = append(items, item{frame: appendFrame(nil, meta), seq: j.seq + 1})
	items[0].begin, items[0].number, items[0].epoch = true, j.nextFile, j.epoch
	j.nextFile++
	for _, it := range items {
		j.push(it)
	}
	j.segment = headerSize // a large snapshot is no reason to end the segment
}

func (j *Journal) push(it item) {
	j.queue = append(j.queue, it)
	j.queued += len(it.frame)
	j.segment += int64(len(it.frame))
}

func (j *Journal) lose() {
	if j.degraded != nil {
		j.degraded.Lost++
	}
}

func (j *Journal) remember(r Record) {
	j.recent = append(j.recent, r)
	j.recentLen += len(r.Payload)
	drop := 0
	for len(j.recent)-drop > maxRecent || (j.recentLen > maxRecentBytes && len(j.recent)-drop > 1) {
		j.recentLen -= len(j.recent[drop].Payload)
		drop++
	}
	clear(j.recent[:drop]) // so that the memory of their payloads is free
	j.recent = j.recent[drop:]
}

// Recent returns the last n records that were appended by this process, oldest first,
// whether or not the disk has them.
func (j *Journal) Recent(n int) []Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	from := max(0, len(j.recent)-max(n, 0))
	return append([]Record(nil), j.recent[from:]...)
}

// StartEpoch makes the next fact begin a new epoch, for an agent that couldn't use what
// Open returned. It belongs to the goroutine that appends.
func (j *Journal) StartEpoch(reason string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.newEpoch = cmp.Or(reason, "asked for")
}

// Degraded tells whether records are being lost or held up, and why.
func (j *Journal) Degraded() (Degradation, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.degraded != nil:
		return *j.degraded, true
	case j.stalled != nil:
		return *j.stalled, true
	}
	return Degradation{}, false
}

// Stats are the journal's figures for monitoring.
type Stats struct {
	Epoch   uint64 // of the records appended now; one more after each gap
	Records uint64 // number of the last record
	Bytes   int64  // of all segments on disk, as of the last write
}

// Stats never waits for the disk.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Stats{Epoch: j.epoch, Records: j.seq, Bytes: j.disk}
}

// Changed receives after Degraded changed. It has room for one and has one reader.
func (j *Journal) Changed() <-chan struct{} { return j.changed }

// LastSeq is the number of the last record that was appended.
func (j *Journal) LastSeq() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seq
}

// Sync returns nil when every record appended before the call is safe on disk: for
// promises, never on the hot path (safety rule S19). ErrUnavailable: it is not.
// ErrUnknown: ctx ended first. It needs Run to be running.
func (j *Journal) Sync(ctx context.Context) error {
	done := make(chan error, 1)
	j.mu.Lock()
	if j.broken {
		reason := j.gapReason
		j.mu.Unlock()
		return fmt.Errorf("sync journal: %s: %w", reason, ErrUnavailable)
	}
	j.syncs = append(j.syncs, done)
	j.mu.Unlock()
	j.signal(j.wake)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("sync journal: %w: %w", ErrUnknown, ctx.Err())
	}
}

func (j *Journal) signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// breakOff notes that records are lost from a number on.
func (j *Journal) breakOff(from uint64, reason string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.breakLocked(from, reason)
}

func (j *Journal) breakLocked(from uint64, reason string) {
	if !j.broken || from < j.gapFrom {
		j.gapFrom = from
	}
	j.broken, j.gapReason = true, reason
	j.retryAt = time.Now().Add(j.pause)
	j.pause = min(2*j.pause, maxRetryPause)
	if j.degraded == nil {
		j.degraded = &Degradation{Since: time.Now()}
		j.log.Error("journal degraded: records are kept in memory only, fencing and renewal are not affected",
			"journal", j.dir, "why", reason)
		j.signal(j.changed)
	}
	j.degraded.Reason = reason
}
