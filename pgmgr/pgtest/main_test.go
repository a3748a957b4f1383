package pgtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

func TestRunsAsAUserPostgreSQLAccepts(t *testing.T) {
	dir := root(t)
	if os.Getuid() == 0 {
		t.Fatal("the tests run as root")
	}
	if home := os.Getenv("HOME"); !strings.HasPrefix(home, dir) {
		t.Errorf("HOME is %s, not a folder of this run", home)
	}
}

func TestDataDirStartsAndKillInEndsEveryBackend(t *testing.T) {
	data, sock := DataDir(t), SocketDir(t)
	cmd := exec.Command(filepath.Join(BinDir(t), "postgres"), "-D", data, "-k", sock)
	cmd.Dir = data
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitGone(func() []int { // until the auxiliary processes are there
		if len(ProcessesIn(data)) > 3 {
			return nil
		}
		return []int{0}
	}, endTimeout)
	if n := len(ProcessesIn(data)); n <= 3 {
		t.Fatalf("%d processes in the data directory, want the postmaster and its children", n)
	}
	KillIn(t, data)
	if left := ProcessesIn(data); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the killed postmaster ended without an error")
	}
}

func TestDataDirsAreSeparate(t *testing.T) {
	a, b := DataDir(t), DataDir(t)
	if err := os.Remove(filepath.Join(a, "PG_VERSION")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(b, "PG_VERSION")); err != nil {
		t.Errorf("a change in one data directory shows in the other: %v", err)
	}
}

func TestFreePortsDiffer(t *testing.T) {
	var ports []int
	for range 50 {
		p := FreePort(t)
		if slices.Contains(ports, p) {
			t.Fatalf("port %d was given twice", p)
		}
		ports = append(ports, p)
	}
}

func TestSocketPathFits(t *testing.T) {
	if path := filepath.Join(SocketDir(t), ".s.PGSQL.65535.lock"); len(path) > 107 {
		t.Errorf("socket path of %d bytes: %s", len(path), path)
	}
}

func TestRedirectOutputs(t *testing.T) {
	args, moved := redirectOutputs([]string{
		"-test.v=true", "-test.testlogfile=/elsewhere/log", "-test.coverprofile=c.out", "-test.outputdir=/elsewhere/o", "-test.run=X",
	}, "/out")
	want := []string{"-test.v=true", "-test.coverprofile=/out/test.coverprofile", "-test.run=X"}
	if !slices.Equal(args, want) {
		t.Errorf("args %q, want %q", args, want)
	}
	if len(moved) != 1 || moved[0].to != "/elsewhere/o/c.out" {
		t.Errorf("brought back: %v", moved)
	}
}

func TestSmallDiskFillsAndEmpties(t *testing.T) {
	dir, fill := SmallDisk(t)
	free := fill()
	file := filepath.Join(dir, "x")
	if err := os.WriteFile(file, make([]byte, 8192), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing to a full disk: %v", err)
	}
	free()
	if err := os.WriteFile(file, make([]byte, 8192), 0o600); err != nil {
		t.Errorf("writing after space was made: %v", err)
	}
}
