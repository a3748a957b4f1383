package embedded

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// disk stands between raft and the raft folder, for the day when it can't be written.
//
// Entries that can't be stored aren't confirmed: a leader steps down, and another voter,
// whose disk works, takes over; a follower's vote for entries is missing until its disk
// works again. raft does that, and repeats by itself. A term that can't be stored is
// another matter, because raft panics over it: here the call waits until it can, so that
// this node takes no part in elections, and heals.
type disk struct {
	store  logAndTerms
	speed  *speed
	queued *queued
	dir    string
	log    *throttle
	ctx    context.Context // of the store's life

	mu      sync.Mutex // guards trouble
	trouble error
}

// logAndTerms is what raft keeps in the raft folder.
type logAndTerms interface {
	raft.LogStore
	raft.StableStore
}

// termKey is the one whose loss raft doesn't survive.
const termKey = "CurrentTerm"

// diskRetry is how often a term that couldn't be stored is tried again.
const diskRetry = 500 * time.Millisecond

// note tells about the first of several failures, and about their end.
func (d *disk) note(err error) error {
	d.mu.Lock()
	before := d.trouble
	d.trouble = err
	d.mu.Unlock()
	switch {
	case err != nil:
		what := "the raft folder can't be written: this node confirms nothing and can't lead the store until it can"
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			what = "the disk of the raft folder is full: this node confirms nothing and can't lead the store until there is space"
		}
		d.log.warn(what, d.dir, "dir", d.dir, "err", err)
		return fmt.Errorf("write to %s: %w", d.dir, err)
	case before != nil:
		d.log.logger.Info("the raft folder can be written again", "dir", d.dir)
	}
	return nil
}

// ailing is why the folder couldn't be written the last time, or can't be now; nil if it could.
func (d *disk) ailing() error {
	if under := d.speed.standing(); under > 0 {
		return fmt.Errorf("%w, for %v: %s", errStandsStill, under.Round(time.Millisecond), d.dir)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.trouble
}

// FirstIndex implements raft.LogStore.
func (d *disk) FirstIndex() (uint64, error) { return d.store.FirstIndex() }

// LastIndex implements raft.LogStore.
func (d *disk) LastIndex() (uint64, error) { return d.store.LastIndex() }

// GetLog implements raft.LogStore.
func (d *disk) GetLog(index uint64, entry *raft.Log) error { return d.store.GetLog(index, entry) }

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(entry *raft.Log) error { return d.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (d *disk) StoreLogs(entries []*raft.Log) error {
	d.speed.begin()
	err := d.store.StoreLogs(entries)
	if took := d.speed.end(); took >= d.speed.still {
		d.log.info("the disk of the raft folder went on", d.dir, "dir", d.dir, "stood_still", took.Round(time.Millisecond))
	}
	err = d.note(err)
	if err == nil {
		d.queued.stored(entries...)
	}
	return err
}

// DeleteRange implements raft.LogStore.
func (d *disk) DeleteRange(low, high uint64) error {
	err := d.note(d.store.DeleteRange(low, high))
	if err == nil {
		d.queued.deleted(low, high)
	}
	return err
}

// Get implements raft.StableStore. Its error for what isn't there is not wrapped: raft
// knows it by its text.
func (d *disk) Get(key []byte) ([]byte, error) { return d.store.Get(key) }

// GetUint64 implements raft.StableStore, like Get.
func (d *disk) GetUint64(key []byte) (uint64, error) { return d.store.GetUint64(key) }

// Set implements raft.StableStore.
func (d *disk) Set(key, value []byte) error { return d.note(d.store.Set(key, value)) }

// SetUint64 implements raft.StableStore. For the term it returns only when that is
// stored; if the store is closed before, it ends the goroutine, as raft would the process.
func (d *disk) SetUint64(key []byte, value uint64) error {
	for {
		err := d.note(d.store.SetUint64(key, value))
		if err == nil || string(key) != termKey {
			return err
		}
		if !pause(d.ctx, diskRetry) {
			runtime.Goexit()
		}
	}
}
