package journal

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"sort"
)

// Place is where reading may begin: a segment, by what its first record says.
type Place struct {
	Segment uint64
	Epoch   uint64
	// Seq is the number up to which the segment's snapshot stands for what was before.
	Seq uint64
	// Wall is when the segment was begun, nanoseconds since 1970.
	Wall int64
	path string
}

// Find returns the segment that holds a moment, nanoseconds since 1970, and before it up
// to n older ones, newest first; the oldest segment when the journal begins later, and
// none when there is none. It reads the first records of a few: times are taken to grow
// from segment to segment. Where the clock was set back they don't, and then the answer
// is one of the segments that could be meant.
func Find(dir string, wall int64, n int) ([]Place, error) {
	files, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	place := func(f segmentFile) (Place, bool) {
		r, ok := firstRecord(f.path)
		return Place{Segment: f.number, Epoch: r.Epoch, Seq: r.Seq, Wall: r.Wall, path: f.path}, ok
	}
	later := sort.Search(len(files), func(i int) bool {
		// One that can't be read is taken for as old as the next that can.
		for ; i < len(files); i++ {
			if p, ok := place(files[i]); ok {
				return p.Wall > wall
			}
		}
		return true
	})
	var out []Place
	for i := max(later-1, 0); i >= 0 && i < len(files) && len(out) <= n; i-- {
		if p, ok := place(files[i]); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// Read iterates over the records of one segment, as the package's Read does over all. A
// segment that rotation has deleted meanwhile has none.
func (p Place) Read() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		s, err := scanSegment(p.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return
		case err != nil:
			yield(Entry{}, err)
			return
		}
		for _, e := range s.records {
			if !yield(e, nil) {
				return
			}
		}
		if s.err != nil && s.more {
			yield(Entry{}, &Damage{Segment: p.Segment, Offset: s.good, Cause: s.err})
		}
	}
}

// firstRecord reads what a segment begins with.
func firstRecord(path string) (Record, bool) {
	f, err := os.Open(path)
	if err != nil {
		return Record{}, false
	}
	defer f.Close()
	head := make([]byte, headerSize+frameHeader)
	if _, err := io.ReadFull(f, head); err != nil {
		return Record{}, false
	}
	if _, _, err := decodeHeader(head); err != nil {
		return Record{}, false
	}
	n := binary.LittleEndian.Uint32(head[headerSize:])
	if n > maxBody {
		return Record{}, false
	}
	frame := append(head[headerSize:], make([]byte, n)...)
	if _, err := io.ReadFull(f, frame[frameHeader:]); err != nil {
		return Record{}, false
	}
	r, _, err := decodeFrame(frame)
	return r, err == nil
}
