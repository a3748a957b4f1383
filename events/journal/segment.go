package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A segment is a file NNNNNNNNNNNNNNNN.journal. It begins with
//
//	magic (8) │ format version (4) │ segment number (8) │ epoch (8) │ CRC-32C (4)
//
// and goes on with records, the first of which is a snapshot, after a gap record if
// the epoch is new because of one.
const (
	magic         = "RegentJ\n"
	formatVersion = 1
	headerSize    = 32
	suffix        = ".journal"
	asideMark     = ".aside-"
)

func segmentName(number uint64) string { return fmt.Sprintf("%016d%s", number, suffix) }

func appendHeader(dst []byte, number, epoch uint64) []byte {
	start := len(dst)
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint32(dst, formatVersion)
	dst = binary.LittleEndian.AppendUint64(dst, number)
	dst = binary.LittleEndian.AppendUint64(dst, epoch)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], crcTable))
}

var (
	errHeader  = errors.New("the segment's header isn't readable")
	errVersion = errors.New("the segment has a format that this version doesn't know")
)

func decodeHeader(b []byte) (number, epoch uint64, err error) {
	if len(b) < headerSize || string(b[:8]) != magic ||
		binary.LittleEndian.Uint32(b[28:]) != crc32.Checksum(b[:28], crcTable) {
		return 0, 0, errHeader
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != formatVersion {
		return 0, 0, fmt.Errorf("%w: %d", errVersion, v)
	}
	return binary.LittleEndian.Uint64(b[12:]), binary.LittleEndian.Uint64(b[20:]), nil
}

// segmentFile is a segment's name in a folder.
type segmentFile struct {
	number uint64
	path   string
	size   int64
}

// listSegments returns a folder's segments in order. A folder that doesn't exist has
// none.
func listSegments(dir string) ([]segmentFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("list journal: %w", err)
	}
	var files []segmentFile
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || len(digits) != 16 {
			continue
		}
		number, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // deleted by rotation meanwhile, or none of ours
		}
		files = append(files, segmentFile{number, filepath.Join(dir, e.Name()), info.Size()})
	}
	slices.SortFunc(files, func(a, b segmentFile) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	return files, nil
}

// scan is what one segment holds.
type scan struct {
	number, epoch uint64
	records       []Entry
	// good is the length of the readable part; err why it ends before the file does,
	// nil when it doesn't.
	good int64
	size int64
	err  error
	// more: readable records follow the damage, so it is no torn tail.
	more bool
	// highest sequence number seen, also behind damage.
	highest uint64
}

// Entry is a record with its place.
type Entry struct {
	Record
	Segment uint64
	Offset  int64
}

// scanSegment reads a segment as far as it is whole.
func scanSegment(path string) (scan, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return scan{}, fmt.Errorf("read journal segment: %w", err)
	}
	s := scan{size: int64(len(b))}
	if s.number, s.epoch, s.err = decodeHeader(b); s.err != nil {
		s.more = findFrame(b, &s.highest)
		return s, nil
	}
	at := headerSize
	for at < len(b) {
		r, n, err := decodeFrame(b[at:])
		if err != nil {
			s.err = err
			s.more = findFrame(b[at:], &s.highest)
			break
		}
		s.records = append(s.records, Entry{Record: r, Segment: s.number, Offset: int64(at)})
		s.highest = max(s.highest, r.Seq)
		at += n
	}
	s.good = int64(at)
	return s, nil
}

// findFrame looks for whole records in bytes that begin with damage, and notes the
// highest number among them. A record is recognized by its body's prefix first, which
// keeps the search linear.
func findFrame(b []byte, highest *uint64) bool {
	found := false
	for at := 1; at+frameHeader+len(bodyPrefix) <= len(b); at++ {
		if string(b[at+frameHeader:at+frameHeader+len(bodyPrefix)]) != bodyPrefix {
			continue
		}
		if r, n, err := decodeFrame(b[at:]); err == nil {
			found = true
			*highest = max(*highest, r.Seq)
			at += n - 1
		}
	}
	return found
}
