package journal

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
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

// Places lists a journal's segments, oldest first, at the price of reading one record of
// each. One whose beginning can't be read is left out.
func Places(dir string) ([]Place, error) {
	files, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	out := make([]Place, 0, len(files))
	for _, f := range files {
		if r, ok := firstRecord(f.path); ok {
			out = append(out, Place{Segment: f.number, Epoch: r.Epoch, Seq: r.Seq, Wall: r.Wall, path: f.path})
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
