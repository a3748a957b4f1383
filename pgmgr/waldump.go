package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/pgregent/regent/events"
)

// walRecord is what pg_waldump says about one record.
type walRecord struct {
	start, end events.LSN
	shutdown   bool // a shutdown checkpoint
}

// errNoRecord: there is no valid record at or after the position on that timeline.
var errNoRecord = errors.New("no valid WAL record")

// walRecordAt finds the first valid record at or after a position in this host's
// WAL of one timeline, errNoRecord if there is none. Only the record's page and
// what belongs to it is read, so it takes milliseconds however much WAL there is. A
// recycled or half-written segment doesn't pass for WAL: page addresses and
// checksums are verified.
func (m *Manager) walRecordAt(ctx context.Context, c ControlData, tl events.Timeline, at events.LSN) (walRecord, error) {
	wal := filepath.Join(m.config().DataDir, "pg_wal")
	segment := c.walFile(tl, at)
	if !exists(filepath.Join(wal, segment)) {
		return walRecord{}, errNoRecord
	}
	// The segment is named, because pg_waldump otherwise learns the size of segments
	// from whichever file the folder lists first, and one that was prepared for later
	// and never written holds zeros. The next segment is named for a record that goes
	// on there.
	args := []string{"--path=" + wal, "--start=" + at.String(), "--limit=1", segment}
	if next := c.walFile(tl, at+events.LSN(c.WALSegmentSize)); exists(filepath.Join(wal, next)) {
		args = append(args, next)
	}
	out, err := m.run(ctx, tool{name: "pg_waldump", args: args})
	if err != nil {
		switch {
		case ctx.Err() != nil || hasClass(err):
			return walRecord{}, orClassed(ErrUnavailable, "read WAL", err)
		case strings.Contains(out, "could not find a valid record after"):
			return walRecord{}, errNoRecord
		case strings.Contains(out, "could not find file"), emptySegment(out, segment):
			// A record that goes on in a segment that isn't there, or a segment of zeros.
			return walRecord{}, errNoRecord
		}
		return walRecord{}, classed(ErrUnavailable, "read WAL", err)
	}
	return parseWALRecord(out, c)
}

// emptySegment recognizes pg_waldump's complaint about a segment whose header is
// zeros, in the words of PostgreSQL up to 15 and since.
func emptySegment(out, segment string) bool {
	return strings.Contains(out, `"`+segment+`"`) &&
		(strings.Contains(out, "WAL segment size must be a power of two") || strings.Contains(out, "invalid WAL segment size"))
}

// parseWALRecord reads a line like
//
//	rmgr: XLOG  len (rec/tot): 114/ 114, tx: 0, lsn: 0/050456D0, prev 0/…, desc: CHECKPOINT_SHUTDOWN …
func parseWALRecord(out string, c ControlData) (walRecord, error) {
	match := regexp.MustCompile(`rmgr: (\S+)\s+len \(rec/tot\):\s*\d+/\s*(\d+),.* lsn: ([0-9A-F]+/[0-9A-F]+), .*desc: (\S+)`).FindStringSubmatch(out)
	if match == nil {
		return walRecord{}, classed(ErrBroken, "read WAL", fmt.Errorf("unexpected output of pg_waldump: %s", lastLines(out, 1)))
	}
	start, err := events.ParseLSN(match[3])
	if err != nil {
		return walRecord{}, classed(ErrBroken, "read WAL", err)
	}
	total, err := strconv.ParseUint(match[2], 10, 32)
	if err != nil {
		return walRecord{}, classed(ErrBroken, "read WAL", err)
	}
	return walRecord{
		start: start, end: c.recordEnd(start, total),
		shutdown: match[1] == "XLOG" && strings.HasPrefix(match[4], "CHECKPOINT_SHUTDOWN"),
	}, nil
}

// walFile is the name of the segment that holds a position.
func (c ControlData) walFile(tl events.Timeline, at events.LSN) string {
	size := uint64(max(c.WALSegmentSize, 1))
	segment := uint64(at) / size
	perID := (uint64(1) << 32) / size
	return fmt.Sprintf("%08X%08X%08X", uint32(tl), segment/perID, segment%perID)
}

// Sizes of what PostgreSQL puts at the start of each WAL page, the first of a
// segment having the longer one, and its alignment of records. They have been the
// same since PostgreSQL 9.3, on every 64-bit platform.
const (
	walShortHeader = 24
	walLongHeader  = 40
	walAlign       = 8
)

// recordEnd is where the next record may begin: the position that a standby's flush
// position reaches when it has the whole record. A record that fills its page ends
// at the page's end, before the next page's header.
func (c ControlData) recordEnd(start events.LSN, total uint64) events.LSN {
	page, segment := uint64(c.WALBlockSize), uint64(c.WALSegmentSize)
	pos, left := uint64(start), total
	for {
		room := page - pos%page
		if left <= room {
			end := pos + left
			return events.LSN((end + walAlign - 1) / walAlign * walAlign)
		}
		left -= room
		pos += room
		if pos%segment == 0 {
			pos += walLongHeader
		} else {
			pos += walShortHeader
		}
	}
}

// ShutdownLSN returns where the WAL of a cleanly stopped primary ends: the END of
// its shutdown checkpoint's record, which a standby must have flushed to miss
// nothing (S15), and the record's start, which is what pg_control and Patroni
// publish. ErrRefused while the control file doesn't say "shut down".
func (m *Manager) ShutdownLSN(ctx context.Context) (end, checkpoint events.LSN, err error) {
	const op = "find the end of WAL"
	c, err := m.Control(ctx)
	if err != nil {
		return 0, 0, err
	}
	if c.State != stateShutDown {
		return 0, 0, classed(ErrRefused, op, fmt.Errorf("the control file says %q", c.State))
	}
	r, err := m.walRecordAt(ctx, c, c.CheckpointTL, c.CheckpointLSN)
	if err != nil {
		return 0, 0, orClassed(ErrBroken, op, err)
	}
	if r.start != c.CheckpointLSN || !r.shutdown {
		return 0, 0, classed(ErrBroken, op, fmt.Errorf("the record at %s is no shutdown checkpoint", c.CheckpointLSN))
	}
	return r.end, c.CheckpointLSN, nil
}
