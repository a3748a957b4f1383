package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m, "./cmd/regent", "./cmd/regent-keeper") }

// newCluster makes a cluster in the test's folder; the test closes it.
func newCluster(t *testing.T) *Cluster {
	t.Helper()
	c, err := New(Options{
		Dir: filepath.Join(pgtest.SocketDir(t), "c"),
		Bin: filepath.Dir(pgtest.Binary(t, "regent")), PGBin: pgtest.BinDir(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestClusterIsKilledInPartsHealsAndLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: real clusters are left out of -short")
	}
	ctx := deadline(t)
	c := newCluster(t)
	closed := false
	defer func() {
		if !closed {
			_ = c.Close() // the test has failed already
		}
	}()
	if err := c.PowerOn(); err != nil {
		t.Fatal(err)
	}
	primary, err := c.AwaitStreaming(ctx)
	if err != nil {
		t.Fatalf("%v\n%s", err, c.nodes[0].Tail(20))
	}
	if leader, err := c.RaftLeader(ctx); err != nil {
		t.Errorf("raft leader: %v", err)
	} else if c.Node(leader.Name()) != leader {
		t.Errorf("raft leader %s is no node", leader.Name())
	}
	killAndAwait(ctx, t, c, primary)
	// Orphans: a keeper without its agent, backends without their postmaster.
	last := c.nodes[0]
	for _, kill := range []func() error{last.KillAgent, last.KillPostmaster} {
		if err := kill(); err != nil {
			t.Error(err)
		}
	}
	closed = true
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if left := processesOf(c.opt.Dir, c.programs()); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
	if _, err := os.Stat(c.opt.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if err := last.PowerOn(); err == nil {
		t.Error("a closed cluster was switched on")
	}
}

// killAndAwait cuts a primary's power and waits until the cluster is whole again.
func killAndAwait(ctx context.Context, t *testing.T, c *Cluster, primary *Node) {
	t.Helper()
	agent, _ := primary.AgentPID()
	keeper, _ := primary.KeeperPID()
	postmaster, _ := primary.PostmasterPID()
	if err := primary.KillNode(); err != nil {
		t.Fatal(err)
	}
	if left := primary.processes(); len(left) > 0 {
		t.Errorf("killed node %s still runs %v", primary.Name(), left)
	}
	for _, pid := range []int{agent, keeper, postmaster} {
		if p, alive := readProcess(pid); alive && p.belongs(primary.dir, c.programs()) {
			t.Errorf("%v survived a power cut", p)
		}
	}
	for {
		now, err := c.AwaitPrimary(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if now != primary {
			break
		}
	}
	if runs, _ := primary.Runs(); runs != 1 {
		t.Errorf("a node without power started its agent (%d runs)", runs)
	}
	if err := primary.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AwaitStreaming(ctx); err != nil {
		t.Fatalf("%v\n%s", err, primary.Tail(30))
	}
	if err := primary.AwaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestReservedPortsDiffer(t *testing.T) {
	t.Parallel()
	var a, b ports
	seen := map[int]bool{}
	for range 50 {
		for _, p := range []*ports{&a, &b} {
			port, err := p.take()
			if err != nil {
				t.Fatal(err)
			}
			if seen[port] {
				t.Fatalf("port %d was given twice", port)
			}
			seen[port] = true
		}
	}
	if err := errors.Join(a.release(), b.release()); err != nil {
		t.Fatal(err)
	}
}

func TestProcessesBelongByWhereTheyWork(t *testing.T) {
	t.Parallel()
	programs := []string{"/b/bin", "/usr/lib/postgresql/15/bin"}
	for _, c := range []struct {
		name string
		p    process
		want bool
	}{
		{"a backend", process{exe: "/usr/lib/postgresql/15/bin/postgres", cwd: "/b/c/n1/data"}, true},
		{"the folder itself", process{exe: "/x", cwd: "/b/c"}, true},
		{"a neighbour whose name begins alike", process{exe: "/x", cwd: "/b/c2"}, false},
		{"a keeper", process{exe: "/b/bin/regent-keeper", cwd: "/", args: []string{"regent-keeper", "--run-dir=/b/c/n1/run"}}, true},
		{"another cluster's keeper", process{exe: "/b/bin/regent-keeper", cwd: "/", args: []string{"regent-keeper", "--run-dir=/b/d/n1/run"}}, false},
		{"somebody who reads a log", process{exe: "/usr/bin/tail", cwd: "/", args: []string{"tail", "-f", "/b/c/n1/agent.log"}}, false},
		{"a program from the folder", process{exe: "/b/c/tool", cwd: "/"}, true},
		{"a stranger's PostgreSQL", process{exe: "/usr/lib/postgresql/15/bin/postgres", cwd: "/var/lib/postgresql/15/main", args: []string{"postgres", "-D", "/var/lib/postgresql/15/main"}}, false},
	} {
		if got := c.p.belongs("/b/c", programs); got != c.want {
			t.Errorf("%s belongs: %v, want %v", c.name, got, c.want)
		}
	}
}

// A program in a sandbox ends in every way there is; what it started must end with it.
func TestSupervisorSweepsHoweverTheProgramEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: real clusters are left out of -short")
	}
	for _, end := range []struct {
		name string
		hit  func(t *testing.T, outer, inner int)
	}{
		{"interrupted", func(t *testing.T, outer, _ int) { signalTo(t, outer, unix.SIGINT) }},
		{"killed itself", func(t *testing.T, _, inner int) { signalTo(t, inner, unix.SIGKILL) }},
		{"its supervisor killed", func(t *testing.T, outer, _ int) { signalTo(t, outer, unix.SIGKILL) }},
	} {
		t.Run(end.name, func(t *testing.T) {
			dir := filepath.Join(pgtest.SocketDir(t), "d")
			outer, done := startDemo(t, dir)
			inner := awaitPostgres(t, dir, outer)
			end.hit(t, outer, inner)
			select {
			case <-done:
			case <-time.After(30 * time.Second):
				t.Fatal("the program doesn't end")
			}
			awaitGone(t, dir)
		})
	}
}

// startDemo runs `regent demo` in dir and returns its pid, and a channel that is closed when
// it has ended.
func startDemo(t *testing.T, dir string) (int, <-chan struct{}) {
	t.Helper()
	out, err := os.Create(dir + ".out")
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.StartProcess(pgtest.Binary(t, "regent"), []string{"regent", "demo", "--dir", dir},
		&os.ProcAttr{Env: os.Environ(), Files: []*os.File{nil, out, out}})
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = p.Wait() // how it ended is what the test does
	}()
	t.Cleanup(func() {
		_ = p.Kill() // it has ended, or the test has failed
		<-done
	})
	return p.Pid, done
}

// awaitPostgres waits until a PostgreSQL runs below dir and returns the pid of the program
// inside the sandbox, which is the supervisor's child.
func awaitPostgres(t *testing.T, dir string, outer int) int {
	t.Helper()
	ctx, inner := deadline(t), 0
	for {
		postgres := false
		for _, p := range processesOf(dir, nil) {
			if strings.HasPrefix(p.cwd, dir) && filepath.Base(p.exe) == "postgres" {
				postgres = true
			}
			if filepath.Base(p.exe) == "regent" && len(p.args) > 1 && p.args[1] == "demo" && p.pid != outer {
				inner = p.pid
			}
		}
		if postgres && inner != 0 {
			return inner
		}
		if !pause(ctx, 10*time.Millisecond) {
			said, _ := os.ReadFile(dir + ".out") // for the message only
			t.Fatalf("no PostgreSQL in the demo:\n%s", said)
		}
	}
}

func signalTo(t *testing.T, pid int, s unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, s); err != nil {
		t.Fatal(fmt.Errorf("send %s to %d: %w", s, pid, err))
	}
}

// awaitGone waits until neither processes nor the folder are left: when the supervisor itself
// was killed, nobody else is there to wait for.
func awaitGone(t *testing.T, dir string) {
	t.Helper()
	ctx := deadline(t)
	for {
		left := processesOf(dir, nil)
		_, err := os.Stat(dir)
		if len(left) == 0 && errors.Is(err, os.ErrNotExist) {
			return
		}
		if !pause(ctx, 10*time.Millisecond) {
			t.Fatalf("left behind: %v (folder: %v)", left, err)
		}
	}
}

func TestBareServersChangeRolesCrashAndGo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds: real servers are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := filepath.Join(pgtest.SocketDir(t), "b")
	b, err := NewBare(ctx, Options{Dir: dir, PGBin: pgtest.BinDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }() // again: for a test that failed before the end
	first := b.primary
	for _, step := range []func(context.Context) error{b.Checkpoint, b.StopAndPromote, b.Rejoin, b.StopAndPromote, b.Rejoin, b.Crash, b.AwaitStreaming} {
		if err := step(ctx); err != nil {
			t.Fatalf("%v\n%s", err, b.Tail(20))
		}
	}
	if b.primary != first {
		t.Error("two changes of roles end where they began")
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if left := pgtest.ProcessesIn(dir); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}
