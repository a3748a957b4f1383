package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/pgmgr/keeper"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

func writePIDFile(t *testing.T, dir string, pid int, dataDir string, started int64) {
	t.Helper()
	text := fmt.Sprintf("%d\n%s\n%d\n5432\n", pid, dataDir, started)
	if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSecondKeeperIsRefused: one per run directory and one per data directory.
func TestSecondKeeperIsRefused(t *testing.T) {
	w := newWorld(t)
	bin := pgtest.Binary(t, "regent-keeper")
	for _, tt := range []struct {
		name, run, data, sentence string
		code                      int
	}{
		{"same folders", w.run, w.data, "a keeper serves run directory", keeper.ExitOccupied},
		{"other run directory", pgtest.SocketDir(t), w.data, "has locked data directory", keeper.ExitElsewhere},
		{"run directory in the data directory", w.data + "/run", w.data, "lies in data directory", keeper.ExitFailed},
	} {
		for _, detach := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, detach=%v", tt.name, detach), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				out, err := exec.CommandContext(ctx, bin, "--run-dir", tt.run, "--data-dir", tt.data,
					fmt.Sprintf("--detach=%v", detach)).CombinedOutput()
				exit, ok := errors.AsType[*exec.ExitError](err)
				if !ok || exit.ExitCode() != tt.code {
					t.Errorf("ended with %v, want exit code %d", err, tt.code)
				}
				if !strings.Contains(string(out), tt.sentence) {
					t.Errorf("said %q, want %q", out, tt.sentence)
				}
			})
		}
	}
	t.Run("launch for another data directory", func(t *testing.T) {
		c := w.config()
		c.DataDir = pgtest.EmptyDataDir(t)
		_, err := keeper.Launch(w.ctx(), c)
		refused(t, err, "belongs to the keeper")
		if _, err := w.k.Status(w.ctx()); err != nil {
			t.Errorf("the attempt cut off the rightful agent: %v", err)
		}
	})
	t.Run("launch from another run directory", func(t *testing.T) {
		c := w.config()
		c.RunDir = pgtest.SocketDir(t)
		_, err := keeper.Launch(w.ctx(), c)
		refused(t, err, "has locked data directory")
	})
}

func TestLaunchSaysWhatIsWrong(t *testing.T) {
	w := &world{t: t, data: pgtest.EmptyDataDir(t), run: pgtest.SocketDir(t)}
	c := w.config()
	c.RunDir = filepath.Join(pgtest.SocketDir(t), strings.Repeat("long", 30))
	_, err := keeper.Launch(w.ctx(), c)
	if !errors.Is(err, keeper.ErrUnavailable) || !strings.Contains(err.Error(), "choose a shorter run directory") {
		t.Errorf("got %v", err)
	}
	c = w.config()
	c.RunDir, c.Binary = pgtest.SocketDir(t), "/nowhere/regent-keeper"
	if _, err := keeper.Launch(w.ctx(), c); !errors.Is(err, keeper.ErrUnavailable) {
		t.Errorf("got %v, want unavailable", err)
	}
	c = w.config()
	c.RunDir = pgtest.SocketDir(t)
	if err := os.Chmod(c.RunDir, 0o770); err != nil {
		t.Fatal(err)
	}
	_, err = keeper.Launch(w.ctx(), c)
	if !errors.Is(err, keeper.ErrUnavailable) || !strings.Contains(err.Error(), "writable by nobody else") {
		t.Errorf("got %v", err)
	}
}

// TestConcurrentLaunchesShareOneKeeper: two agents starting at once get the same.
func TestConcurrentLaunchesShareOneKeeper(t *testing.T) {
	w := &world{t: t, data: pgtest.DataDir(t), run: pgtest.SocketDir(t)}
	type result struct {
		k   *keeper.Client
		err error
	}
	results := make(chan result, 4)
	for range cap(results) {
		go func() {
			k, err := keeper.Launch(w.ctx(), w.config())
			results <- result{k, err}
		}()
	}
	var clients []*keeper.Client
	for range cap(results) {
		r := <-results
		// One may be superseded between looking and attaching; that is no failure
		// of the launch, and the others show it.
		if r.err != nil {
			t.Errorf("launch: %v", r.err)
			continue
		}
		clients = append(clients, r.k)
	}
	commanding := 0
	for _, k := range clients {
		if err := k.Fence(w.ctx(), time.Second); err == nil {
			commanding++
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	if commanding != 1 {
		t.Errorf("%d of %d connections command the keeper, want one", commanding, len(clients))
	}
}

// TestNewestConnectionWins: S10. The older one is told and closed; what it had
// armed stays; a looker disturbs nobody.
func TestNewestConnectionWins(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	old := w.k
	if seen, err := keeper.Peek(w.ctx(), w.run); err != nil || seen.PID != st.PID {
		t.Errorf("peek: %+v (%v), want pid %d", seen, err, st.PID)
	}
	if err := old.Extend(w.ctx(), g); err != nil {
		t.Errorf("a peek cut off the agent: %v", err)
	}
	w.k = w.launch()
	var last keeper.Event
	for e := range old.Events() {
		last = e
	}
	if last.Kind != keeper.Superseded {
		t.Errorf("the older connection's last event is %+v, want that it was superseded", last)
	}
	<-old.Done()
	if err := old.Extend(w.ctx(), g); !errors.Is(err, keeper.ErrUnavailable) {
		t.Errorf("the older connection extended: %v", err)
	}
	if err := old.Err(); err == nil || !strings.Contains(err.Error(), "newer connection") {
		t.Errorf("the older connection ended with %v", err)
	}
	now, err := w.k.Status(w.ctx())
	if err != nil || now.PID != st.PID || now.Armed == nil || *now.Armed != g {
		t.Errorf("status %+v (%v), want the server as it was", now, err)
	}
}

// TestOlderConnectionIsClosedByTheKeeper: S10 doesn't rest on the client's manners.
func TestOlderConnectionIsClosedByTheKeeper(t *testing.T) {
	w := newWorld(t)
	raw := w.raw()
	say := func(r keeper.Request) keeper.Message {
		t.Helper()
		line, err := keeper.Line(r)
		if err != nil {
			t.Fatal(err)
		}
		return raw.say(strings.TrimSpace(string(line)))
	}
	if m := say(keeper.Request{ID: 1, Op: keeper.OpDisarm}); !strings.Contains(m.Refused, "attach first") {
		t.Errorf("a command before attaching was answered %+v", m)
	}
	if m := say(keeper.Request{ID: 2, Op: keeper.OpAttach}); m.Refused != "" || m.Status == nil {
		t.Errorf("attaching was answered %+v", m)
	}
	if m := say(keeper.Request{ID: 3, Op: "dance"}); !strings.Contains(m.Refused, "doesn't know") {
		t.Errorf("an unknown request was answered %+v", m)
	}
	w.k = w.launch()
	rest, err := io.ReadAll(raw.lines)
	if err != nil {
		t.Fatalf("the keeper kept the older connection open: %v", err)
	}
	if !strings.Contains(string(rest), string(keeper.Superseded)) {
		t.Errorf("the older connection was told %q", rest)
	}
}

// TestRestartedAgentFindsItsPostgres: the first client vanishes without closing, as
// an agent does that is killed; the second finds the server running and armed, and
// hears of its end although that came between the two.
func TestRestartedAgentFindsItsPostgres(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	agent := exec.Command(os.Args[0], "-test.run=^TestHelperAgentThatHangs$")
	agent.Env = append(os.Environ(), "REGENT_TEST_ATTACH="+w.run)
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Errorf("the helper attached not: %v", err)
	}
	<-w.k.Done() // superseded by the helper, which commands now
	signalPID(t, agent.Process.Pid, syscall.SIGKILL)
	_ = agent.Wait() // it was killed, and says so
	w.k = w.launch()
	now, err := w.k.Status(w.ctx())
	if err != nil || now.PID != st.PID || !now.Alive || now.Armed == nil || now.Adopted {
		t.Fatalf("status %+v (%v), want the server as it was", now, err)
	}
	if err := w.k.Close(); err != nil {
		t.Fatal(err)
	}
	signalPID(t, st.PID, syscall.SIGKILL)
	w.eventually("the server is down", func() error {
		seen, err := keeper.Peek(w.ctx(), w.run)
		if err == nil && seen.Alive {
			return fmt.Errorf("alive")
		}
		return err
	})
	w.k = w.launch()
	down, _ := w.next(keeper.ServerDown)
	if !down.Repeated || down.Exit.PID != st.PID || down.Exit.Signal != int(syscall.SIGKILL) {
		t.Errorf("event %+v with exit %+v, want the end of %d, repeated", down, down.Exit, st.PID)
	}
}

// TestHelperAgentThatHangs is no test: it is the agent that
// TestRestartedAgentFindsItsPostgres kills.
func TestHelperAgentThatHangs(t *testing.T) {
	run := os.Getenv("REGENT_TEST_ATTACH")
	if run == "" {
		return
	}
	if _, err := keeper.Connect(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	fmt.Print(".")
	select {}
}

// TestContextsAreObeyed: with the keeper stopped, no call outlives its context, and
// the class says what may have happened.
func TestContextsAreObeyed(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	signalPID(t, st.KeeperPID, syscall.SIGSTOP)
	defer signalPID(t, st.KeeperPID, syscall.SIGCONT)
	w.frozen(st.KeeperPID)
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if err := w.k.Extend(short(), g); !errors.Is(err, keeper.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("extend: %v, want unknown", err)
	}
	if _, err := w.k.Status(short()); !errors.Is(err, keeper.ErrUnavailable) {
		t.Errorf("status: %v, want unavailable", err)
	}
	if err := w.k.WaitDown(short()); !errors.Is(err, keeper.ErrUnavailable) {
		t.Errorf("wait: %v, want unavailable", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.k.Extend(cancelled, g); !errors.Is(err, keeper.ErrUnavailable) {
		t.Errorf("extend with an ended context: %v, want unavailable: nothing was sent", err)
	}
	if _, err := keeper.Connect(short(), w.run); err == nil {
		t.Error("connected to a stopped keeper")
	}
}

// TestKeeperIsSmallAndIdle measures what a keeper costs while nothing happens.
func TestKeeperIsSmallAndIdle(t *testing.T) {
	const maxRSS, maxCPU = 6 << 10, 0.01 // KiB, share of one core
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	for i := range 200 { // some minutes of an agent's renewals
		g.Deadline += 1
		if err := w.k.Extend(w.ctx(), g); err != nil {
			t.Fatalf("extension %d: %v", i, err)
		}
	}
	before, began := cpuTime(t, st.KeeperPID), time.Now()
	const span = 2 * time.Second
	idle, cancel := context.WithTimeout(w.ctx(), span)
	defer cancel()
	if err := w.k.WaitDown(idle); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("waiting for nothing: %v", err)
	}
	share := float64(cpuTime(t, st.KeeperPID)-before) / float64(time.Since(began))
	rss := procNumber(t, st.KeeperPID, "VmRSS:")
	t.Logf("keeper: %d KiB resident, %.2f %% of a core when idle", rss, 100*share)
	if rss > maxRSS {
		t.Errorf("%d KiB resident, want at most %d", rss, maxRSS)
	}
	if share > maxCPU {
		t.Errorf("%.1f %% of a core when idle", 100*share)
	}
}

// cpuTime of a process, to a hundredth of a second.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// procNumber reads a line of /proc/PID/status.
func procNumber(t *testing.T, pid int, name string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), name)
	var n int
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFindBinary(t *testing.T) {
	dir := t.TempDir()
	keeperPath := filepath.Join(dir, keeper.BinaryName)
	if err := os.WriteFile(keeperPath, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "regent")
	if err := os.Symlink(filepath.Join(dir, "regent"), link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "regent"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, agent := range []string{filepath.Join(dir, "regent"), link} {
		if got, err := keeper.FindBinary(agent); err != nil || got != keeperPath {
			t.Errorf("beside %s: %s (%v), want %s", agent, got, err, keeperPath)
		}
	}
	t.Setenv("PATH", dir)
	if got, err := keeper.FindBinary("/nowhere/regent"); err != nil || got != keeperPath {
		t.Errorf("in PATH: %s (%v)", got, err)
	}
	t.Setenv("PATH", "")
	if got, err := keeper.FindBinary("/nowhere/regent"); err == nil {
		t.Errorf("found %s where there is none", got)
	}
}
