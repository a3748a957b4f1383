package pgmgr

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config says what this host's PostgreSQL looks like. It is filled from the
// configuration file and the store's dynamic configuration; nothing in it is
// interpreted twice. Strings of PostgreSQL (parameters, pg_hba lines) are passed
// on as they are.
type Config struct {
	// BinDir is the folder of PostgreSQL's programs; empty: found in PATH.
	BinDir string
	// DataDir is the data directory, absolute. Its parent exists; it may not.
	DataDir string
	// RunDir is Regent's own folder beside the data directory, never in it: sockets,
	// password files, the server's first log, the marker of unfinished work.
	RunDir string
	// Scope is the cluster's name (cluster_name), Name this member's (its
	// application_name and slot).
	Scope, Name string

	// ListenAddresses is PostgreSQL's listen_addresses ("10.0.0.1,127.0.0.1", "*", "").
	ListenAddresses string
	// Port of PostgreSQL.
	Port int
	// UseUnixSocket makes local connections go to the first directory of the
	// parameter unix_socket_directories, or libpq's default directory without one;
	// otherwise they go to the first listen address.
	UseUnixSocket bool
	// LocalHost overrides where local connections go: a host or a socket directory.
	LocalHost string
	// Database is where the agent connects; empty: "postgres".
	Database string

	// Superuser, Replication and Rewind are the agent's roles. Rewind may be empty:
	// the superuser is used instead.
	Superuser, Replication, Rewind Credentials

	// Parameters are the merged server parameters, values as PostgreSQL spells them.
	// Those of the command line (CommandLineGUCs) must come from the store only.
	// Recovery settings among them are treated as RecoveryConf.
	Parameters map[string]string
	// PgHBA and PgIdent, when not empty, are the whole content of the files.
	PgHBA, PgIdent []string
	// BootstrapHBA is appended to initdb's pg_hba.conf, once, if PgHBA is empty.
	BootstrapHBA []string
	// CustomConf is included instead of postgresql.base.conf.
	CustomConf string
	// RecoveryConf are settings for recovery (restore_command, …). primary_conninfo,
	// primary_slot_name and recovery targets in it are ignored.
	RecoveryConf map[string]string

	// InitDB, Basebackup and RewindOptions are extra options of the tools.
	InitDB, Basebackup, RewindOptions []Option
	// PgPassFile is the password file that primary_conninfo names; empty: "pgpass"
	// in RunDir. It is overwritten.
	PgPassFile string

	// UseSlots: members stream through replication slots named after them.
	UseSlots bool
	// UsePgRewind allows pg_rewind; without it a diverged member needs a clone.
	UsePgRewind bool

	// Sync: synchronous mode is on, so that synchronous_standby_names among Parameters
	// doesn't count. SyncStrict: no commit without a standby.
	Sync, SyncStrict bool

	// StartTimeout bounds Start when its options don't; 0: one minute.
	StartTimeout time.Duration
}

// Option is a long option of one of PostgreSQL's tools, without dashes. An empty
// value means a flag.
type Option struct{ Name, Value string }

// Credentials of a role, with libpq's options for how it connects. Empty fields
// are left to libpq's defaults.
type Credentials struct {
	Username, Password                              string
	SSLMode, SSLCert, SSLKey, SSLPassword           string
	SSLRootCert, SSLCRL, SSLCRLDir                  string
	GSSEncMode, ChannelBinding, SSLNegotiation, Krb string
}

// String hides the password, so that a Config can be printed.
func (c Credentials) String() string { return c.Username + ":***" }

// GoString hides it from %#v as well.
func (c Credentials) GoString() string { return c.String() }

// Options that would break what the verbs rely on.
var (
	forbiddenInitDB     = []string{"pgdata", "nosync", "no-sync", "pwfile", "sync-only", "version", "help", "username"}
	forbiddenBasebackup = []string{
		"pgdata", "format", "wal-method", "xlog-method", "gzip", "version", "help", "dbname", "host", "port",
		"username", "password", "write-recovery-conf",
	}
	forbiddenRewind = []string{
		"target-pgdata", "source-pgdata", "source-server", "write-recovery-conf", "dry-run",
		"restore-target-wal", "config-file", "no-ensure-shutdown", "version", "help",
	}
)

// Validate reports every problem of the configuration, joined.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !filepath.IsAbs(c.DataDir) {
		bad("data directory %q isn't an absolute path", c.DataDir)
	}
	if !filepath.IsAbs(c.RunDir) {
		bad("run directory %q isn't an absolute path", c.RunDir)
	}
	if within(c.RunDir, c.DataDir) {
		bad("run directory %s lies in the data directory, where base backup and rewind would delete it", c.RunDir)
	}
	if c.Name == "" {
		bad("the member has no name")
	}
	if c.Port < 1 || c.Port > 65535 {
		bad("port %d is out of range", c.Port)
	}
	if c.Superuser.Username == "" {
		bad("the superuser has no name")
	}
	if c.Replication.Username == "" {
		bad("the replication user has no name")
	}
	for _, group := range []struct {
		what      string
		given     []Option
		forbidden []string
	}{
		{"initdb", c.InitDB, forbiddenInitDB},
		{"basebackup", c.Basebackup, forbiddenBasebackup},
		{"rewind", c.RewindOptions, forbiddenRewind},
	} {
		for _, o := range group.given {
			if slices.Contains(group.forbidden, o.Name) {
				bad("option %q of %s is set by Regent itself", o.Name, group.what)
			}
		}
	}
	for name, value := range c.Parameters {
		if strings.ContainsRune(name+value, 0) {
			bad("parameter %q contains a zero byte", name)
		}
	}
	return errors.Join(errs...)
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func (c Config) database() string {
	if c.Database == "" {
		return "postgres"
	}
	return c.Database
}

// localHost is where this host's server is reached: a socket directory or a host.
func (c Config) localHost() string {
	switch {
	case c.LocalHost != "":
		return c.LocalHost
	case c.UseUnixSocket:
		dir, _, _ := strings.Cut(c.Parameters["unix_socket_directories"], ",")
		if dir = strings.TrimSpace(dir); dir != "" {
			return dir
		}
		return defaultSocketDir()
	}
	first, _, _ := strings.Cut(c.ListenAddresses, ",")
	switch first = strings.TrimSpace(first); first {
	case "", "*", "0.0.0.0", "::":
		return "localhost"
	default:
		return first
	}
}

// defaultSocketDir is where servers built by Debian and the PGDG listen, or
// PostgreSQL's own default.
func defaultSocketDir() string {
	for _, dir := range []string{"/var/run/postgresql", "/tmp"} {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return dir
		}
	}
	return "/tmp"
}

func (c Config) pgPassFile() string {
	if c.PgPassFile == "" {
		return filepath.Join(c.RunDir, "pgpass")
	}
	return c.PgPassFile
}

func (c Config) startTimeout() time.Duration {
	if c.StartTimeout <= 0 {
		return time.Minute
	}
	return c.StartTimeout
}

// rewindCredentials is who reads the upstream for pg_rewind and for judging.
func (c Config) rewindCredentials() Credentials {
	if c.Rewind.Username == "" {
		return c.Superuser
	}
	return c.Rewind
}

// tool is the path of one of PostgreSQL's programs.
func (c Config) tool(name string) string {
	if c.BinDir == "" {
		return name
	}
	return filepath.Join(c.BinDir, name)
}

// logFile receives what the postmaster prints before its own logging begins.
func (c Config) logFile() string { return filepath.Join(c.RunDir, "postgresql.log") }

// ssl adds the TLS and authentication options that server and client of that
// version know. version 0 means: unknown, add only what every version has.
func (c Credentials) ssl(info conninfo, version int) conninfo {
	info = info.add("sslmode", orDefault(c.SSLMode, "prefer")).
		add("sslcert", c.SSLCert).add("sslkey", c.SSLKey)
	if version >= 130000 {
		info = info.add("sslpassword", c.SSLPassword)
	}
	info = info.add("sslrootcert", c.SSLRootCert).add("sslcrl", c.SSLCRL)
	if version >= 140000 {
		info = info.add("sslcrldir", c.SSLCRLDir)
	}
	return info
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// toolConninfo is the connection string for PostgreSQL's own programs: without
// the password, which goes through a password file.
func (c Credentials) toolConninfo(host string, port int, database, app, passFile string, version int) conninfo {
	info := conninfo{}.add("dbname", database).add("user", c.Username).add("passfile", passFile).
		add("host", host).add("port", strconv.Itoa(port))
	info = c.ssl(info, version).add("application_name", app).add("krbsrvname", c.Krb)
	if version >= 120000 {
		info = info.add("gssencmode", orDefault(c.GSSEncMode, "prefer"))
	}
	if version >= 130000 {
		info = info.add("channel_binding", orDefault(c.ChannelBinding, "prefer"))
	}
	if version >= 170000 {
		info = info.add("sslnegotiation", c.SSLNegotiation)
	}
	return info
}
