package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// file is what the writer needs of a segment.
type file interface {
	Write(p []byte) (int, error)
	Sync() error
	Truncate(size int64) error
	Close() error
}

func createFile(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// takeLock makes this process the folder's only writer.
func (j *Journal) takeLock() error {
	if j.lock != nil {
		return nil
	}
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return fmt.Errorf("create journal folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(j.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock journal: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		closeErr := f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("journal %s is written by another process: %w", j.dir, ErrRefused)
		}
		return errors.Join(fmt.Errorf("lock journal: %w", err), closeErr)
	}
	j.lock = f
	return nil
}

// Run writes what is appended until ctx ends, then writes the rest, syncs, and gives
// the folder back. It returns nil, or ErrUnavailable when the rest could not be
// written. If the disk hangs, Run returns after CloseTimeout with ErrUnknown and leaves
// its writer behind, stuck in the kernel: the process is about to end, and must not
// wait for a dead disk with PostgreSQL's stop ahead.
func (j *Journal) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- j.write(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(j.opt.CloseTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("close journal: the disk doesn't answer: %w", ErrUnknown)
	}
}

// writer is the state of the goroutine that writes. Nothing else touches it.
type writer struct {
	j      *Journal
	file   file // nil between a failure and the next segment
	path   string
	offset int64 // bytes of file known to be written
	dirty  bool  // since the last sync
	others int64 // bytes of the other segments
	buf    []byte
}

func (j *Journal) write(ctx context.Context) error {
	w := &writer{j: j}
	for {
		select {
		case <-j.wake:
			w.drain()
			continue
		case <-ctx.Done():
		}
		w.drain()
		return w.close()
	}
}

// drain writes everything that is queued and answers the syncs that were asked for
// before.
func (w *writer) drain() {
	j := w.j
	for {
		j.mu.Lock()
		items, syncs := j.queue, j.syncs
		j.queue, j.queued, j.syncs = nil, 0, nil
		broken, reason := j.broken, j.gapReason
		j.mu.Unlock()
		if len(items) == 0 && len(syncs) == 0 {
			return
		}
		var err error
		if len(items) > 0 {
			err = w.guarded(func() error { return w.writeItems(items) })
		}
		if err == nil && len(syncs) > 0 {
			switch {
			case broken && len(items) == 0:
				err = errors.New(reason)
			case w.file != nil:
				err = w.guarded(w.sync)
			}
		}
		for _, done := range syncs {
			if err != nil {
				done <- fmt.Errorf("sync journal: %w: %w", err, ErrUnavailable)
				continue
			}
			done <- nil
		}
		switch {
		case err != nil:
			w.fail(items, err)
		case len(items) > 0:
			w.succeed()
		}
	}
}

// guarded runs a call to the disk and marks the journal as stalled while it lasts too
// long.
func (w *writer) guarded(call func() error) error {
	j, began, finished := w.j, time.Now(), false // finished is guarded by j.mu
	stall := time.AfterFunc(j.opt.StallAfter, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if finished {
			return
		}
		j.stalled = &Degradation{Since: began, Reason: "the disk doesn't answer"}
		j.signal(j.changed)
	})
	err := call()
	stall.Stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	finished = true
	if j.stalled != nil {
		j.stalled = nil
		j.signal(j.changed)
	}
	return err
}

func (w *writer) writeItems(items []item) error {
	w.buf = w.buf[:0]
	for _, it := range items {
		if it.begin {
			if err := w.begin(it); err != nil {
				return err
			}
		}
		w.buf = append(w.buf, it.frame...)
	}
	return w.flush()
}

func (w *writer) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if w.file == nil {
		return errors.New("no segment is open")
	}
	n, err := w.file.Write(w.buf)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	w.offset += int64(n)
	w.dirty = true
	w.buf = w.buf[:0]
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	w.j.disk = w.others + w.offset
	return nil
}

// begin ends the current segment and starts the next.
func (w *writer) begin(it item) error {
	if w.file != nil {
		if err := w.flush(); err != nil {
			return err
		}
		if err := w.sync(); err != nil {
			return err
		}
		if err := w.file.Close(); err != nil {
			return fmt.Errorf("close journal segment: %w", err)
		}
		w.file = nil
	}
	if err := w.takeFolder(); err != nil {
		return err
	}
	w.prune()
	path := filepath.Join(w.j.dir, segmentName(it.number))
	f, err := w.j.opt.create(path)
	if err != nil {
		return fmt.Errorf("begin journal segment: %w", err)
	}
	w.file, w.path, w.offset, w.dirty = f, path, 0, true
	w.buf = appendHeader(w.buf, it.number, it.epoch)
	return nil
}

// takeFolder does what Open couldn't: it locks the folder and reads which numbers are
// taken. The segment that was about to begin has its own numbers already, so this
// attempt fails and the next fact makes a new one.
func (w *writer) takeFolder() error {
	j := w.j
	if err := j.takeLock(); err != nil {
		return err
	}
	if !j.blind {
		return nil
	}
	r, err := recoverDir(j.dir)
	if err != nil {
		return err
	}
	j.blind = false
	j.mu.Lock()
	defer j.mu.Unlock()
	j.nextFile = max(j.nextFile, r.next)
	j.epoch = max(j.epoch, r.out.Epoch)
	return errBack
}

var errBack = errors.New("the journal's folder is back")

// maxSegments bounds the number of files, which restarts in a row would raise.
const maxSegments = 8192

// prune deletes the oldest segments until a new one fits. The newest always stays.
func (w *writer) prune() {
	files, err := listSegments(w.j.dir)
	if err != nil {
		w.j.log.Warn("journal not pruned", "journal", w.j.dir, "err", err)
		return
	}
	var total int64
	for _, f := range files {
		total += f.size
	}
	limit := w.j.opt.MaxSize - w.j.opt.segmentSize()
	for len(files) > 1 && (total > limit || len(files) >= maxSegments) {
		if err := os.Remove(files[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.j.log.Warn("journal not pruned", "journal", w.j.dir, "err", err)
			return
		}
		total -= files[0].size
		files = files[1:]
	}
	w.others = total
}

// sync makes the segment and its name survive a power loss.
func (w *writer) sync() error {
	if !w.dirty {
		return nil
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("sync journal: %w", err)
	}
	d, err := os.Open(w.j.dir)
	if err != nil {
		return fmt.Errorf("sync journal folder: %w", err)
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("sync journal folder: %w", err)
	}
	w.dirty = false
	return nil
}

// fail gives the segment up. After a failed write or sync nobody knows what the file
// holds, and a second sync of the same file may lie, so it is never written again: the
// next epoch begins in a new one.
func (w *writer) fail(items []item, cause error) {
	if w.file != nil {
		// Best effort: readers and Open stop at a torn record anyway.
		if err := w.file.Truncate(w.offset); err != nil {
			w.j.log.Debug("journal segment not truncated", "journal", w.path, "err", err)
		}
		if err := w.file.Close(); err != nil {
			w.j.log.Debug("journal segment not closed", "journal", w.path, "err", err)
		}
		if w.offset == 0 { // not even a header: leave no trace
			if err := os.Remove(w.path); err != nil {
				w.j.log.Debug("empty journal segment not removed", "journal", w.path, "err", err)
			}
		}
		w.file = nil
	}
	w.buf = w.buf[:0]
	j := w.j
	j.mu.Lock()
	defer j.mu.Unlock()
	items = append(items, j.queue...)
	j.queue, j.queued, j.segment = nil, 0, 0
	from := j.seq + 1
	if len(items) > 0 {
		from = items[0].seq
		if items[0].gapFrom > 0 {
			from = items[0].gapFrom
		}
	}
	for _, done := range j.syncs { // they asked for what was just given up
		done <- fmt.Errorf("sync journal: %w: %w", cause, ErrUnavailable)
	}
	j.syncs = nil
	j.breakLocked(from, cause.Error())
	j.degraded.Lost += uint64(len(items))
	if errors.Is(cause, errBack) {
		j.retryAt = time.Time{}
	}
}

// succeed ends a degradation once the disk took a batch that closes the gap.
func (w *writer) succeed() {
	j := w.j
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		j.retryAt = time.Time{} // stalled, not failed: try at once
		return
	}
	j.pause = j.opt.RetryAfter
	if j.degraded != nil {
		j.log.Info("journal writes again", "journal", j.dir, "lost", j.degraded.Lost)
		j.degraded = nil
		j.signal(j.changed)
	}
}

// close ends the last segment and gives the folder back.
func (w *writer) close() error {
	var errs []error
	if w.file != nil {
		errs = append(errs, w.sync(), w.file.Close())
	}
	if w.j.lock != nil {
		// Closing alone would leave the lock with a child of this process that is being started and
		// hasn't become its program yet: it has a copy of every open file until then.
		errs = append(errs, unix.Flock(int(w.j.lock.Fd()), unix.LOCK_UN), w.j.lock.Close())
		w.j.lock = nil
	}
	if _, bad := w.j.Degraded(); bad {
		errs = append(errs, errors.New("records were lost"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close journal: %w: %w", err, ErrUnavailable)
	}
	return nil
}
