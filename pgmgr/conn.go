package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/events"
)

const (
	// connectTimeout bounds a connection attempt, login included.
	connectTimeout = 3 * time.Second
	// closeTimeout bounds the farewell; after it the socket is closed anyway.
	closeTimeout = 500 * time.Millisecond

	// appMonitor and appVerb are the names of our own sessions; views of client
	// sessions leave them out. The first is what operators' tools know.
	appMonitor = "Patroni heartbeat"
	appVerb    = "Patroni restapi"
)

// session is where and as whom to connect.
type session struct {
	host, database, app string
	port                int
	as                  Credentials
	replication         bool
	// params are server parameters of the session.
	params map[string]string
}

// local is a session of the superuser on this host's server.
func (c Config) local(app string) session {
	port := c.Port
	if runs := ServerPort(c.DataDir); runs != 0 {
		port = runs // another one counts only after a restart
	}
	return session{host: c.localHost(), port: port, database: c.database(), app: app, as: c.Superuser}
}

// connect opens the session. libpq's environment variables and service files play
// no part in it.
func (s session) connect(ctx context.Context) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	cfg, err := s.config()
	if err != nil {
		return nil, classed(ErrBroken, "connection settings", err)
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, &unconnected{err}
	}
	return conn, nil
}

// unconnected says in one line what pgconn says in one line per attempt, with and without
// TLS: status lines, logs and the journal carry it.
type unconnected struct{ err error }

func (u *unconnected) Error() string {
	var parts []string
	for line := range strings.Lines(u.err.Error()) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(parts, line) {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, " ")
}

func (u *unconnected) Unwrap() error { return u.err }

func (s session) config() (*pgconn.Config, error) {
	info := conninfo{}.add("host", s.host).add("port", strconv.Itoa(s.port)).add("user", s.as.Username).
		add("password", s.as.Password).add("dbname", s.database).
		add("sslmode", orDefault(s.as.SSLMode, "prefer")).add("sslcert", s.as.SSLCert).add("sslkey", s.as.SSLKey).
		add("sslpassword", s.as.SSLPassword).add("sslrootcert", s.as.SSLRootCert)
	if s.as.Password == "" {
		info = append(info, setting{"passfile", os.DevNull})
	}
	cfg, err := pgconn.ParseConfig(info.String())
	if err != nil {
		// The parser's message may quote the string, and the string has the password.
		return nil, errors.New("the credentials or their TLS files can't be used")
	}
	// The environment may have put more into these than this session wants.
	cfg.RuntimeParams, cfg.ValidateConnect = map[string]string{"application_name": s.app}, nil
	if s.replication {
		cfg.RuntimeParams["replication"] = "true"
	}
	for name, value := range s.params {
		cfg.RuntimeParams[name] = value
	}
	return cfg, nil
}

// connectLocal opens a session on this host's server, and makes sure that it is the
// one of our data directory: with a port in use by another server, that one would
// answer instead of ours.
func (c Config) connectLocal(ctx context.Context, s session) (*pgconn.PgConn, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", conn.PID()))
	if err != nil {
		return conn, nil // another user's process shows nothing; there is no proof against it
	}
	dir := c.DataDir
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	if cwd != dir {
		hangUp(conn)
		return nil, classed(ErrBroken, "connect to the local server",
			fmt.Errorf("%s port %d is served from %s, not from %s", s.host, s.port, cwd, dir))
	}
	return conn, nil
}

// hangUp closes a connection without waiting long for the server.
func hangUp(conn *pgconn.PgConn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // the socket is closed either way
}

// row runs a statement and returns its first row as text; NULL is "".
func row(ctx context.Context, conn *pgconn.PgConn, sql string, args ...string) ([]string, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	res := conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	if res.Err != nil {
		return nil, res.Err
	}
	if len(res.Rows) == 0 {
		return nil, errNoRow
	}
	return texts(res.Rows[0]), nil
}

var errNoRow = errors.New("no row")

// column runs a statement and returns its first column.
func column(ctx context.Context, conn *pgconn.PgConn, sql string, args ...string) ([]string, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	res := conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	if res.Err != nil {
		return nil, res.Err
	}
	var out []string
	for _, r := range res.Rows {
		out = append(out, string(r[0]))
	}
	return out, nil
}

func texts(row [][]byte) []string {
	out := make([]string, len(row))
	for i, v := range row {
		out[i] = string(v)
	}
	return out
}

// replicationCommand runs a command of the replication protocol and returns its
// first row.
func replicationCommand(ctx context.Context, conn *pgconn.PgConn, command string) ([][]byte, error) {
	results, err := conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	if len(results) == 0 || len(results[0].Rows) == 0 {
		return nil, fmt.Errorf("%s: %w", command, errNoRow)
	}
	return results[0].Rows[0], nil
}

// identity is the answer to IDENTIFY_SYSTEM.
type identity struct {
	systemID events.SystemID
	timeline events.Timeline
	lsn      events.LSN
}

func identifySystem(ctx context.Context, conn *pgconn.PgConn) (identity, error) {
	r, err := replicationCommand(ctx, conn, "IDENTIFY_SYSTEM")
	if err != nil {
		return identity{}, err
	}
	if len(r) < 3 {
		return identity{}, fmt.Errorf("IDENTIFY_SYSTEM: %d columns", len(r))
	}
	tl, err := strconv.ParseUint(string(r[1]), 10, 32)
	if err != nil {
		return identity{}, fmt.Errorf("IDENTIFY_SYSTEM: timeline: %w", err)
	}
	lsn, err := events.ParseLSN(string(r[2]))
	if err != nil {
		return identity{}, fmt.Errorf("IDENTIFY_SYSTEM: %w", err)
	}
	return identity{systemID: events.SystemID(r[0]), timeline: events.Timeline(tl), lsn: lsn}, nil
}

// isConnRefused recognizes a server that doesn't listen (yet, or any more).
func isConnRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}

// isConnLost recognizes a connection that ended under a statement, with the
// server's farewell or without.
func isConnLost(err error) bool {
	switch sqlCode(err) {
	case codeAdminShutdown, codeCrashShutdown:
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
