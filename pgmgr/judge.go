package pgmgr

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/events"
)

// localPosition is how far this host's history reaches.
type localPosition struct {
	control  ControlData
	timeline events.Timeline
	// lsn is a position that surely is in our WAL; there may be more behind it.
	lsn events.LSN
	// writable: the server was last run as a primary (or runs as one), so its WAL's
	// end is its own and not received.
	writable bool
	running  bool
	// strays are history files in pg_wal of timelines newer than ours.
	strays map[events.Timeline]lineage
}

// upstreamPosition is the upstream's history.
type upstreamPosition struct {
	identity
	recovering bool
	lineage    lineage
}

// Judge compares this host's history with the upstream's by their timelines'
// ancestry, not by what pg_rewind thinks (S23). The server may be up or down. It
// changes nothing and takes a few ten milliseconds.
//
// VerdictFollow: all our WAL is the upstream's too; streaming will do. Otherwise we
// have WAL that the upstream doesn't have, or timelines that would keep recovery
// from following, and the verdict is how that can be healed: VerdictRewind or
// VerdictClone. VerdictWait: the upstream is itself in recovery, or a rewind is due
// and its first checkpoint on its timeline isn't there yet.
//
// Judge against the primary, also when another replica will be followed.
// ErrUnavailable: the upstream doesn't answer. ErrBroken: it is another cluster.
func (m *Manager) Judge(ctx context.Context, upstream events.Upstream) (events.Divergence, error) {
	const op = "judge divergence"
	if k, ok := m.marked(); ok && k.Verb != verbRecover {
		return events.Divergence{Verdict: events.VerdictClone, Why: "the data directory was " + k.describe()}, nil
	}
	local, err := m.localPosition(ctx)
	if err != nil {
		return events.Divergence{}, err
	}
	up, err := m.upstreamPosition(ctx, upstream)
	if err != nil {
		return events.Divergence{}, classed(ErrUnavailable, op, err)
	}
	if local.control.SystemID != up.systemID {
		return events.Divergence{}, classed(ErrBroken, op, fmt.Errorf("system identifier is %s here and %s at %s",
			local.control.SystemID, up.systemID, upstream.Name))
	}
	d := events.Divergence{LocalTimeline: local.timeline, LocalLSN: local.lsn, UpstreamTimeline: up.timeline}
	if up.recovering {
		d.Verdict, d.Why = events.VerdictWait, fmt.Sprintf("%s is still in recovery", upstream.Name)
		return d, nil
	}
	if fork, ok := up.lineage.forkOf(local.timeline); ok {
		d.ForkLSN = fork
	}
	why, err := m.divergence(ctx, local, up, upstream)
	if err != nil {
		return d, orClassed(ErrUnavailable, op, err)
	}
	if why == "" {
		d.Verdict, d.Why = events.VerdictFollow, followWhy(d)
		return d, nil
	}
	d.Why = why
	return m.remedy(ctx, d, local, up, upstream)
}

func followWhy(d events.Divergence) string {
	if d.LocalTimeline == d.UpstreamTimeline {
		return fmt.Sprintf("both are on timeline %d", d.LocalTimeline)
	}
	return fmt.Sprintf("our WAL on timeline %d doesn't go beyond %s, where the upstream's history left it", d.LocalTimeline, d.ForkLSN)
}

// divergence is why the histories differ, empty if ours is a part of the upstream's.
func (m *Manager) divergence(ctx context.Context, local localPosition, up upstreamPosition, upstream events.Upstream) (string, error) {
	why := lineageConflict(m.config(), local, up)
	if why == "" {
		var err error
		if why, err = m.namesakes(ctx, local, up, upstream); err != nil {
			return "", err
		}
	}
	if why == "" && local.timeline < up.timeline {
		fork, _ := up.lineage.forkOf(local.timeline)
		beyond, err := m.reachesBeyond(ctx, local, fork)
		if err != nil {
			return "", err
		}
		if beyond != "" {
			why = fmt.Sprintf("%s's history left timeline %d at %s, and %s", upstream.Name, local.timeline, fork, beyond)
		}
	}
	if why == "" && local.timeline == up.timeline {
		if local.lsn > up.lsn {
			return fmt.Sprintf("we have WAL up to %s on timeline %d, and %s only up to %s", local.lsn, local.timeline, upstream.Name, up.lsn), nil
		}
		if local.writable {
			return m.twin(ctx, local, upstream)
		}
	}
	return why, nil
}

// lineageConflict compares timelines: ours must be the upstream's or one of its
// ancestors, with the same history behind it, and no history file here may lead
// recovery elsewhere.
func lineageConflict(cfg Config, local localPosition, up upstreamPosition) string {
	t := local.timeline
	if t > up.timeline {
		return fmt.Sprintf("we are on timeline %d, which the upstream on timeline %d doesn't have", t, up.timeline)
	}
	if _, ok := up.lineage.forkOf(t); !ok && t < up.timeline {
		return fmt.Sprintf("timeline %d isn't an ancestor of the upstream's timeline %d", t, up.timeline)
	}
	if own, ok, err := cfg.localLineage(t); err == nil && ok && !sameSwitches(own, up.lineage.before(t)) {
		return fmt.Sprintf("timeline %d branched off elsewhere here than in the upstream's history", t)
	}
	for stray, l := range local.strays {
		_, ancestor := up.lineage.forkOf(stray)
		if stray > up.timeline || !ancestor && stray != up.timeline || !sameSwitches(l, up.lineage.before(stray)) {
			return fmt.Sprintf("%s here is of a timeline that the upstream's history doesn't have", historyFile(stray))
		}
	}
	return ""
}

// reachesBeyond says what of our WAL lies beyond the fork, empty if nothing does. The
// control file gives a lower bound only: a standby's pg_wal, or a crashed primary's,
// may hold more, which the next start would replay. A valid record at the fork is
// the proof.
func (m *Manager) reachesBeyond(ctx context.Context, local localPosition, fork events.LSN) (string, error) {
	if local.lsn > fork {
		return fmt.Sprintf("we are at %s", local.lsn), nil
	}
	r, err := m.walRecordAt(ctx, local.control, local.timeline, fork)
	if err == nil {
		return fmt.Sprintf("we have a record at %s", r.start), nil
	}
	if !errors.Is(err, errNoRecord) {
		return "", err
	}
	if local.running || !local.writable || local.control.State != stateShutDown {
		return "", nil
	}
	// A primary that was stopped cleanly has everything that anybody got of its
	// timeline: the fork must be exactly where it ended.
	end, _, err := m.ShutdownLSN(ctx)
	if err != nil {
		return "", err
	}
	if end != fork {
		return fmt.Sprintf("our timeline ended at %s", end), nil
	}
	return "", nil
}

// remedy chooses how a divergence can be healed.
func (m *Manager) remedy(ctx context.Context, d events.Divergence, local localPosition, up upstreamPosition, upstream events.Upstream) (events.Divergence, error) {
	cfg := m.config()
	switch {
	case !cfg.UsePgRewind:
		d.Verdict, d.Why = events.VerdictClone, d.Why+"; pg_rewind isn't allowed (use_pg_rewind)"
		return d, nil
	case !local.control.CanRewind():
		d.Verdict, d.Why = events.VerdictClone, d.Why+"; pg_rewind needs wal_log_hints or data checksums"
		return d, nil
	}
	tl, err := m.upstreamCheckpoint(ctx, upstream)
	if err != nil {
		return d, classed(ErrUnavailable, "judge divergence", err)
	}
	if tl != up.timeline {
		d.Verdict, d.Why = events.VerdictWait, d.Why+fmt.Sprintf("; %s hasn't had its first checkpoint on timeline %d", upstream.Name, up.timeline)
		return d, nil
	}
	d.Verdict = events.VerdictRewind
	return d, nil
}

// localPosition reads where we are: from the server if it answers, else from the
// files.
func (m *Manager) localPosition(ctx context.Context) (localPosition, error) {
	const op = "find the local position"
	c, err := m.Control(ctx)
	if err != nil {
		return localPosition{}, err
	}
	p := localPosition{control: c, timeline: c.Timeline()}
	ks, err := m.pm.Status(ctx)
	if err != nil {
		return p, fromKeeper(op, err)
	}
	answered := false
	if ks.Alive {
		p.running = true
		answered = m.askPosition(ctx, &p) == nil
	}
	if !answered {
		p.fromControl(m.config())
	}
	p.strays, err = m.config().newerHistories(p.timeline)
	return p, classed(ErrBroken, op, err)
}

// fromControl fills in what the control file says of a server that is down. A
// base backup or a finished rewind is followed like a standby, whatever state was
// copied with it.
func (p *localPosition) fromControl(cfg Config) {
	switch {
	case p.control.WasStandby() && p.control.MinRecoveryLSN > p.control.CheckpointLSN:
		p.lsn = p.control.MinRecoveryLSN
	case exists(cfg.confPath(backupLabel)), p.control.WasStandby():
		p.lsn = p.control.CheckpointLSN
	default:
		p.lsn, p.writable = p.control.CheckpointLSN, true
	}
}

// askPosition asks the running server.
func (m *Manager) askPosition(ctx context.Context, p *localPosition) error {
	cfg := m.config()
	return m.withLocal(ctx, "find the local position", func(conn *pgconn.PgConn) error {
		r, err := row(ctx, conn, `SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_flush_lsn() END,
			CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_flush_lsn()), 1, 8) END,
			GREATEST(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn(), '0/0'),
			COALESCE((SELECT received_tli FROM pg_catalog.pg_stat_get_wal_receiver() WHERE pid IS NOT NULL), 0)`)
		if err != nil {
			return fmt.Errorf("ask for the position: %w", err)
		}
		at := r[2]
		if p.writable = r[0] != ""; p.writable {
			at, p.timeline = r[0], max(p.timeline, parseTimelineHex(r[1]))
		} else {
			p.timeline = max(p.timeline, events.Timeline(atoi(r[3])))
			if id, err := m.identifyLocal(ctx, cfg); err == nil {
				p.timeline = max(p.timeline, id.timeline)
			}
		}
		p.lsn, err = events.ParseLSN(at)
		return err
	})
}

// upstreamPosition reads the upstream's identity and history over a replication
// connection, and whether it is in recovery.
func (m *Manager) upstreamPosition(ctx context.Context, upstream events.Upstream) (upstreamPosition, error) {
	var up upstreamPosition
	cfg := m.config()
	conn, err := cfg.upstreamSession(upstream, cfg.Replication, true).connect(ctx)
	if err != nil {
		return up, fmt.Errorf("connect to %s for replication: %w", upstream.Name, err)
	}
	defer hangUp(conn)
	if up.identity, err = identifySystem(ctx, conn); err != nil {
		return up, err
	}
	if up.timeline > 1 {
		r, err := replicationCommand(ctx, conn, "TIMELINE_HISTORY "+strconv.Itoa(int(up.timeline)))
		if err != nil {
			return up, err
		}
		if len(r) < 2 {
			return up, errors.New("TIMELINE_HISTORY: too few columns")
		}
		if up.lineage, err = parseHistory(string(r[1])); err != nil {
			return up, err
		}
	}
	// Reported at login since PostgreSQL 14; before, it takes an SQL session.
	if status := conn.ParameterStatus("in_hot_standby"); status != "" {
		up.recovering = status == "on"
		return up, nil
	}
	sql, err := cfg.upstreamSession(upstream, cfg.rewindCredentials(), false).connect(ctx)
	if err != nil {
		return up, fmt.Errorf("connect to %s: %w", upstream.Name, err)
	}
	defer hangUp(sql)
	up.recovering, err = isRecovering(ctx, sql)
	return up, err
}

// AskPrimary asks another member's server, without its agent, whether it is a primary of
// this cluster, and how far its WAL goes. ErrUnavailable: it doesn't answer, or is no primary.
// ErrBroken: it is of another cluster.
func (m *Manager) AskPrimary(ctx context.Context, of events.Upstream) (events.LSN, events.Timeline, error) {
	const op = "ask for a primary"
	control, err := m.Control(ctx)
	if err != nil {
		return 0, 0, err
	}
	up, err := m.upstreamPosition(ctx, of)
	switch {
	case err != nil:
		return 0, 0, classed(ErrUnavailable, op, err)
	case up.recovering:
		return 0, 0, classed(ErrUnavailable, op, fmt.Errorf("%s is in recovery", of.Name))
	case up.systemID != control.SystemID:
		return 0, 0, classed(ErrBroken, op, fmt.Errorf("%s is of cluster %s, this one of %s", of.Name, up.systemID, control.SystemID))
	}
	return up.lsn, up.timeline, nil
}

// upstreamCheckpoint is the timeline of the upstream's last checkpoint.
func (m *Manager) upstreamCheckpoint(ctx context.Context, upstream events.Upstream) (events.Timeline, error) {
	cfg := m.config()
	conn, err := cfg.upstreamSession(upstream, cfg.rewindCredentials(), false).connect(ctx)
	if err != nil {
		return 0, fmt.Errorf("connect to %s: %w", upstream.Name, err)
	}
	defer hangUp(conn)
	r, err := row(ctx, conn, "SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()")
	if err != nil {
		return 0, fmt.Errorf("ask %s for its checkpoint: %w", upstream.Name, err)
	}
	return events.Timeline(atoi(r[0])), nil
}

// twin decides between two servers that were both primaries on one timeline, which
// no history file can tell apart: the WAL around our last checkpoint must be the
// same, byte for byte, at the upstream.
func (m *Manager) twin(ctx context.Context, local localPosition, upstream events.Upstream) (string, error) {
	c := local.control
	r, err := m.walRecordAt(ctx, c, c.CheckpointTL, c.CheckpointLSN)
	if errors.Is(err, errNoRecord) {
		return "our last checkpoint's WAL is gone, so nothing proves that it is the upstream's", nil
	}
	if err != nil {
		return "", err
	}
	same, there, err := m.sameWAL(ctx, c, c.CheckpointTL, r, upstream)
	switch {
	case err != nil:
		return "", err
	case !there:
		return fmt.Sprintf("both were primaries on timeline %d, and %s no longer has the WAL at %s to compare", local.timeline, upstream.Name, r.start), nil
	case !same:
		return fmt.Sprintf("both were primaries on timeline %d, and their WAL differs at %s", local.timeline, r.start), nil
	}
	return "", nil
}

// namesakes looks at our timeline, and at newer ones that we have received something
// of and that the control file doesn't know yet.
func (m *Manager) namesakes(ctx context.Context, local localPosition, up upstreamPosition, upstream events.Upstream) (string, error) {
	for _, tl := range append(slices.Sorted(maps.Keys(local.strays)), local.timeline) {
		if why, err := m.namesake(ctx, local.control, tl, up, upstream); why != "" || err != nil {
			return why, err
		}
	}
	return "", nil
}

// namesake decides whether a timeline of ours is the upstream's, or another one of the
// same number: a primary that dies before anybody has heard of its timeline leaves the
// number to the next one, which may branch off at the very same place. The first
// record of a timeline holds the time of its promotion, and tells. Empty when it is
// the same, or when one of the two no longer has that record.
func (m *Manager) namesake(ctx context.Context, c ControlData, tl events.Timeline, up upstreamPosition, upstream events.Upstream) (string, error) {
	ancestors := up.lineage.before(tl)
	if len(ancestors) == 0 {
		return "", nil
	}
	birth := ancestors[len(ancestors)-1].LSN
	r, err := m.walRecordAt(ctx, c, tl, birth)
	if errors.Is(err, errNoRecord) || err == nil && r.start-birth > events.LSN(walLongHeader) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	same, there, err := m.sameWAL(ctx, c, tl, r, upstream)
	if err != nil || same || !there {
		return "", err
	}
	return fmt.Sprintf("timeline %d here is another one than %s's of that number: both began at %s, with different WAL",
		tl, upstream.Name, birth), nil
}

// sameWAL compares a record, with what is before it on its page, with the upstream's
// WAL of that timeline. there is false when the upstream has no such segment.
func (m *Manager) sameWAL(ctx context.Context, c ControlData, tl events.Timeline, r walRecord, upstream events.Upstream) (same, there bool, err error) {
	cfg := m.config()
	name, size := c.walFile(tl, r.start), events.LSN(max(c.WALSegmentSize, 1))
	from := r.start % size / events.LSN(max(c.WALBlockSize, 1)) * events.LSN(max(c.WALBlockSize, 1))
	length := min(r.end-(r.start-r.start%size), size) - from
	ours := make([]byte, length)
	if err := readAt(filepath.Join(cfg.DataDir, "pg_wal", name), ours, int64(from)); err != nil {
		return false, false, err
	}
	conn, err := cfg.upstreamSession(upstream, cfg.rewindCredentials(), false).connect(ctx)
	if err != nil {
		return false, false, fmt.Errorf("connect to %s: %w", upstream.Name, err)
	}
	defer hangUp(conn)
	theirs, err := row(ctx, conn, "SELECT pg_catalog.encode(pg_catalog.pg_read_binary_file('pg_wal/"+name+"', "+
		strconv.Itoa(int(from))+", "+strconv.Itoa(int(length))+", true), 'hex')")
	if err != nil {
		return false, false, fmt.Errorf("read WAL of %s: %w", upstream.Name, err)
	}
	return strings.EqualFold(theirs[0], hex.EncodeToString(ours)), theirs[0] != "", nil
}

// readAt fills b from a file, from an offset.
func readAt(path string, b []byte, off int64) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read WAL: %w", err)
	}
	defer func() { _ = f.Close() }()
	if _, err := io.ReadFull(io.NewSectionReader(f, off, int64(len(b))), b); err != nil {
		return fmt.Errorf("read WAL: %w", err)
	}
	return nil
}
