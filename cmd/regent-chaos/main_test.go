package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestMain(m *testing.M) {
	pgtest.Main(m, "./cmd/regent", "./cmd/regent-keeper", "./cmd/regent-chaos")
}

func TestInterruptedSoakReportsAndLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds: real clusters are left out of -short")
	}
	pgtest.BinDir(t)
	work := pgtest.SocketDir(t)
	cmd := exec.Command(pgtest.Binary(t, "regent-chaos"), "soak", "--minutes", "5", "--only", "change of /config")
	cmd.Env = append(os.Environ(), "TMPDIR="+work)
	cmd.WaitDelay = 10 * time.Second
	out := &untilText{text: "lost 0", seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	limit := time.NewTimer(90 * time.Second)
	defer limit.Stop()
	select {
	case <-out.seen:
	case <-limit.C:
		t.Error("no strike in 90 s")
	case err := <-ended:
		t.Fatalf("it ended by itself: %v\n%s", err, out.all)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	err := <-ended
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != interrupted {
		t.Errorf("it ended with %v, want exit code %d", err, interrupted)
	}
	for _, want := range []string{"rows acknowledged, 0 lost", "ended early: interrupted after "} {
		if !strings.Contains(string(out.all), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if strings.Contains(string(out.all), "kept") {
		t.Error("an interrupt is no violation: nothing should be kept")
	}
	left, err := filepath.Glob(filepath.Join(work, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
	if pids := pgtest.ProcessesIn(work); len(pids) > 0 {
		t.Errorf("left running: %v", pids)
	}
	if t.Failed() {
		t.Logf("output:\n%s", out.all)
	}
}

// untilText collects output and announces a text. It is written by one goroutine, and read
// after that has ended.
type untilText struct {
	text string
	seen chan struct{}
	all  []byte
	said bool
}

func (u *untilText) Write(p []byte) (int, error) {
	u.all = append(u.all, p...)
	if !u.said && strings.Contains(string(u.all), u.text) {
		u.said = true
		close(u.seen)
	}
	return len(p), nil
}

func TestFiguresReplaceWhatIsBetweenTheMarksAndNothingElse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.md")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# By hand\n" + figuresBegin + "old\n" + figuresEnd + "more by hand\n")
	for _, figures := range []string{"new\n", "newer\n"} {
		if err := putFigures(file, []byte(figures)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := "# By hand\n" + figuresBegin + "\nnewer\n\n" + figuresEnd + "more by hand\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	write("# By hand, without marks\n")
	if err := putFigures(file, []byte("x")); err == nil {
		t.Error("a document without marks was overwritten")
	}
}
