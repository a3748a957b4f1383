package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Recovered is what Open found.
type Recovered struct {
	// Snapshot is the newest one, nil when the journal holds none: then the agent
	// begins with an empty state, which is always legal and safe (safety rule S19).
	Snapshot *Record
	// Records follow the snapshot, derived ones included, in order.
	Records []Record
	// LastSeq and Epoch of the last record; 0 for a new journal.
	LastSeq, Epoch uint64
	// Segments that are in use.
	Segments int
	// Truncated counts the bytes of torn records that were cut off.
	Truncated int64
	// SetAside names the files into which damaged parts were moved. They are kept for
	// a person to look at and never read again.
	SetAside []string
	// Problems tell in words what was repaired, and what could not be.
	Problems []string
}

// maxAside bounds the files that are set aside, so that a failing disk can't fill up
// with its own rubble. The oldest go first.
const maxAside = 4

// recovery repairs a folder.
type recovery struct {
	dir     string
	out     Recovered
	damaged bool // records are missing behind the newest snapshot: a new epoch is due
	next    uint64
}

func (r *recovery) problem(format string, args ...any) {
	r.out.Problems = append(r.out.Problems, fmt.Sprintf(format, args...))
}

// recoverDir repairs the segments and collects what follows the newest snapshot. It
// fails only when the folder can't be listed.
func recoverDir(dir string) (recovery, error) {
	r := recovery{dir: dir, next: 1}
	files, err := listSegments(dir)
	if err != nil {
		return r, err
	}
	var entries []Entry
	for _, f := range files {
		r.next = max(r.next, f.number+1)
		s, err := scanSegment(f.path)
		if err != nil {
			r.problem("%v", err)
			r.damaged = true
			continue
		}
		r.out.LastSeq = max(r.out.LastSeq, s.highest)
		r.out.Epoch = max(r.out.Epoch, s.epoch)
		if r.repair(f, s) {
			r.out.Segments++
		}
		entries = sinceSnapshot(append(entries, s.records...))
	}
	r.collect(entries)
	return r, nil
}

// sinceSnapshot drops what precedes the newest snapshot: all segments are read, and a folder may
// hold far more than an agent should need while it starts. Without a snapshot everything stays.
func sinceSnapshot(entries []Entry) []Entry {
	for i := len(entries) - 1; i > 0; i-- {
		if entries[i].Kind == KindSnapshot {
			return slices.Clone(entries[i:]) // the rest, and the files it was read from, can be freed
		}
	}
	return entries
}

// repair makes a segment whole: a torn tail is cut off, anything worse is set aside.
// It reports whether the segment is still in use.
func (r *recovery) repair(f segmentFile, s scan) bool {
	switch {
	case s.err == nil:
		return true
	case s.good == 0 && s.size == 0:
		// Created, and the machine died before the header came.
		r.must(os.Remove(f.path))
		return false
	case s.good == 0:
		r.setAside(f.path, f.path+asideMark+"0", s.err)
		return false
	case !s.more:
		// The end of a write that a crash or a full disk cut short: nothing readable
		// is lost by forgetting it.
		r.problem("%s: %v at byte %d, %d bytes cut off", filepath.Base(f.path), s.err, s.good, s.size-s.good)
		r.out.Truncated += s.size - s.good
		r.must(os.Truncate(f.path, s.good))
		return true
	default:
		r.copyRest(f.path, s)
		return true
	}
}

func (r *recovery) must(err error) {
	if err != nil {
		r.problem("repair: %v", err)
	}
}

func (r *recovery) setAside(path, aside string, cause error) {
	if err := os.Rename(path, aside); err != nil {
		r.problem("%s: %v; set aside: %v", filepath.Base(path), cause, err)
		return
	}
	r.problem("%s: %v; set aside as %s", filepath.Base(path), cause, filepath.Base(aside))
	r.out.SetAside = append(r.out.SetAside, aside)
}

// copyRest saves what follows the damage under another name before it is cut off. When
// it can't be saved the segment stays as it is: readers stop at the damage anyway.
func (r *recovery) copyRest(path string, s scan) {
	aside := fmt.Sprintf("%s%s%d", path, asideMark, s.good)
	b, err := os.ReadFile(path)
	if err == nil && int64(len(b)) >= s.good {
		err = os.WriteFile(aside, b[s.good:], 0o600)
	}
	if err != nil {
		r.problem("%s: %v at byte %d; the rest could not be set aside: %v", filepath.Base(path), s.err, s.good, err)
		return
	}
	r.problem("%s: %v at byte %d; the rest is set aside as %s", filepath.Base(path), s.err, s.good, filepath.Base(aside))
	r.out.SetAside = append(r.out.SetAside, aside)
	r.must(os.Truncate(path, s.good))
}

// collect takes the newest snapshot and what follows it without a hole.
func (r *recovery) collect(entries []Entry) {
	for i := len(entries) - 1; i >= 0; i-- {
		if entries[i].Kind != KindSnapshot {
			continue
		}
		snapshot := entries[i].Record
		r.out.Snapshot = &snapshot
		seq := snapshot.Seq
		for _, e := range entries[i+1:] {
			if e.First() != seq+1 || e.Kind == KindGap {
				r.damaged = true
				break
			}
			seq = e.Seq
			r.out.Records = append(r.out.Records, e.Record)
		}
		if seq != r.out.LastSeq {
			r.damaged = true
		}
		return
	}
	r.damaged = r.damaged || len(entries) > 0
}

// pruneAside deletes the oldest files set aside beyond maxAside.
func pruneAside(dir string) error {
	names, err := fs.Glob(os.DirFS(dir), "*"+asideMark+"*")
	if err != nil || len(names) <= maxAside {
		return err
	}
	slices.SortFunc(names, strings.Compare)
	var errs []error
	for _, name := range names[:len(names)-maxAside] {
		errs = append(errs, os.Remove(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}
