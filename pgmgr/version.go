package pgmgr

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// minVersion is the oldest server that is supported.
const minVersion = 120000

// versionCache keeps the version of the binary that had this identity.
type versionCache struct {
	mu      sync.Mutex
	id      fileID
	version int
}

// ServerVersion is the version of the installed binary in the form of
// server_version_num (150020 for 15.20). A running server may be older, until its
// next restart.
func (m *Manager) ServerVersion(ctx context.Context) (int, error) {
	const op = "find the server's version"
	path := m.config().programPath("postgres")
	id, err := identify(path)
	if err != nil {
		return 0, classed(ErrBroken, op, fmt.Errorf("no usable postgres binary: %w", err))
	}
	m.version.mu.Lock()
	defer m.version.mu.Unlock()
	if m.version.version != 0 && m.version.id == id {
		return m.version.version, nil
	}
	out, err := m.run(ctx, tool{name: "postgres", args: []string{"--version"}})
	if err != nil {
		if ctx.Err() != nil {
			return 0, classed(ErrUnavailable, op, err)
		}
		return 0, orClassed(ErrBroken, op, err)
	}
	v, err := parseVersion(out)
	if err != nil {
		return 0, classed(ErrBroken, op, err)
	}
	if v < minVersion {
		return 0, classed(ErrBroken, op, fmt.Errorf("PostgreSQL %d is too old, 12 is needed", v/10000))
	}
	m.version.id, m.version.version = id, v
	return v, nil
}

// parseVersion reads "postgres (PostgreSQL) 15.20 (Debian …)"; betas and
// development versions count as the release's first.
func parseVersion(out string) (int, error) {
	match := regexp.MustCompile(`\) (\d+)(?:\.(\d+))?`).FindStringSubmatch(out)
	if match == nil {
		return 0, fmt.Errorf("unexpected answer to postgres --version: %q", strings.TrimSpace(out))
	}
	major, err := strconv.Atoi(match[1])
	if err != nil {
		return 0, fmt.Errorf("parse version: %w", err)
	}
	return major*10000 + atoi(match[2]), nil
}

// checkDataVersion refuses a data directory of another major version.
func (m *Manager) checkDataVersion(ctx context.Context) error {
	version, err := m.ServerVersion(ctx)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(m.config().DataDir, "PG_VERSION"))
	if err != nil {
		return classed(ErrBroken, "read PG_VERSION", err)
	}
	if data := strings.TrimSpace(string(b)); data != strconv.Itoa(version/10000) {
		return classed(ErrBroken, "check the data directory's version",
			fmt.Errorf("it is of PostgreSQL %s, the installed binaries are %d: set postgresql.bin_dir to those of %s, or name another data_dir",
				data, version/10000, data))
	}
	return nil
}

// programPath is where a program is; empty if it is nowhere.
func (c Config) programPath(name string) string {
	if c.BinDir != "" {
		return filepath.Join(c.BinDir, name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}
