package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
)

// Damage is the error for a place where a segment can't be read. Reading goes on with
// the next segment, which begins with a snapshot.
type Damage struct {
	Segment uint64
	Offset  int64
	Cause   error
}

// Error names the place and the cause.
func (d *Damage) Error() string {
	return fmt.Sprintf("journal segment %d, byte %d: %v", d.Segment, d.Offset, d.Cause)
}

// Unwrap returns the cause.
func (d *Damage) Unwrap() error { return d.Cause }

// Read iterates over a journal's records, oldest first, those of the journal itself
// (snapshots and gaps) included. A place that can't be read yields a *Damage and no
// record; the torn end of the newest segment, which may just be in the writing, is no
// damage. It may be called while another process writes; records appended after the
// call began may be missing.
func Read(dir string) iter.Seq2[Entry, error] {
	return ReadFrom(dir, 0)
}

// ReadFrom is Read beginning with the newest segment whose snapshot isn't younger than
// record seq: enough to rebuild the state at seq.
func ReadFrom(dir string, seq uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		stopped := errors.New("the reader stopped")
		err := walk(dir, seq, func(f segmentFile, s scan, w where) error {
			for _, e := range s.records {
				if !yield(e, nil) {
					return stopped
				}
			}
			if s.err == nil || w.newest && !s.more {
				return nil
			}
			if !yield(Entry{}, &Damage{Segment: f.number, Offset: s.good, Cause: s.err}) {
				return stopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, stopped) {
			yield(Entry{}, err)
		}
	}
}

// where tells a visitor of walk about a segment's place.
type where struct {
	newest bool
	// jumped: segments between the one before and this one were deleted by rotation
	// while they were about to be read.
	jumped bool
}

// walk visits the segments in order, from the one that ReadFrom describes. A writer may
// rotate away what was listed a moment ago; then it goes on with what is there.
func walk(dir string, seq uint64, visit func(segmentFile, scan, where) error) error {
	files, err := listSegments(dir)
	if err != nil {
		return err
	}
	w := where{}
	for i := startSegment(files, seq); i < len(files); {
		s, err := scanSegment(files[i].path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			gone := files[i].number
			if files, err = listSegments(dir); err != nil {
				return err
			}
			for i = 0; i < len(files) && files[i].number <= gone; i++ {
			}
			w.jumped = true
			continue
		case err != nil:
			s = scan{number: files[i].number, err: err, more: true}
		}
		w.newest = i == len(files)-1
		if err := visit(files[i], s, w); err != nil {
			return err
		}
		w.jumped = false
		i++
	}
	return nil
}

// startSegment finds the newest segment that begins at or before record seq.
func startSegment(files []segmentFile, seq uint64) int {
	if seq == 0 {
		return 0
	}
	for i := len(files) - 1; i > 0; i-- {
		if r, ok := firstRecord(files[i].path); ok && r.Seq < seq {
			return i
		}
	}
	return 0
}

// Tail returns the last n records of facts and decisions, oldest first.
func Tail(dir string, n int) ([]Entry, error) {
	var out []Entry
	err := walk(dir, 0, func(_ segmentFile, s scan, _ where) error {
		for _, e := range s.records {
			if e.Kind != KindSnapshot && e.Kind != KindGap {
				out = append(out, e)
			}
		}
		out = append([]Entry(nil), out[max(0, len(out)-n):]...)
		return nil
	})
	return out, err
}

// SegmentReport is what Verify found in one segment.
type SegmentReport struct {
	Name              string
	Number, Epoch     uint64
	FirstSeq, LastSeq uint64
	Records           int
	Bytes             int64
	// Problem is empty for a whole segment; Offset is where it begins to matter.
	Problem string
	Offset  int64
}

// Report is the result of Verify.
type Report struct {
	Segments []SegmentReport
	// Gaps are the marked holes, with the epoch that begins after each.
	Gaps []EpochGap
	// Problems are sentences about what is wrong; empty for a sound journal. A marked
	// gap is none: it is an honest journal of a bad disk.
	Problems []string
}

// EpochGap is a marked hole.
type EpochGap struct {
	Epoch uint64
	Gap   Gap
}

// OK reports that nothing unmarked is missing.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// Verify reads a whole journal and checks checksums, numbering, epochs and snapshots.
func Verify(dir string) (Report, error) {
	v := verifier{}
	err := walk(dir, 0, v.segment)
	return v.report, err
}

type verifier struct {
	report Report
	seq    uint64 // of the last record; meaningless until known
	epoch  uint64
	known  bool
}

func (v *verifier) problem(s SegmentReport, format string, args ...any) {
	v.report.Problems = append(v.report.Problems, s.Name+": "+fmt.Sprintf(format, args...))
}

func (v *verifier) segment(f segmentFile, s scan, w where) error {
	if w.jumped {
		v.known = false
	}
	r := SegmentReport{Name: filepath.Base(f.path), Number: f.number, Epoch: s.epoch, Records: len(s.records), Bytes: s.size}
	switch {
	case s.err == nil:
	case w.newest && !s.more && (s.good > 0 || s.size < headerSize):
		r.Problem, r.Offset = "torn end, or being written", s.good
	default:
		r.Problem, r.Offset = s.err.Error(), s.good
		v.problem(r, "%v at byte %d", s.err, s.good)
	}
	if s.good > 0 && s.number != f.number {
		v.problem(r, "its header says segment %d", s.number)
	}
	for i, e := range s.records {
		v.record(r, i, e)
	}
	if n := len(s.records); n > 0 {
		r.FirstSeq, r.LastSeq = s.records[0].Seq, s.records[n-1].Seq
	}
	v.report.Segments = append(v.report.Segments, r)
	return nil
}

func (v *verifier) record(s SegmentReport, index int, e Entry) {
	switch {
	case e.Kind == KindGap:
		g := EpochGap{Epoch: e.Epoch, Gap: decodeGap(e.Payload)}
		v.report.Gaps = append(v.report.Gaps, g)
		if index != 0 {
			v.problem(s, "a gap record in the middle, at byte %d", e.Offset)
		}
		v.known = false
	case e.Kind == KindSnapshot:
		if index > 1 {
			v.problem(s, "a snapshot in the middle, at byte %d", e.Offset)
		}
		if v.known && e.Seq != v.seq {
			v.problem(s, "the snapshot is at record %d, the records before it end at %d", e.Seq, v.seq)
		}
		v.seq, v.known = e.Seq, true
	default:
		if index == 0 {
			v.problem(s, "no snapshot at the beginning")
		} else if v.known && e.First() != v.seq+1 {
			v.problem(s, "record %d follows record %d, at byte %d", e.First(), v.seq, e.Offset)
		}
		v.seq, v.known = e.Seq, true
	}
	if e.Epoch < v.epoch {
		v.problem(s, "epoch %d after epoch %d, at byte %d", e.Epoch, v.epoch, e.Offset)
	}
	v.epoch = max(v.epoch, e.Epoch)
}
