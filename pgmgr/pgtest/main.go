package pgtest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/child"
)

// rootEnv names the folder of this run. It is set by the supervisor for the
// tests, and tells the second run of the test binary that it is the second.
const rootEnv = "REGENT_TEST_DIR"

// Main runs the tests of a package and exits with their code. build names main
// packages relative to the module's root ("./cmd/regent-keeper"); tests find the
// results with Binary. It never returns.
func Main(m *testing.M, build ...string) {
	MainIn(m, func(run func() int) int { return run() }, build...)
}

// MainIn is Main for tests that need more around them: in the second run, as the user that
// PostgreSQL accepts, around is called with what runs the tests, and returns their exit code.
func MainIn(m *testing.M, around func(run func() int) int, build ...string) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run()) // nothing below is needed: see long
	}
	if os.Getenv(rootEnv) != "" {
		os.Exit(around(m.Run))
	}
	code, err := supervise(build)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
	}
	os.Exit(code)
}

// supervise prepares the folder, runs the tests in it as a child, and leaves
// nothing behind.
func supervise(build []string) (code int, err error) {
	// The child's parent-death signal is bound to this thread.
	runtime.LockOSThread()
	who, err := testUser()
	if err != nil {
		return unrunnable(err)
	}
	dir, err := makeRoot(who)
	if err != nil {
		return 1, err
	}
	defer func() {
		if left := sweep(dir); len(left) > 0 && code == 0 {
			code = 1
			err = fmt.Errorf("the tests passed but left processes running:\n  %s", strings.Join(left, "\n  "))
		}
	}()
	if err := buildAll(filepath.Join(dir, "bin"), build); err != nil {
		return 1, err
	}
	return runTests(dir, who)
}

// unrunnable reports that these tests can't run on this machine.
func unrunnable(err error) (int, error) {
	if os.Getenv("CI") != "" {
		return 1, err
	}
	return 0, fmt.Errorf("all tests of this package are skipped: %w", err)
}

// makeRoot makes the run's folder. Its path is kept short, because Unix socket
// paths end at 107 bytes.
func makeRoot(who user) (string, error) {
	base := os.TempDir()
	if len(base) > 32 {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "regent-")
	if err != nil {
		return "", fmt.Errorf("make test folder: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", fmt.Errorf("open test folder: %w", err)
	}
	for _, sub := range []string{"bin", "home", "tmp", "s", "ports", "out", diskName} {
		p := filepath.Join(dir, sub)
		if err := os.Mkdir(p, 0o755); err != nil {
			return "", fmt.Errorf("make test folder: %w", err)
		}
		if sub == "bin" || !who.switched {
			continue
		}
		if err := os.Chown(p, int(who.uid), int(who.gid)); err != nil {
			return "", fmt.Errorf("give test folder to %s: %w", who.name, err)
		}
	}
	if who.switched {
		if err := os.Chown(dir, int(who.uid), int(who.gid)); err != nil {
			return "", fmt.Errorf("give test folder to %s: %w", who.name, err)
		}
	}
	return dir, nil
}

// buildAll builds the named main packages into bin. It runs before privileges are
// dropped, because the other user has no Go cache and may not even read the clone.
func buildAll(bin string, build []string) error {
	for _, path := range build {
		if filepath.IsAbs(path) { // a program from where the tests' user may not look
			if err := copyFile(path, filepath.Join(bin, filepath.Base(path)), 0o755); err != nil {
				return fmt.Errorf("copy %s: %w", path, err)
			}
		}
	}
	build = slices.DeleteFunc(slices.Clone(build), filepath.IsAbs)
	if len(build) == 0 {
		return nil
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", append([]string{"build", "-o", bin + "/"}, build...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", strings.Join(build, " "), err, out)
	}
	return nil
}

// moduleRoot walks up from the package's folder to go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find module root: %w", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("find module root: no go.mod above %s", dir)
		}
	}
}

// runTests runs a copy of this binary as who and returns its exit code.
func runTests(dir string, who user) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, fmt.Errorf("find the test binary: %w", err)
	}
	bin := filepath.Join(dir, "bin", "tests-"+filepath.Base(self))
	if err := copyFile(self, bin, 0o755); err != nil {
		return 1, fmt.Errorf("copy the test binary: %w", err)
	}
	work, err := workDir(dir, who)
	if err != nil {
		return 1, err
	}
	args, outputs := redirectOutputs(os.Args[1:], filepath.Join(dir, "out"))
	cmd := exec.Command(bin, args...)
	cmd.Dir = work
	cmd.Env = testEnv(dir, who)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if who.switched {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: who.uid, Gid: who.gid}
	}
	// Orphans of the tests (keepers, postmasters) become this process's children:
	// it can find them all, and no zombie stays to look alive.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, fmt.Errorf("become subreaper: %w", err)
	}
	// System V segments, which every PostgreSQL has, outlive a server that is killed, and nobody
	// finds them once its data directory is gone; a namespace of their own takes them with it.
	// This thread's children are in it. Where it is refused, freeSharedMemory finds most.
	_ = unix.Unshare(unix.CLONE_NEWIPC)
	mountDisk(dir, who)
	code, err := child.Run(cmd, "the tests", syscall.SIGQUIT)
	if err != nil {
		return 1, err
	}
	return code, outputs.bringBack()
}

// testEnv is the environment of the tests: the caller's, with a home and a
// temporary folder of their own.
func testEnv(dir string, who user) []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case name == "HOME", name == "TMPDIR", name == "USER", name == "LOGNAME", name == "PWD":
		case strings.HasPrefix(name, "XDG_"), strings.HasPrefix(name, "PG"):
		default:
			env = append(env, kv)
		}
	}
	return append(env,
		rootEnv+"="+dir,
		"HOME="+filepath.Join(dir, "home"),
		"TMPDIR="+filepath.Join(dir, "tmp"),
		"USER="+who.name, "LOGNAME="+who.name)
}

// sweep ends what the tests left running, frees what killed servers left in the
// kernel, removes the folder, and returns the leftovers' command lines.
// Processes that are on their way out get a moment; it is not held against a test
// that the last backend of its server is still exiting.
func sweep(dir string) []string {
	const grace = 3 * time.Second
	waitGone(descendants, grace)
	var left []string
	for _, p := range descendants() {
		left = append(left, fmt.Sprintf("%d %s", p, cmdline(p)))
	}
	if err := killUntilGone(descendants); err != nil {
		left = append(left, err.Error())
	}
	freeSharedMemory(dir)
	unmountDisk(dir)
	if err := os.RemoveAll(dir); err != nil {
		left = append(left, "and a folder: "+err.Error())
	}
	return left
}
