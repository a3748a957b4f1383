package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/pgregent/regent/events"
)

// CloneOptions say what Clone may do.
type CloneOptions struct {
	// Replace allows to wipe a cluster that is in the data directory. Without it only
	// an empty directory, or one left by an interrupted verb, is filled.
	Replace bool
}

// Clone fills the data directory with a base backup of upstream. Nothing is wiped
// before upstream has answered and proven to be of the same cluster. The new
// directory has to be started as a standby.
//
// When the call fails or is interrupted, nothing startable is left, and calling
// again starts over. ErrRefused: there is a cluster and Replace isn't set, or a
// server runs. ErrBroken: upstream is another cluster than what is here; an
// operator has to remove the directory.
func (m *Manager) Clone(ctx context.Context, upstream events.Upstream, o CloneOptions) error {
	const op = "clone"
	cfg := m.config()
	if err := m.mustBeDown(ctx, op); err != nil {
		return err
	}
	empty, err := m.IsDataDirEmpty()
	if err != nil {
		return err
	}
	k, marked := m.marked()
	if !empty && !o.Replace && !(marked && k.disposable()) {
		return classed(ErrRefused, op, fmt.Errorf("%s isn't empty", cfg.DataDir))
	}
	id, err := m.identifyUpstream(ctx, cfg, upstream)
	if err != nil {
		return classed(ErrUnavailable, op, err)
	}
	if !empty && !marked {
		if c, err := m.Control(ctx); err == nil && c.SystemID != id.systemID {
			return classed(ErrBroken, op, fmt.Errorf("system identifier is %s here and %s at %s", c.SystemID, id.systemID, upstream.Name))
		}
	}
	if !empty {
		if err := m.RemoveDataDir(ctx); err != nil {
			return err
		}
	}
	if err := m.takeEmptyDir(ctx, op, verbClone); err != nil {
		return err
	}
	if err := m.basebackup(ctx, cfg, upstream); err != nil {
		return m.discard(ctx, op, err)
	}
	m.forgetControl()
	if c, err := m.Control(ctx); err != nil || c.SystemID != id.systemID {
		return m.discard(ctx, op, classed(ErrUnavailable, "check the copy", errors.Join(err, fmt.Errorf("system identifier %q", c.SystemID))))
	}
	return m.unmark()
}

// basebackup runs pg_basebackup. The checkpoint is fast unless an option says
// otherwise: a spread one makes a new member wait for minutes, on an idle cluster
// too.
func (m *Manager) basebackup(ctx context.Context, cfg Config, up events.Upstream) error {
	version, err := m.ServerVersion(ctx)
	if err != nil {
		return err
	}
	passFile, remove, err := m.toolPassFile(verbClone, up, cfg.Replication)
	if err != nil {
		return err
	}
	defer remove()
	// Without the member's name: the backup's own stream must not pass for its walreceiver.
	dsn := cfg.Replication.toolConninfo(up.Host, up.Port, cfg.database(), "", passFile, version)
	args := []string{"--pgdata=" + cfg.DataDir, "-X", "stream", "--no-password", "--dbname=" + dsn.String()}
	if !slices.ContainsFunc(cfg.Basebackup, func(o Option) bool { return o.Name == "checkpoint" }) {
		args = append(args, "--checkpoint=fast")
	}
	for _, o := range cfg.Basebackup {
		args = append(args, o.arg())
	}
	_, err = m.run(ctx, tool{name: "pg_basebackup", args: args, writes: true})
	return err
}

// toolPassFile writes a password file for one tool's run, apart from the one that
// the running server uses. Call remove when the tool has ended.
func (m *Manager) toolPassFile(verb string, up events.Upstream, who Credentials) (path string, remove func(), err error) {
	if who.Password == "" {
		return "", func() {}, nil
	}
	path = filepath.Join(m.config().RunDir, "pgpass."+verb)
	if _, err := writeFile(path, []byte(passLines(up, who)), 0o600); err != nil {
		return "", nil, classed(ErrUnavailable, "write password file", err)
	}
	return path, func() { _ = os.Remove(path) }, nil
}

// identifyUpstream asks a server over a replication connection who it is.
func (m *Manager) identifyUpstream(ctx context.Context, cfg Config, up events.Upstream) (identity, error) {
	conn, err := cfg.upstreamSession(up, cfg.Replication, true).connect(ctx)
	if err != nil {
		return identity{}, fmt.Errorf("connect to %s for replication: %w", up.Name, err)
	}
	defer hangUp(conn)
	return identifySystem(ctx, conn)
}

// upstreamSession is a session on another member.
func (c Config) upstreamSession(up events.Upstream, who Credentials, replication bool) session {
	return session{
		host: up.Host, port: up.Port, database: c.database(), app: appVerb, as: who, replication: replication,
	}
}
