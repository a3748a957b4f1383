package demo

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
	"github.com/pgregent/regent/internal/replay"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/storetest"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// scriptLimit is what the demo promises for its scripted part.
const scriptLimit = 90 * time.Second

func TestDemoPlaysItsScriptAndItsJournalsReplayEqual(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: the demo is left out of -short")
	}
	play(t, scriptLimit)
}

// The same on a server of etcd and of Consul.
func TestDemoOnStoreServers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes: the demo is left out of -short")
	}
	for _, tt := range []struct {
		store  sandbox.StoreKind
		binary func(*testing.T) string
		limit  time.Duration
	}{
		{sandbox.Etcd3Store, func(t *testing.T) string { return etcdtest.Binary(t, etcdtest.V36) }, scriptLimit},
		// Two fail-overs wait for Consul's ttl, up to 20 s each.
		{sandbox.ConsulStore, func(t *testing.T) string { return consultest.Binary(t) }, scriptLimit + 30*time.Second},
	} {
		t.Run(string(tt.store), func(t *testing.T) {
			play(t, tt.limit, "--dcs", string(tt.store), "--dcs-program", tt.binary(t))
		})
	}
}

// play runs the demo and judges what it said and left.
func play(t *testing.T, limit time.Duration, args ...string) {
	pgtest.BinDir(t) // without PostgreSQL there is nothing to show
	dir := filepath.Join(pgtest.SocketDir(t), "d")
	ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
	defer cancel()
	args = append([]string{"demo", "--exit", "--keep", "--dir", dir}, args...)
	cmd := exec.CommandContext(ctx, pgtest.Binary(t, "regent"), args...)
	cmd.WaitDelay = 10 * time.Second
	began := time.Now()
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > limit {
		t.Errorf("the script took %s, longer than %s", took, limit)
	}
	inOrder(t, string(out),
		"three agents start", "is its primary", "streams from it", "+ Cluster: demo", "target_session_attrs=read-write",
		"kill -9 of everything", "the client's inserts fail", "→ primary", "succeed again", "the client's outage", "Why?", "→ promoting",
		"power on again", "acknowledged ones lost",
		"kill -9 of the agent", "never two primaries", "0 rows of",
		"hand the leadership", "→ primary", "Successfully switched over", "0 rows of",
		"n1's journal replayed", "n2's journal replayed", "n3's journal replayed",
		"machine dies: ", "agent dies: ", "switchover: ", "done: ", "everything was stopped")
	for _, colour := range []string{"\x1b", "THIS MUST NOT HAPPEN"} {
		if strings.Contains(string(out), colour) {
			t.Errorf("the output, which goes to no terminal, holds %q", colour)
		}
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		report, err := replay.Check(filepath.Join(dir, "demo", name, "journal"), replay.AnyProgram)
		if err != nil {
			t.Errorf("journal of %s: %v", name, err)
		}
		if report.Compared < 20 || report.Uncounted > 0 {
			t.Errorf("journal of %s: %+v: too little was compared", name, report)
		}
	}
}

// inOrder checks that the texts stand in the output, each after the one before.
func inOrder(t *testing.T, out string, texts ...string) {
	t.Helper()
	at := 0
	for _, text := range texts {
		i := strings.Index(out[at:], text)
		if i < 0 {
			t.Errorf("%q is missing, or not where it belongs", text)
			continue
		}
		at += i + len(text)
	}
}

func TestDemoStaysUpUntilInterruptedAndLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: the demo is left out of -short")
	}
	pgtest.BinDir(t)
	dir := filepath.Join(pgtest.SocketDir(t), "d")
	ctx, cancel := context.WithTimeout(t.Context(), 2*scriptLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, pgtest.Binary(t, "regent"), "demo", "--dir", dir)
	cmd.WaitDelay = 10 * time.Second
	out := &untilText{text: "Ctrl-C ends it", seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-out.seen:
	case err := <-ended:
		t.Fatalf("it ended by itself: %v\n%s", err, out.all)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("interrupted: %v\n%s", err, out.all)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if left := pgtest.ProcessesIn(dir); len(left) > 0 {
		t.Errorf("left running: %v", left)
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
