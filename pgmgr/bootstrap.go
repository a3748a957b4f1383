package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Bootstrap makes a new cluster in the empty data directory: initdb with the
// configured options and the superuser's name and password, bootstrap's pg_hba
// lines, and the generated configuration of a primary. The server isn't started;
// Start as a primary and PostBootstrap follow.
//
// A directory left by an interrupted bootstrap or clone is made anew. ErrRefused:
// the directory holds anything else, or a server runs. Each call that succeeds
// makes a cluster with a system identifier of its own, so the caller must know that
// nobody else bootstraps.
func (m *Manager) Bootstrap(ctx context.Context) error {
	const op = "bootstrap"
	cfg := m.config()
	if err := m.takeEmptyDir(ctx, op, verbBootstrap); err != nil {
		return err
	}
	if err := m.initdb(ctx, cfg); err != nil {
		return m.discard(ctx, op, err)
	}
	if err := cfg.appendBootstrapHBA(); err != nil {
		return m.discard(ctx, op, classed(ErrUnavailable, "write pg_hba.conf", err))
	}
	if _, err := m.WriteConfig(ctx, RolePrimary, nil); err != nil {
		return m.discard(ctx, op, err)
	}
	m.forgetControl()
	return m.unmark()
}

// takeEmptyDir makes sure that the directory may be filled, wiping what an
// interrupted verb of ours left, and sets the marker.
func (m *Manager) takeEmptyDir(ctx context.Context, op, verb string) error {
	if err := m.mustBeDown(ctx, op); err != nil {
		return err
	}
	empty, err := m.IsDataDirEmpty()
	if err != nil {
		return err
	}
	if !empty {
		k, marked := m.marked()
		if !marked || !k.disposable() {
			return classed(ErrRefused, op, fmt.Errorf("%s isn't empty", m.config().DataDir))
		}
		m.log.Info("making the data directory anew", "left_by", k.Verb)
		if err := m.wipe(ctx, op); err != nil {
			return err
		}
	}
	return m.mark(verb)
}

// discard empties a directory that a failed verb has half filled, so that the
// failure leaves no garbage, and returns that verb's error. When wiping fails or is
// cut short the marker stays and the next call wipes.
func (m *Manager) discard(ctx context.Context, op string, cause error) error {
	if ctx.Err() == nil {
		if err := m.wipe(ctx, op); err != nil {
			m.log.Warn("the half-made data directory can't be emptied yet", "err", err)
		}
	}
	return orClassed(ErrUnavailable, op, cause)
}

// initdb runs initdb with the password in a file that only this user reads and
// that is gone afterwards.
func (m *Manager) initdb(ctx context.Context, cfg Config) error {
	args := []string{"--pgdata=" + cfg.DataDir, "--username=" + cfg.Superuser.Username}
	for _, o := range cfg.InitDB {
		args = append(args, o.arg())
	}
	if cfg.Superuser.Password != "" {
		file := filepath.Join(cfg.RunDir, "initdb.pwfile")
		defer func() { _ = os.Remove(file) }()
		if _, err := writeFile(file, []byte(cfg.Superuser.Password+"\n"), 0o600); err != nil {
			return classed(ErrUnavailable, "write password file", err)
		}
		args = append(args, "--pwfile="+file)
	}
	_, err := m.run(ctx, tool{name: "initdb", args: args, writes: true})
	return err
}

func (o Option) arg() string {
	if o.Value == "" {
		return "--" + o.Name
	}
	return "--" + o.Name + "=" + o.Value
}

// appendBootstrapHBA appends bootstrap's lines to initdb's pg_hba.conf. It happens
// under the marker, so a repeated bootstrap begins with a fresh file.
func (c Config) appendBootstrapHBA() error {
	if len(c.BootstrapHBA) == 0 || len(c.PgHBA) > 0 || c.Parameters["hba_file"] != "" {
		return nil
	}
	path := c.confPath("pg_hba.conf")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, err = writeFile(path, []byte(string(b)+"\n"+lines(c.BootstrapHBA)), 0o600)
	return err
}

// rewindFunctions are what a user needs besides reading to be pg_rewind's source.
func rewindFunctions() []string {
	return []string{
		"pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)",
		"pg_read_binary_file(text)", "pg_read_binary_file(text, bigint, bigint, boolean)",
	}
}

// mute keeps passwords out of the server's log and its statistics, and lets the
// commits through without a synchronous standby. Settings of extensions that
// aren't loaded are placeholders.
const mute = `SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic';
SET log_duration = off; SET debug_print_parse = off; SET debug_print_rewritten = off; SET debug_print_plan = off;
SET "pg_stat_statements.track_utility" = 'off'; SET "pgaudit.log" = 'none'; SET "auto_explain.log_min_duration" = '-1';
SET synchronous_commit = 'local'; SET statement_timeout = 0; SET client_min_messages = 'error'`

// muteNewer are settings that only some versions have; failing is fine.
func muteNewer() []string {
	return []string{
		"SET log_transaction_sample_rate = 0", "SET log_min_duration_sample = -1", "SET log_statement_sample_rate = 0",
		"SET log_parameter_max_length_on_error = 0",
	}
}

// PostBootstrap creates the roles on the running primary, or brings their passwords
// and rights in line: the superuser, the replication user, and the rewind user with
// what pg_rewind reads. Doing it again changes nothing else. No role is ever
// dropped, and no password appears in the server's log.
func (m *Manager) PostBootstrap(ctx context.Context) error {
	const op = "create roles"
	cfg := m.config()
	return m.withLocal(ctx, op, func(conn *pgconn.PgConn) error {
		recovering, err := isRecovering(ctx, conn)
		if err != nil {
			return err
		}
		if recovering {
			return classed(ErrRefused, "check the role", errors.New("the server is a standby"))
		}
		if _, err := conn.Exec(ctx, mute).ReadAll(); err != nil {
			return fmt.Errorf("mute the log: %w", err)
		}
		for _, set := range muteNewer() {
			_, _ = conn.Exec(ctx, set).ReadAll()
		}
		if err := ensureRole(ctx, conn, cfg.Superuser, "SUPERUSER LOGIN"); err != nil {
			return err
		}
		if err := ensureRole(ctx, conn, cfg.Replication, "REPLICATION LOGIN"); err != nil {
			return err
		}
		return ensureRewindRole(ctx, conn, cfg)
	})
}

// ensureRole creates or alters one role. The error names the role and the server's
// message, never the statement.
func ensureRole(ctx context.Context, conn *pgconn.PgConn, c Credentials, options string) error {
	if c.Username == "" {
		return nil
	}
	if c.Password != "" {
		options += " PASSWORD " + quoteLiteral(c.Password)
	}
	name := quoteIdent(c.Username)
	_, err := conn.Exec(ctx, "CREATE ROLE "+name+" WITH "+options).ReadAll()
	if sqlCode(err) == codeDuplicateObject {
		_, err = conn.Exec(ctx, "ALTER ROLE "+name+" WITH "+options).ReadAll()
	}
	if err != nil {
		return fmt.Errorf("create role %s: %w", c.Username, err)
	}
	return nil
}

func ensureRewindRole(ctx context.Context, conn *pgconn.PgConn, cfg Config) error {
	if cfg.Rewind.Username == "" || cfg.Rewind.Username == cfg.Superuser.Username {
		return nil
	}
	options := "LOGIN"
	if cfg.Rewind.Username == cfg.Replication.Username {
		options = "REPLICATION LOGIN"
	}
	if err := ensureRole(ctx, conn, cfg.Rewind, options); err != nil {
		return err
	}
	var grants []string
	for _, f := range rewindFunctions() {
		grants = append(grants, "GRANT EXECUTE ON FUNCTION pg_catalog."+f+" TO "+quoteIdent(cfg.Rewind.Username))
	}
	if _, err := conn.Exec(ctx, strings.Join(grants, ";")).ReadAll(); err != nil {
		return fmt.Errorf("grant rewinding to %s: %w", cfg.Rewind.Username, err)
	}
	return nil
}
