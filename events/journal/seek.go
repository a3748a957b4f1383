package journal

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"iter"
	"math"
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

// Find returns the segment that holds a moment, nanoseconds since 1970, and before it up
// to n older ones, newest first; the oldest segment when the journal begins later, and
// none when there is none. Of all that were begun by then it is the one whose clock was
// closest, and the newest of those: the clock may have been set back and forth between.
// Where it showed a time twice, the answer is one of the segments that could be meant.
// It reads the first bytes of each segment; a journal has a few hundred.
func Find(dir string, wall int64, n int) ([]Place, error) {
	files, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	found, closest := -1, int64(math.MinInt64)
	for i, f := range files {
		began, ok := beganAt(f.path)
		switch {
		case !ok:
		case found < 0 || began <= wall && began >= closest:
			found = i
			if began <= wall {
				closest = began
			}
		}
	}
	return placesFrom(files, found, n), nil
}

// Newest returns the newest segment, whatever its clock showed, and up to n before it.
func Newest(dir string, n int) ([]Place, error) {
	files, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	return placesFrom(files, len(files)-1, n), nil
}

// placesFrom goes back from a segment; those that can't be read are left out.
func placesFrom(files []segmentFile, from, n int) (out []Place) {
	for i := from; i >= 0 && len(out) <= n; i-- {
		if r, ok := firstRecord(files[i].path); ok {
			out = append(out, Place{Segment: files[i].number, Epoch: r.Epoch, Seq: r.Seq, Wall: r.Wall, path: files[i].path})
		}
	}
	return out
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

// beganAt reads the time of a segment's first record from its first bytes, whose checksum
// it can't verify; whoever uses the segment does.
func beganAt(path string) (wall int64, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	head := make([]byte, headerSize+frameHeader+768) // kind and boot id may be long
	size, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || size < headerSize+frameHeader {
		return 0, false
	}
	if _, _, err := decodeHeader(head[:size]); err != nil {
		return 0, false
	}
	r, _, ok := readPrefix(head[headerSize+frameHeader : size])
	return r.Wall, ok
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
