package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/pgregent/regent/events"
)

// Record is one line of the journal.
type Record struct {
	// Seq counts facts and derived records without a hole, from 1. A snapshot or gap
	// record repeats the number of the last record that it stands for.
	Seq uint64
	// Covers is how many numbers the record stands for, itself included, when that is
	// more than one: Seq is the last of them. The caller folded what had the others.
	Covers uint64
	// Epoch grows after each gap; a replay never crosses from one to the next.
	Epoch uint64
	// Kind names the payload's type.
	Kind string
	// At is the monotonic time of the fact, comparable only within one Boot.
	At events.Instant
	// Wall is the time for people, nanoseconds since 1970.
	Wall int64
	Boot string
	// Derived: the machine made it from the fact before it; a replay computes it anew
	// and compares.
	Derived bool
	// Payload is JSON, kept byte for byte.
	Payload json.RawMessage
}

// The kinds that the journal writes itself.
const (
	// KindSnapshot holds the state after record Seq, as Options.Snapshot gave it.
	KindSnapshot = "snapshot"
	// KindGap holds a Gap: records that were not written.
	KindGap = "gap"
)

// Gap is the payload of a gap record.
type Gap struct {
	// From and To are the first and last record that may be missing; both 0 when none
	// is known to be, as after damage found at start.
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Reason string `json:"reason"`
}

func (g Gap) payload() json.RawMessage {
	b, err := json.Marshal(g)
	if err != nil {
		return nil // a struct of numbers and a string always marshals
	}
	return b
}

// MaxPayload bounds a record's payload, in bytes.
const MaxPayload = 4 << 20

// maxCovers bounds how much one record may stand for.
const maxCovers = 1 << 32

// ErrRecord is returned for a record that can't be written as it is.
var ErrRecord = errors.New("unusable journal record")

// A record on disk is
//
//	length of body (4 bytes, little endian) │ CRC-32C of length and body (4) │ body
//
// The CRC covers the length, so that a damaged length can't make a reader skip over
// good records and call it fine. The body is JSON with a fixed prefix.
const (
	frameHeader = 8
	maxBody     = MaxPayload + 4096
	bodyPrefix  = `{"seq":`
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// appendFrame encodes a record behind dst. The payload must be valid JSON.
func appendFrame(dst []byte, r Record) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, frameHeader)...)
	dst = append(dst, bodyPrefix...)
	dst = strconv.AppendUint(dst, r.Seq, 10)
	if r.Covers > 1 {
		dst = append(dst, `,"covers":`...)
		dst = strconv.AppendUint(dst, r.Covers, 10)
	}
	dst = append(dst, `,"epoch":`...)
	dst = strconv.AppendUint(dst, r.Epoch, 10)
	dst = append(dst, `,"kind":`...)
	dst = appendText(dst, r.Kind)
	dst = append(dst, `,"at":`...)
	dst = strconv.AppendInt(dst, int64(r.At), 10)
	dst = append(dst, `,"wall":`...)
	dst = strconv.AppendInt(dst, r.Wall, 10)
	dst = append(dst, `,"boot":`...)
	dst = appendText(dst, r.Boot)
	if r.Derived {
		dst = append(dst, `,"derived":true`...)
	}
	if len(r.Payload) > 0 {
		dst = append(dst, `,"payload":`...)
		dst = append(dst, r.Payload...)
	}
	dst = append(dst, '}')
	frame := dst[start:]
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-frameHeader))
	binary.LittleEndian.PutUint32(frame[4:], frameSum(frame))
	return dst
}

// appendText writes a JSON string. Marshalling a string can't fail.
func appendText(dst []byte, s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		return append(dst, `""`...)
	}
	return append(dst, b...)
}

func frameSum(frame []byte) uint32 {
	sum := crc32.Update(0, crcTable, frame[:4])
	return crc32.Update(sum, crcTable, frame[frameHeader:])
}

// The ways in which reading a frame ends.
var (
	// errTorn: fewer bytes than the frame says; at the end of a file that is a write
	// which was cut short.
	errTorn = errors.New("the record is cut short")
	// errSum: the bytes are there and are not what was written.
	errSum = errors.New("the record's checksum doesn't match")
	// errBody: the checksum matches and the body is no record; a foreign writer.
	errBody = errors.New("the record's body isn't readable")
)

// diskRecord mirrors the body.
type diskRecord struct {
	Seq     uint64          `json:"seq"`
	Covers  uint64          `json:"covers"`
	Epoch   uint64          `json:"epoch"`
	Kind    string          `json:"kind"`
	At      events.Instant  `json:"at"`
	Wall    int64           `json:"wall"`
	Boot    string          `json:"boot"`
	Derived bool            `json:"derived"`
	Payload json.RawMessage `json:"payload"`
}

// decodeFrame reads the frame at the beginning of b and returns its length.
func decodeFrame(b []byte) (Record, int, error) {
	if len(b) < frameHeader {
		return Record{}, 0, errTorn
	}
	n := binary.LittleEndian.Uint32(b)
	if n < uint32(len(bodyPrefix)) || n > maxBody {
		return Record{}, 0, errSum
	}
	size := frameHeader + int(n)
	if len(b) < size {
		return Record{}, 0, errTorn
	}
	frame := b[:size]
	if binary.LittleEndian.Uint32(frame[4:]) != frameSum(frame) {
		return Record{}, 0, errSum
	}
	if r, ok := readBody(frame[frameHeader:]); ok {
		return r, size, nil
	}
	var d diskRecord
	if err := json.Unmarshal(frame[frameHeader:], &d); err != nil {
		return Record{}, 0, fmt.Errorf("%w: %w", errBody, err)
	}
	return Record(d), size, nil
}

// readBody reads a body that is written as appendFrame writes it, many times faster than
// a JSON decoder does: a search reads a great many records to tell of a few. The payload
// is what lies between: it was JSON when it was appended, and the checksum says that it
// still is what it was. It shares b's memory.
func readBody(b []byte) (r Record, ok bool) {
	r, c, _ := readPrefix(b)
	c.skip(`,"boot":"`)
	r.Boot = c.plain()
	r.Derived = c.has(`,"derived":true`)
	if c.has(`,"payload":`) {
		if len(c.b) < 2 {
			return Record{}, false
		}
		r.Payload, c.b = c.b[:len(c.b)-1:len(c.b)-1], c.b[len(c.b)-1:]
	}
	return r, c.ok && string(c.b) == "}"
}

// readPrefix reads a body up to its time, and leaves the cursor behind that.
func readPrefix(b []byte) (r Record, c cursor, ok bool) {
	c = cursor{b: b, ok: true}
	c.skip(bodyPrefix)
	r.Seq = c.unsigned()
	if c.has(`,"covers":`) {
		r.Covers = c.unsigned()
	}
	c.skip(`,"epoch":`)
	r.Epoch = c.unsigned()
	c.skip(`,"kind":"`)
	r.Kind = c.plain()
	c.skip(`,"at":`)
	r.At = events.Instant(c.signed())
	c.skip(`,"wall":`)
	r.Wall = c.signed()
	return r, c, c.ok
}

// cursor reads the rest of a body piece by piece; ok ends at the first that is not as
// expected.
type cursor struct {
	b  []byte
	ok bool
}

func (c *cursor) has(text string) bool {
	if len(c.b) < len(text) || string(c.b[:len(text)]) != text {
		return false
	}
	c.b = c.b[len(text):]
	return true
}

func (c *cursor) skip(text string) { c.ok = c.has(text) && c.ok }

// digits takes a number in the only form in which it is written.
func (c *cursor) digits() string {
	n := 0
	for n < len(c.b) && (c.b[n] >= '0' && c.b[n] <= '9' || n == 0 && c.b[n] == '-') {
		n++
	}
	text := string(c.b[:n])
	c.b = c.b[n:]
	return text
}

func (c *cursor) unsigned() uint64 {
	text := c.digits()
	n, err := strconv.ParseUint(text, 10, 64)
	c.ok = c.ok && err == nil && strconv.FormatUint(n, 10) == text
	return n
}

func (c *cursor) signed() int64 {
	text := c.digits()
	n, err := strconv.ParseInt(text, 10, 64)
	c.ok = c.ok && err == nil && strconv.FormatInt(n, 10) == text
	return n
}

// plain takes a string that needs no escapes, and the quote that ends it.
func (c *cursor) plain() string {
	for n, x := range c.b {
		switch {
		case x == '"':
			text := string(c.b[:n])
			c.b = c.b[n+1:]
			return text
		case x == '\\' || x < ' ' || x > '~':
			c.ok = false
			return ""
		}
	}
	c.ok = false
	return ""
}

// First is the smallest of the numbers that the record stands for.
func (r Record) First() uint64 { return r.Seq + 1 - r.width() }

// width is how many numbers the record stands for.
func (r Record) width() uint64 { return min(max(r.Covers, 1), max(r.Seq, 1)) }

// checkRecord refuses what couldn't be read back.
func checkRecord(r Record) error {
	switch {
	case r.Covers > maxCovers:
		return fmt.Errorf("%w: %s stands for %d records", ErrRecord, r.Kind, r.Covers)
	case r.Kind == "" || len(r.Kind) > 256 || len(r.Boot) > 256:
		return fmt.Errorf("%w: its kind or boot id has a bad length", ErrRecord)
	case len(r.Payload) > MaxPayload:
		return fmt.Errorf("%w: %s has %d bytes, the limit is %d", ErrRecord, r.Kind, len(r.Payload), MaxPayload)
	case len(r.Payload) > 0 && !json.Valid(r.Payload):
		return fmt.Errorf("%w: the payload of %s isn't JSON", ErrRecord, r.Kind)
	}
	return nil
}

func decodeGap(payload json.RawMessage) Gap {
	var g Gap
	if err := json.Unmarshal(payload, &g); err != nil {
		return Gap{Reason: "unreadable"}
	}
	return g
}
