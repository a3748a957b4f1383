package keeper_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestProtocolVersionsAgreeOrSayWhichIsTooOld(t *testing.T) {
	for _, tt := range []struct{ other, oldest, newest, want int }{
		{0, 1, 3, 1}, {1, 1, 3, 1}, {2, 2, 3, 2}, {9, 2, 3, 3}, {0, 2, 3, 0}, {1, 2, 3, 0},
	} {
		got, err := keeper.Agree(tt.other, tt.oldest, tt.newest)
		if got != tt.want || (err != nil) != (tt.want == 0) {
			t.Errorf("%+v: got %d, %v", tt, got, err)
		}
	}
}

// raw is a connection that says what it likes.
type raw struct {
	t     *testing.T
	nc    net.Conn
	lines *bufio.Reader
}

func (w *world) raw() *raw {
	w.t.Helper()
	path, err := keeper.SocketPath(w.run)
	if err != nil {
		w.t.Fatal(err)
	}
	nc, err := net.Dial("unix", path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = nc.Close() }) // closed by the other end, if all is well
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		w.t.Fatal(err)
	}
	return &raw{t: w.t, nc: nc, lines: bufio.NewReader(nc)}
}

func (r *raw) say(line string) keeper.Message {
	r.t.Helper()
	if _, err := fmt.Fprintln(r.nc, line); err != nil {
		r.t.Fatal(err)
	}
	answer, err := r.lines.ReadBytes('\n')
	if err != nil {
		r.t.Fatal(err)
	}
	var m keeper.Message
	if err := json.Unmarshal(answer, &m); err != nil {
		r.t.Fatal(err)
	}
	return m
}

// TestKeeperIgnoresWhatANewerAgentAdds: a field that must not be ignored raises the
// protocol's version instead.
func TestKeeperIgnoresWhatANewerAgentAdds(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	w.start(&g)
	r := w.raw()
	m := r.say(`{"id":1,"op":"attach","protocol":99,"hat":{"colour":"red"}}`)
	if m.Refused != "" || m.Status == nil || m.Status.Protocol != keeper.Protocol {
		t.Fatalf("attaching was answered %+v", m)
	}
	later := g
	later.Deadline++
	m = r.say(fmt.Sprintf(`{"id":2,"op":"extend","grant":{"revision":1,"deadline":%d,"budget":%d,"mood":"good"},"hat":1}`,
		later.Deadline, later.Budget))
	if m.Refused != "" || m.Status.Armed == nil || *m.Status.Armed != later {
		t.Errorf("extending was answered %+v", m)
	}
	// An agent of the first protocol doesn't say its version.
	if m := w.raw().say(`{"id":1,"op":"attach"}`); m.Refused != "" {
		t.Errorf("an older agent was refused: %s", m.Refused)
	}
}

// oldKeeper answers as a keeper of protocol 1 would, and of more than this client
// knows.
type oldKeeper struct {
	mu    sync.Mutex
	heard []keeper.Op
	l     net.Listener
	wg    sync.WaitGroup
}

func (w *world) oldKeeper(alive bool) *oldKeeper {
	w.t.Helper()
	path, err := keeper.SocketPath(w.run)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		w.t.Fatal(err)
	}
	o := &oldKeeper{l: l}
	o.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			o.wg.Go(func() { o.serve(nc, w.data, alive) })
		}
	})
	w.t.Cleanup(func() {
		_ = l.Close() // it may have ended itself
		o.wg.Wait()
	})
	return o
}

func (o *oldKeeper) serve(nc net.Conn, data string, alive bool) {
	defer func() { _ = nc.Close() }() // whoever asked knows
	lines := bufio.NewScanner(nc)
	for lines.Scan() {
		var r keeper.Request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return
		}
		o.mu.Lock()
		o.heard = append(o.heard, r.Op)
		o.mu.Unlock()
		refused := ""
		if r.Op == keeper.OpShutdown && alive {
			refused = "PostgreSQL lives"
		}
		_, err := fmt.Fprintf(nc, `{"id":%d,"refused":%q,"status":{"keeper_pid":1,"version":"0.0.1","data_dir":%q,"alive":%t,"hat":"red"},"mood":"good"}`+"\n",
			r.ID, refused, data, alive)
		if err != nil || r.Op == keeper.OpShutdown && !alive {
			_ = o.l.Close()
			return
		}
	}
}

func (o *oldKeeper) said(op keeper.Op) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, h := range o.heard {
		if h == op {
			return true
		}
	}
	return false
}

// TestOlderKeeperIsUsedForWhatItKnows: an agent is upgraded under a running server.
// What the older keeper would silently ignore isn't sent.
func TestOlderKeeperIsUsedForWhatItKnows(t *testing.T) {
	w := &world{t: t, data: pgtest.DataDir(t), run: pgtest.SocketDir(t)}
	old := w.oldKeeper(true)
	w.k = w.launch()
	if err := w.k.Extend(w.ctx(), longGrant()); err != nil {
		t.Errorf("extend: %v", err)
	}
	refused(t, w.k.Disarm(w.ctx(), pause(1)), "older than this agent")
	refused(t, w.k.PromoteWaived(w.ctx(), pause(1)), "older than this agent")
	p := pause(1)
	_, err := w.k.Start(w.ctx(), keeper.StartRequest{Waiver: &p})
	refused(t, err, "older than this agent")
	if !old.said(keeper.OpExtend) || old.said(keeper.OpDisarm) || old.said(keeper.OpPromote) || old.said(keeper.OpStart) {
		t.Errorf("the older keeper heard %v", old.heard)
	}
}

// TestIdleOlderKeeperIsReplaced: nothing depends on it.
func TestIdleOlderKeeperIsReplaced(t *testing.T) {
	w := &world{t: t, data: pgtest.DataDir(t), run: pgtest.SocketDir(t)}
	old := w.oldKeeper(false)
	w.k = w.launch()
	if st := w.status(); st.Protocol != keeper.Protocol {
		t.Errorf("status %+v, want a keeper of this protocol", st)
	}
	if !old.said(keeper.OpShutdown) {
		t.Errorf("the older keeper heard %v", old.heard)
	}
}

// reexec is how the agent of TestUpgradedAgentReconnectsAtOnce tells its next self.
const (
	reexecRun  = "REGENT_TEST_REEXEC"
	reexecData = "REGENT_TEST_REEXEC_DATA"
	reexecAt   = "REGENT_TEST_REEXEC_AT"
)

// TestUpgradedAgentReconnectsAtOnce: `regent upgrade` replaces the agent's program in
// place. The process stays the same; its connection ends with the old program and the
// new one's takes over, while the server goes on, armed as it was (S10).
func TestUpgradedAgentReconnectsAtOnce(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	writes := w.writer()
	agent := exec.Command(os.Args[0], "-test.run=^TestHelperAgentThatIsUpgraded$")
	agent.Env = append(os.Environ(), reexecRun+"="+w.run, reexecData+"="+w.data)
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = agent.Process.Kill() // it may be gone
		_ = agent.Wait()         // it was killed, and says so
	})
	lines := bufio.NewReader(out)
	read := func() string {
		t.Helper()
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the agent said %q: %v", line, err)
		}
		return strings.TrimSpace(line)
	}
	if got := read(); got != "attached" {
		t.Fatalf("the agent said %q", got)
	}
	<-w.k.Done() // superseded by the agent, which commands now
	_, before := writes.state()
	signalPID(t, agent.Process.Pid, syscall.SIGUSR2)
	var took, pid int64
	var armed bool
	if _, err := fmt.Sscan(read(), &took, &pid, &armed); err != nil {
		t.Fatal(err)
	}
	t.Logf("from exec to the first answer: %s", time.Duration(took))
	if int(pid) != st.PID || !armed {
		t.Errorf("the new program found postmaster %d (armed: %v), want %d, armed", pid, armed, st.PID)
	}
	if time.Duration(took) > time.Second {
		t.Errorf("it took %s from exec to the keeper's first answer", time.Duration(took))
	}
	w.eventually("the writer has gone on", func() error {
		if _, n := writes.state(); n <= before+100 {
			return fmt.Errorf("%d rows, %d before", n, before)
		}
		return nil
	})
	if now, err := keeper.Peek(w.ctx(), w.run); err != nil || now.PID != st.PID || now.Armed == nil || now.Armed.Revision != 2 {
		t.Errorf("status %+v (%v), want the server extended by the new program", now, err)
	}
}

// TestHelperAgentThatIsUpgraded is no test: it is the agent of the test above, in its
// first and in its second life.
func TestHelperAgentThatIsUpgraded(t *testing.T) {
	run, data := os.Getenv(reexecRun), os.Getenv(reexecData)
	if run == "" {
		return
	}
	k, err := keeper.Launch(t.Context(), keeper.LaunchConfig{
		Binary: pgtest.Binary(t, "regent-keeper"), RunDir: run, DataDir: data, LogFile: filepath.Join(run, "keeper.log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if since := os.Getenv(reexecAt); since != "" {
		var at int64
		if _, err := fmt.Sscan(since, &at); err != nil {
			t.Fatal(err)
		}
		st, err := k.Status(t.Context())
		took := int64(mono.Now()) - at
		if err := errors.Join(err, k.Extend(t.Context(), grant(2, time.Hour, time.Second))); err != nil {
			t.Fatal(err)
		}
		fmt.Println(took, st.PID, st.Armed != nil)
		select {}
	}
	upgrade := make(chan os.Signal, 1)
	signal.Notify(upgrade, syscall.SIGUSR2)
	fmt.Println("attached")
	<-upgrade
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), fmt.Sprintf("%s=%d", reexecAt, mono.Now()))
	t.Fatal(syscall.Exec(self, os.Args, env)) // returns only when it fails
}
