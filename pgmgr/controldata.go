package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgregent/regent/events"
)

// The values of ControlData.State that decisions depend on.
const (
	stateShutDown           = "shut down"
	stateShutDownInRecovery = "shut down in recovery"
	stateInProduction       = "in production"
	stateArchiveRecovery    = "in archive recovery"
)

// ControlData is what pg_controldata says about a data directory.
type ControlData struct {
	SystemID       events.SystemID
	State          string
	CheckpointLSN  events.LSN // the START of the last checkpoint's record
	CheckpointTL   events.Timeline
	MinRecoveryLSN events.LSN
	MinRecoveryTL  events.Timeline
	BackupStartLSN events.LSN

	MaxConnections, MaxWorkerProcesses, MaxWALSenders int
	MaxPreparedXacts, MaxLocksPerXact                 int

	WALLogHints     bool
	ChecksumVersion int
	WALBlockSize    int
	WALSegmentSize  int
}

// Clean reports whether the server was stopped so that its tools accept the
// directory without crash recovery.
func (c ControlData) Clean() bool {
	return c.State == stateShutDown || c.State == stateShutDownInRecovery
}

// WasStandby reports whether the server was last run in recovery, so that starting
// it as a primary would fork history without a new timeline.
func (c ControlData) WasStandby() bool {
	return c.State == stateShutDownInRecovery || c.State == stateArchiveRecovery
}

// Timeline is the newest timeline that the directory holds changes of. A promoted
// server enters its new timeline into the minimum recovery point at once, but into
// the checkpoint only with its first one: pg_rewind before PostgreSQL 16 looks at
// the latter alone (S23).
func (c ControlData) Timeline() events.Timeline { return max(c.CheckpointTL, c.MinRecoveryTL) }

// CanRewind reports whether pg_rewind can find all changed pages here.
func (c ControlData) CanRewind() bool { return c.WALLogHints || c.ChecksumVersion > 0 }

var errTornControl = errors.New("checksum of pg_control is wrong")

// parseControlData reads the output of pg_controldata in the C locale. Fields that
// a version lacks stay zero; those that every version has must be there.
func parseControlData(out string) (ControlData, error) {
	if strings.Contains(out, "WARNING") && strings.Contains(out, "CRC") {
		return ControlData{}, errTornControl
	}
	values := map[string]string{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			values[name] = strings.TrimSpace(value)
		}
	}
	p := controlParser{values: values}
	c := ControlData{
		SystemID:           events.SystemID(p.text("Database system identifier")),
		State:              p.text("Database cluster state"),
		CheckpointLSN:      p.lsn("Latest checkpoint location"),
		CheckpointTL:       events.Timeline(p.number("Latest checkpoint's TimeLineID")),
		MinRecoveryLSN:     p.lsn("Minimum recovery ending location"),
		MinRecoveryTL:      events.Timeline(p.number("Min recovery ending loc's timeline")),
		BackupStartLSN:     p.lsn("Backup start location"),
		MaxConnections:     p.number("max_connections setting"),
		MaxWorkerProcesses: p.number("max_worker_processes setting"),
		MaxWALSenders:      p.number("max_wal_senders setting"),
		MaxPreparedXacts:   p.number("max_prepared_xacts setting"),
		MaxLocksPerXact:    p.number("max_locks_per_xact setting"),
		WALLogHints:        p.text("wal_log_hints setting") == "on",
		ChecksumVersion:    p.number("Data page checksum version"),
		WALBlockSize:       p.number("WAL block size"),
		WALSegmentSize:     p.number("Bytes per WAL segment"),
	}
	if p.err != nil {
		return ControlData{}, fmt.Errorf("parse pg_controldata: %w", p.err)
	}
	return c, nil
}

// controlParser takes values out of the output and keeps the first error.
type controlParser struct {
	values map[string]string
	err    error
}

func (p *controlParser) text(name string) string {
	v, ok := p.values[name]
	if !ok && p.err == nil {
		p.err = fmt.Errorf("no line %q", name)
	}
	return v
}

func (p *controlParser) number(name string) int {
	n, err := strconv.ParseInt(p.text(name), 10, 64)
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("%s: %w", name, err)
	}
	return int(n)
}

func (p *controlParser) lsn(name string) events.LSN {
	l, err := events.ParseLSN(p.text(name))
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("%s: %w", name, err)
	}
	return l
}

// controlCache keeps the last reading together with the file's identity.
type controlCache struct {
	mu    sync.Mutex
	id    fileID
	data  ControlData
	valid bool
}

// fileID changes when a file is written or replaced.
type fileID struct {
	inode uint64
	size  int64
	mtime time.Time
}

// settled is how old a file's modification must be for its identity to be
// trusted: file systems stamp with the kernel's tick, so two writes within one
// tick look like one.
const settled = 50 * time.Millisecond

// Control reads the control file with pg_controldata. The file isn't parsed here,
// because its layout changes with versions; to spare a heartbeat the fork, the last
// reading is kept as long as the file is the same.
func (m *Manager) Control(ctx context.Context) (ControlData, error) {
	const op = "read control data"
	path := filepath.Join(m.config().DataDir, "global", "pg_control")
	m.control.mu.Lock()
	defer m.control.mu.Unlock()
	id, err := identify(path)
	if err != nil {
		return ControlData{}, classed(ErrBroken, op, err)
	}
	if m.control.valid && id == m.control.id {
		return m.control.data, nil
	}
	c, err := m.readControl(ctx)
	if err != nil {
		return ControlData{}, err
	}
	m.control.id, m.control.data = id, c
	m.control.valid = time.Since(id.mtime) > settled
	return c, nil
}

// knownControl is the last reading, however old; zero: there was none. What doesn't change
// is right in it, and the timeline isn't newer than the file's.
func (m *Manager) knownControl() ControlData {
	m.control.mu.Lock()
	defer m.control.mu.Unlock()
	return m.control.data
}

// readControl runs pg_controldata; a server that writes the file at the same
// moment gives a wrong checksum, which another try heals.
func (m *Manager) readControl(ctx context.Context) (ControlData, error) {
	const op, tries = "read control data", 5
	for try := 1; ; try++ {
		out, err := m.run(ctx, tool{name: "pg_controldata", args: []string{"-D", m.config().DataDir}})
		if err != nil {
			if ctx.Err() != nil {
				return ControlData{}, classed(ErrUnavailable, op, err)
			}
			return ControlData{}, orClassed(ErrBroken, op, err)
		}
		c, err := parseControlData(out)
		if err == nil {
			return c, nil
		}
		if try == tries || !errors.Is(err, errTornControl) {
			return ControlData{}, classed(ErrBroken, op, err)
		}
	}
}

// identify reads a file's identity.
func identify(path string) (fileID, error) {
	st, err := os.Stat(path)
	if err != nil {
		return fileID{}, err
	}
	id := fileID{size: st.Size(), mtime: st.ModTime()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		id.inode = sys.Ino
	}
	return id, nil
}
