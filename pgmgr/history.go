package pgmgr

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
)

// lineage is a timeline's history: its ancestors, oldest first, each with the
// position where the next one branched off.
type lineage []events.HistoryLine

// forkOf is the position where the lineage left the timeline; ok is false when the
// timeline isn't an ancestor.
func (l lineage) forkOf(tl events.Timeline) (events.LSN, bool) {
	for _, h := range l {
		if h.Timeline == tl {
			return h.LSN, true
		}
	}
	return 0, false
}

// before is the part of the lineage older than the timeline.
func (l lineage) before(tl events.Timeline) lineage {
	i := slices.IndexFunc(l, func(h events.HistoryLine) bool { return h.Timeline >= tl })
	if i < 0 {
		return l
	}
	return l[:i]
}

// sameSwitches compares two lineages by timelines and positions.
func sameSwitches(a, b lineage) bool {
	return slices.EqualFunc(a, b, func(x, y events.HistoryLine) bool { return x.Timeline == y.Timeline && x.LSN == y.LSN })
}

// parseHistory reads a timeline history file.
func parseHistory(content string) (lineage, error) {
	var l lineage
	for line := range strings.Lines(content) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, "\t", 3)
		if len(fields) < 2 {
			fields = strings.Fields(line)
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("parse timeline history: line %q", line)
		}
		tl, err := strconv.ParseUint(strings.TrimSpace(fields[0]), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("parse timeline history: %w", err)
		}
		lsn, err := events.ParseLSN(strings.TrimSpace(fields[1]))
		if err != nil {
			return nil, fmt.Errorf("parse timeline history: %w", err)
		}
		h := events.HistoryLine{Timeline: events.Timeline(tl), LSN: lsn}
		if len(fields) == 3 {
			h.Reason = strings.TrimSpace(fields[2])
		}
		if n := len(l); n > 0 && l[n-1].Timeline >= h.Timeline {
			return nil, fmt.Errorf("parse timeline history: timeline %d follows %d", h.Timeline, l[n-1].Timeline)
		}
		l = append(l, h)
	}
	return l, nil
}

func historyFile(tl events.Timeline) string { return fmt.Sprintf("%08X.history", uint32(tl)) }

// TimelineHistory reads the history of a timeline from this host's pg_wal, for the
// store's history key: one line per switch, the last one with the time at which the
// file was written. It is empty for timeline 1 and ErrUnavailable when the file isn't
// here.
func (m *Manager) TimelineHistory(tl events.Timeline) ([]events.HistoryLine, error) {
	if tl <= 1 {
		return nil, nil
	}
	path := filepath.Join(m.config().DataDir, "pg_wal", historyFile(tl))
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, classed(ErrUnavailable, "read timeline history", err)
	}
	l, err := parseHistory(string(b))
	if err != nil {
		return nil, classed(ErrBroken, "read timeline history", err)
	}
	if st, err := os.Stat(path); err == nil && len(l) > 0 {
		l[len(l)-1].Timestamp = st.ModTime().UTC().Format("2006-01-02T15:04:05.000000-07:00")
	}
	return l, nil
}

// localLineage is the history of a timeline as this host knows it; ok is false when
// it doesn't.
func (c Config) localLineage(tl events.Timeline) (l lineage, ok bool, err error) {
	if tl <= 1 {
		return nil, true, nil
	}
	b, err := os.ReadFile(filepath.Join(c.DataDir, "pg_wal", historyFile(tl)))
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	l, err = parseHistory(string(b))
	return l, err == nil, err
}

// newerHistories reads the history files in pg_wal of timelines newer than tl. A
// standby that follows the latest timeline goes for those at its next start. A file
// that can't be parsed gives an empty lineage, which is nobody's.
func (c Config) newerHistories(tl events.Timeline) (map[events.Timeline]lineage, error) {
	entries, err := os.ReadDir(filepath.Join(c.DataDir, "pg_wal"))
	if err != nil {
		return nil, err
	}
	name := regexp.MustCompile(`^([0-9A-F]{8})\.history$`)
	newer := map[events.Timeline]lineage{}
	for _, e := range entries {
		match := name.FindStringSubmatch(e.Name())
		if match == nil {
			continue
		}
		found := parseTimelineHex(match[1])
		if found <= tl {
			continue
		}
		l, ok, err := c.localLineage(found)
		if err != nil || !ok {
			l = nil
		}
		newer[found] = l
	}
	return newer, nil
}

// setAsideHistory takes a history file out of recovery's sight, keeping it under
// another name for whoever wants to know.
func (c Config) setAsideHistory(tl events.Timeline) error {
	dir := filepath.Join(c.DataDir, "pg_wal")
	name := historyFile(tl)
	aside := fmt.Sprintf("%s.set-aside-%d", name, time.Now().UnixNano())
	if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, aside)); err != nil {
		return fmt.Errorf("set %s aside: %w", name, err)
	}
	return syncDir(dir)
}
