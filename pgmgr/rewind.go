package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pgregent/regent/events"
)

// nothingToDo is what pg_rewind says when it sees no divergence.
const nothingToDo = "no rewind required"

// Rewind turns a diverged data directory into one that can follow upstream, by
// pg_rewind. A directory that can follow already is success. The server has to be
// down; it must be started as a standby afterwards.
//
// A directory that wasn't stopped cleanly, or whose checkpoint isn't on its own
// newest timeline, is recovered in single-user mode first; the latter would make
// pg_rewind before PostgreSQL 16 believe that nothing diverged (S23). Every run is
// tried dry before the directory is touched.
//
// ErrRefused: pg_rewind can't work here, or an earlier one was interrupted: clone.
// ErrUnavailable: upstream can't be reached or isn't ready; nothing is lost by
// trying again. ErrUnknown: it was interrupted, and the next verdict is clone.
func (m *Manager) Rewind(ctx context.Context, upstream events.Upstream) error {
	const op = "rewind"
	if err := m.mustBeDown(ctx, op); err != nil {
		return err
	}
	d, err := m.Judge(ctx, upstream)
	if err != nil {
		return err
	}
	switch d.Verdict {
	case events.VerdictFollow:
		return m.rewound()
	case events.VerdictWait:
		return classed(ErrUnavailable, op, errors.New(d.Why))
	case events.VerdictClone:
		return classed(ErrRefused, op, errors.New(d.Why))
	}
	m.log.Info("rewinding", "upstream", string(upstream.Name), "reason", d.Why)
	if err := m.recoverForRewind(ctx); err != nil {
		return err
	}
	passFile, remove, err := m.toolPassFile(verbRewind, upstream, m.config().rewindCredentials())
	if err != nil {
		return err
	}
	defer remove()
	rewind, err := m.rewindTool(ctx, upstream, passFile)
	if err != nil {
		return err
	}
	dry := rewind
	dry.args = append([]string{"--dry-run"}, rewind.args...)
	dry.writes = false
	out, err := m.run(ctx, dry)
	switch {
	case err != nil:
		return m.rewindFailure(ctx, op, upstream, err)
	case strings.Contains(out, nothingToDo):
		return m.dropStrays(ctx, upstream)
	}
	return m.rewindForReal(ctx, rewind)
}

// rewindTool is the command without --dry-run.
func (m *Manager) rewindTool(ctx context.Context, up events.Upstream, passFile string) (tool, error) {
	cfg := m.config()
	version, err := m.ServerVersion(ctx)
	if err != nil {
		return tool{}, err
	}
	dsn := cfg.rewindCredentials().toolConninfo(up.Host, up.Port, cfg.database(), "", passFile, version)
	args := []string{"--target-pgdata=" + cfg.DataDir, "--source-server=" + dsn.String()}
	if version >= 130000 {
		args = append(args, "--no-ensure-shutdown")
		if cfg.recovery(version, RoleReplica, nil)["restore_command"] != "" {
			args = append(args, "--restore-target-wal")
		}
	}
	for _, o := range cfg.RewindOptions {
		args = append(args, o.arg())
	}
	return tool{name: "pg_rewind", args: args, env: []string{"PGOPTIONS=-c statement_timeout=0"}, writes: true}, nil
}

// rewindForReal runs pg_rewind under the marker. The configuration files, which it
// takes from the source like everything else, are put back.
func (m *Manager) rewindForReal(ctx context.Context, rewind tool) error {
	const op = "rewind"
	kept, err := m.readConfigFiles()
	if err != nil {
		return classed(ErrUnavailable, op, err)
	}
	if err := m.mark(verbRewind); err != nil {
		return err
	}
	_, err = m.run(ctx, rewind)
	m.forgetControl()
	switch {
	case err != nil && ctx.Err() != nil:
		return classed(ErrUnknown, op, err)
	case err != nil:
		return classed(ErrRefused, op, fmt.Errorf("it broke off half-way, a clone is needed: %w", err))
	}
	for name, content := range kept {
		if _, err := writeFile(m.config().confPath(name), content, 0o600); err != nil {
			return classed(ErrUnknown, op, err)
		}
	}
	return m.unmark()
}

// rewound removes the marker of a recovery once the directory can follow.
func (m *Manager) rewound() error {
	if _, ok := m.marked(); ok {
		return m.unmark()
	}
	return nil
}

// readConfigFiles reads what is this member's own among the files of the directory.
func (m *Manager) readConfigFiles() (map[string][]byte, error) {
	kept := map[string][]byte{}
	for _, name := range []string{"postgresql.base.conf", "pg_hba.conf", "pg_ident.conf"} {
		b, err := os.ReadFile(m.config().confPath(name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		kept[name] = b
	}
	return kept, nil
}

// rewindFailure classes a failed dry run: with a healthy upstream trying again is
// useless.
func (m *Manager) rewindFailure(ctx context.Context, op string, upstream events.Upstream, err error) error {
	if ctx.Err() != nil || hasClass(err) {
		return orClassed(ErrUnavailable, op, err)
	}
	if _, alive := m.identifyUpstream(ctx, m.config(), upstream); alive != nil {
		return classed(ErrUnavailable, op, err)
	}
	return classed(ErrRefused, op, err)
}

// dropStrays is for a directory in which pg_rewind finds nothing to do although it
// can't follow. If that is only because of history files of timelines that it has no
// changes of (a promotion that died before its first record), they are set aside,
// and it can. Otherwise pg_rewind was fooled.
func (m *Manager) dropStrays(ctx context.Context, upstream events.Upstream) error {
	const op = "rewind"
	local, err := m.localPosition(ctx)
	if err != nil {
		return err
	}
	up, err := m.upstreamPosition(ctx, upstream)
	if err != nil {
		return classed(ErrUnavailable, op, err)
	}
	strays := local.strays
	local.strays = nil
	why, err := m.divergence(ctx, local, up, upstream)
	if err != nil {
		return orClassed(ErrUnavailable, op, err)
	}
	if why != "" {
		return classed(ErrRefused, op, fmt.Errorf("pg_rewind finds nothing to do, but %s", why))
	}
	for tl, l := range strays {
		if _, ok := up.lineage.forkOf(tl); (ok || tl == up.timeline) && sameSwitches(l, up.lineage.before(tl)) {
			continue
		}
		m.log.Warn("setting aside the history file of a timeline that came to nothing", "file", historyFile(tl))
		if err := m.config().setAsideHistory(tl); err != nil {
			return classed(ErrUnavailable, op, err)
		}
	}
	return m.rewound()
}

// recoverForRewind makes the directory fit for pg_rewind: stopped cleanly, with its
// last checkpoint on its newest timeline.
func (m *Manager) recoverForRewind(ctx context.Context) error {
	c, err := m.Control(ctx)
	if err != nil {
		return err
	}
	if c.Clean() && c.CheckpointTL >= c.Timeline() {
		return nil
	}
	return m.RecoverAlone(ctx)
}

// RecoverAlone runs crash recovery in single-user mode, without network and
// archiving, and leaves the directory cleanly shut down on its newest timeline. WAL
// is kept, all of it: pg_rewind needs it back to the fork.
//
// A standby's directory ends its recovery by this without a new timeline. It can
// then only be rewound or replaced; Start refuses it.
func (m *Manager) RecoverAlone(ctx context.Context) error {
	const op = "recover in single-user mode"
	cfg := m.config()
	if err := m.mustBeDown(ctx, op); err != nil {
		return err
	}
	if k, ok := m.marked(); ok && k.Verb != verbRecover {
		return classed(ErrRefused, op, fmt.Errorf("the data directory was %s", k.describe()))
	}
	c, err := m.Control(ctx)
	if err != nil {
		return err
	}
	if c.State == stateShutDown {
		return nil
	}
	version, err := m.ServerVersion(ctx)
	if err != nil {
		return err
	}
	if _, err := m.WriteConfig(ctx, RolePrimary, nil); err != nil {
		return err
	}
	if err := m.clearStalePID(); err != nil {
		return classed(ErrUnavailable, op, err)
	}
	if c.WasStandby() || m.isStandbyDir() {
		if err := m.mark(verbRecover); err != nil {
			return err
		}
	}
	for _, name := range []string{standbySignal, recoverySignal} {
		if err := os.Remove(filepath.Join(cfg.DataDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return classed(ErrUnavailable, op, err)
		}
	}
	params, _ := cfg.serverParameters(version)
	line, _ := cfg.commandLine(params, c, true)
	keep := "wal_keep_size=2147483647"
	if version < 130000 {
		keep = "wal_keep_segments=2147483647"
	}
	args := append([]string{"--single"}, line[1:]...)
	for _, set := range []string{keep, "archive_mode=off", "logging_collector=off", "log_destination=stderr", "restart_after_crash=off"} {
		args = append(args, "-c", set)
	}
	_, err = m.run(ctx, tool{name: "postgres", args: append(args, "template1"), stdin: strings.NewReader(""), writes: true})
	m.forgetControl()
	if err != nil {
		if ctx.Err() != nil {
			return classed(ErrUnavailable, op, err)
		}
		return orClassed(ErrRefused, op, err)
	}
	return nil
}
