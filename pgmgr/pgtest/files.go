package pgtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// minMajor is the oldest PostgreSQL that is supported; preferredMajor the one
// tests should run when there is a choice.
const (
	minMajor       = 12
	preferredMajor = 15
)

// templateConf is appended to the postgresql.conf of every DataDir. Nothing here
// weakens what is acknowledged when: only the disk is left out. Dynamic shared
// memory lies in the data directory, so that a killed server leaves none behind
// in /dev/shm. max_connections stays as initdb has it: a standby refuses to start with
// fewer than the control file names.
const templateConf = `
fsync = off
full_page_writes = off
listen_addresses = ''
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
log_line_prefix = '%m [%p] '
`

// Need skips the test with the reason, or fails it where CI is set.
func Need(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("in CI this must run: %s", reason)
	}
	t.Skip(reason)
}

// long skips a test that needs real processes when only the short ones are wanted.
func long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs real processes; run without -short")
	}
}

// Tool returns the path of a program of the system's, which may lie at a place outside of PATH.
// Without it the test is skipped, or fails where CI is set.
func Tool(t testing.TB, name, place string) string {
	t.Helper()
	for _, candidate := range []string{place, name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	Need(t, "no "+name+" on this machine (make setup installs it on Debian)")
	return ""
}

// Binary returns the path of a command that Main was asked to build, or to copy.
func Binary(t testing.TB, name string) string {
	t.Helper()
	long(t)
	path := filepath.Join(root(t), "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s was not built: name ./cmd/%s in pgtest.Main", name, name)
	}
	return path
}

// BinDir returns the folder of PostgreSQL's programs, all of them: initdb and
// postgres are in no user's PATH on Debian.
func BinDir(t testing.TB) string {
	t.Helper()
	long(t)
	dir, err := findBinDir()
	if err != nil {
		Need(t, err.Error())
	}
	return dir
}

// findBinDir looks where Debian and the PGDG packages put servers, then in PATH.
func findBinDir() (string, error) {
	best, bestMajor := "", 0
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("look for PostgreSQL: %w", err)
		}
		for _, dir := range found {
			major := trailingNumber(filepath.Base(filepath.Dir(dir)))
			if major < minMajor || !executable(filepath.Join(dir, "initdb")) {
				continue
			}
			if major == preferredMajor {
				return dir, nil
			}
			if major > bestMajor {
				best, bestMajor = dir, major
			}
		}
	}
	if best != "" {
		return best, nil
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(initdb); err == nil {
			return filepath.Dir(real), nil
		}
	}
	return "", errors.New("no PostgreSQL server (12 or newer) found in PATH, /usr/lib/postgresql or /usr/pgsql-*: " +
		"install postgresql-15")
}

// trailingNumber reads the number at the end of s ("15", "pgsql-15"), 0 if none.
func trailingNumber(s string) int {
	i := len(s)
	for i > 0 && s[i-1] >= '0' && s[i-1] <= '9' {
		i--
	}
	n, err := strconv.Atoi(s[i:])
	if err != nil {
		return 0
	}
	return n
}

func executable(path string) bool { return unix.Access(path, unix.X_OK) == nil }

// DataDir returns a fresh data directory: superuser postgres, everybody trusted,
// checksums on (pg_rewind wants them), no fsync. It is a copy of one made by
// initdb once per run, so all of a run share a system identifier. When the test
// ends, every process in it is killed and it is removed.
func DataDir(t testing.TB) string {
	t.Helper()
	long(t)
	template := dataTemplate(t)
	dir := EmptyDataDir(t)
	if out, err := run("cp", "-a", template+"/.", dir); err != nil {
		t.Fatalf("copy the template data directory: %v\n%s", err, out)
	}
	return dir
}

// EmptyDataDir returns a folder for a data directory that the test fills itself
// (initdb, base backup), with DataDir's clean-up.
func EmptyDataDir(t testing.TB) string {
	t.Helper()
	long(t)
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatalf("make data directory: %v", err)
	}
	t.Cleanup(func() {
		KillIn(t, dir)
		freeSharedMemory(dir)
	})
	return dir
}

// dataTemplate runs initdb once per run, whichever test comes first.
func dataTemplate(t testing.TB) string {
	t.Helper()
	bin, base := BinDir(t), root(t)
	template := filepath.Join(base, "template")
	lock, err := os.OpenFile(template+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatalf("lock the template: %v", err)
	}
	defer func() { _ = lock.Close() }() // closing unlocks
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatalf("lock the template: %v", err)
	}
	if _, err := os.Stat(template); err == nil {
		return template
	}
	making := template + ".making"
	if out, err := run(filepath.Join(bin, "initdb"), "-D", making, "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions", "--data-checksums"); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	conf, err := os.OpenFile(filepath.Join(making, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatalf("configure the template: %v", err)
	}
	_, err = conf.WriteString(templateConf)
	if err := errors.Join(err, conf.Close()); err != nil {
		t.Fatalf("configure the template: %v", err)
	}
	if err := os.Rename(making, template); err != nil {
		t.Fatalf("finish the template: %v", err)
	}
	return template
}

// SocketDir returns a folder whose path is short enough for Unix sockets. When
// the test ends, every process in it is killed (a keeper lives in its run
// directory) and it is removed.
func SocketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(root(t), "s"), "")
	if err != nil {
		t.Fatalf("make socket folder: %v", err)
	}
	t.Cleanup(func() {
		KillIn(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove socket folder: %v", err)
		}
	})
	return dir
}

// FreePort returns a TCP port on which nothing listens on 127.0.0.1, never the
// same twice in a run. It lies below the kernel's range for outgoing connections,
// so that none of those takes it before the test's server does.
func FreePort(t testing.TB) int {
	t.Helper()
	const low, high, tries = 11000, 32000, 200
	for range tries {
		port := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatalf("release port %d: %v", port, err)
		}
		mark := filepath.Join(root(t), "ports", strconv.Itoa(port))
		f, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatalf("mark port %d: %v", port, err)
		}
		return port
	}
	t.Fatalf("no free port in %d tries", tries)
	return 0
}

// root is the run's folder.
func root(t testing.TB) string {
	t.Helper()
	long(t)
	dir := os.Getenv(rootEnv)
	if dir == "" {
		t.Fatal("this package's TestMain must call pgtest.Main")
	}
	return dir
}

// run runs a program in "/": PostgreSQL's tools want to return to the folder they
// were called in, which may lie in another user's home.
func run(args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(slices.Clone(os.Environ()), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
