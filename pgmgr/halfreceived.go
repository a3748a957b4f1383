package pgmgr

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/pgregent/regent/events"
)

// dropHalfReceived removes the first segment of each timeline of which nothing but the
// parent's WAL, or less, has arrived.
//
// A standby that changes timelines receives the new one's first segment from its beginning,
// which repeats the parent's WAL up to the fork. If the upstream dies in the middle of that,
// zeros are left where the parent's segment has records, and recovery prefers the newer
// timeline's file: a promotion then ends in a PANIC (invalid magic number), and a start in
// "WAL location … belongs to timeline …", again and again. The file holds nothing that the
// parent's doesn't.
//
// It is meant for standbys that are about to be started or promoted, whose walreceiver is
// off. Problems are logged: PostgreSQL may well manage.
func (m *Manager) dropHalfReceived(ctx context.Context, c ControlData) {
	cfg := m.config()
	newer, err := cfg.newerHistories(c.Timeline())
	if err != nil {
		m.log.Warn("looking for half-received timelines", "err", err)
		return
	}
	for _, tl := range slices.Sorted(maps.Keys(newer)) {
		ancestors := newer[tl]
		if len(ancestors) == 0 {
			continue
		}
		birth := ancestors[len(ancestors)-1].LSN
		name := c.walFile(tl, birth)
		_, err := m.walRecordAt(ctx, c, tl, birth)
		if errors.Is(err, errNoRecord) {
			err = removeSegment(filepath.Join(cfg.DataDir, "pg_wal", name))
			if err == nil {
				m.log.Warn("removed the half-received first segment of a timeline", "timeline", uint32(tl), "file", name)
			}
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			m.log.Warn("looking for half-received timelines", "timeline", uint32(tl), "err", err)
		}
	}
}

// begun reports whether a timeline's WAL has arrived here up to and with its first record,
// which is at birth. It looks at the address of the page and at the record's length, the
// first field of every record: a page arrives whole, or as far as the upstream had written,
// which is beyond that record. pg_waldump would take a process of its own. false: it hasn't,
// or that needs a closer look.
func (c Config) begun(tl events.Timeline, birth events.LSN, control ControlData) bool {
	if control.WALBlockSize <= 0 || control.WALSegmentSize <= 0 {
		return false
	}
	within := uint64(birth) % uint64(control.WALBlockSize)
	if within < walLongHeader { // the record is behind the header of the page, whose length varies
		return false
	}
	f, err := os.Open(filepath.Join(c.DataDir, "pg_wal", control.walFile(tl, birth)))
	if err != nil {
		return false
	}
	defer f.Close()
	page := make([]byte, within+4)
	start := uint64(birth) - within
	if _, err := f.ReadAt(page, int64(start%uint64(control.WALSegmentSize))); err != nil {
		return false
	}
	return binary.NativeEndian.Uint64(page[8:]) == start && binary.NativeEndian.Uint32(page[within:]) != 0
}

func removeSegment(path string) error {
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove WAL segment: %w", err)
	}
	return syncDir(filepath.Dir(path))
}
