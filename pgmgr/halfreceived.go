package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
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

func removeSegment(path string) error {
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove WAL segment: %w", err)
	}
	return syncDir(filepath.Dir(path))
}
