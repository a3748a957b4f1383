package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// writer inserts rows one by one and remembers when the last was acknowledged.
type writer struct {
	mu    sync.Mutex
	last  events.Instant
	count int
	ended chan struct{}
}

func (w *world) writer() *writer {
	s := w.session()
	s.must(`create table if not exists acked (i int)`)
	out := &writer{ended: make(chan struct{})}
	go func() {
		defer close(out.ended)
		for {
			if _, err := s.exec(w.t.Context(), `insert into acked values (1)`); err != nil {
				return
			}
			at := mono.Now()
			out.mu.Lock()
			out.last, out.count = at, out.count+1
			out.mu.Unlock()
		}
	}()
	return out
}

func (w *writer) state() (events.Instant, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last, w.count
}

// crowd is what a busy primary has: a writer, a backend in a long statement, one in
// a computation, and one idle in a transaction that will want to commit.
type crowd struct {
	writer        *writer
	long, compute <-chan outcome
	idle          *session
	pids          []int
}

func (w *world) crowd() crowd {
	c := crowd{writer: w.writer(), idle: w.session()}
	long, compute := w.session(), w.session()
	c.idle.must(`create table idle_in (i int)`)
	c.idle.must(`begin; insert into idle_in values (1)`)
	long.must(`create unlogged table busy (i int)`)
	c.long = long.background(busySQL)
	c.compute = compute.background(`do $$ declare i bigint := 0; begin loop i := i + 1; end loop; end $$`)
	w.active(long.pid, "insert into busy")
	w.active(compute.pid, "do ")
	c.pids = []int{c.idle.pid, long.pid, compute.pid}
	return c
}

// checkFenced checks that nothing was committed at or after the deadline, and that
// no backend of the crowd lived to see it.
func (w *world) checkFenced(c crowd, deadline events.Instant) {
	w.t.Helper()
	limit := time.After(patience)
	for _, work := range []<-chan outcome{c.long, c.compute} {
		select {
		case o := <-work:
			if o.err == nil {
				w.t.Error("a long statement was acknowledged")
			}
		case <-limit:
			w.t.Fatal("a long statement goes on and on")
		}
	}
	select {
	case <-c.writer.ended:
	case <-limit:
		w.t.Fatal("the writer goes on and on")
	}
	last, count := c.writer.state()
	if count == 0 {
		w.t.Error("the writer wrote nothing, so it proves nothing")
	}
	if !last.Before(deadline) {
		w.t.Errorf("a commit was acknowledged %s after the deadline", last.Sub(deadline))
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if _, err := c.idle.exec(ctx, `commit`); err == nil {
		w.t.Error("the idle transaction was committed after the fence")
	}
	var left []int
	w.eventually("all backends are gone, or the deadline passes", func() error {
		left = nil
		for _, pid := range c.pids {
			if !gone(pid) {
				left = append(left, pid)
			}
		}
		if len(left) > 0 && mono.Now() < deadline {
			return fmt.Errorf("backends %v are left", left)
		}
		return nil
	})
	if len(left) > 0 {
		w.t.Errorf("backends %v are left after the deadline", left)
	}
}

// during waits for the server's end and reports the order and times of the fence's
// steps relative to the deadline.
func (w *world) during(deadline events.Instant) (down keeper.Event, steps []keeper.Event) {
	w.t.Helper()
	down, steps = w.next(keeper.ServerDown)
	for _, e := range append(steps, down) {
		w.t.Logf("D%+v %s %s", time.Duration(e.At-deadline).Round(time.Millisecond), e.Kind, e.Note)
	}
	return down, steps
}

// TestSilentAgentsPrimaryIsFencedBeforeTheDeadline: S2, the plain case. The agent
// is connected and says nothing; all sessions are ended by the fast stop at D−B,
// and the server shuts down cleanly.
func TestSilentAgentsPrimaryIsFencedBeforeTheDeadline(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	w.start(&g)
	c := w.crowd()
	last := grant(2, 2500*time.Millisecond, 1500*time.Millisecond)
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	down, steps := w.during(last.Deadline)
	w.checkFenced(c, last.Deadline)
	if kinds(steps) != "fence_begun postmaster_exited" {
		t.Errorf("steps %q, want a fence that needs no escalation", kinds(steps))
	}
	if begun := steps[0].At; begun < last.Deadline.Add(-last.Budget) || !begun.Before(last.Deadline.Add(-last.Budget/2)) {
		t.Errorf("the fence began %s before the deadline, want the budget of %s", last.Deadline.Sub(begun), last.Budget)
	}
	if e := down.Exit; !e.Fenced || !e.Ours || e.Code != 0 {
		t.Errorf("exit %+v, want a clean one by the fence", *e)
	}
	// Fenced is over when the server is down: a new grant starts it again.
	again := longGrant()
	w.start(&again)
}

// TestStartedPrimaryIsArmedFromTheBeginning: S3. The grant of the start counts; no
// renewal has to come first.
func TestStartedPrimaryIsArmedFromTheBeginning(t *testing.T) {
	w := newWorld(t)
	g := grant(1, 5*time.Second, time.Second)
	st, err := w.k.Start(w.ctx(), w.startRequest(&g))
	if err != nil || st.Armed == nil || *st.Armed != g {
		t.Fatalf("status %+v (%v), want it armed with %+v", st, err, g)
	}
	c := w.crowd()
	down, _ := w.during(g.Deadline)
	w.checkFenced(c, g.Deadline)
	if !down.Exit.Fenced {
		t.Errorf("exit %+v, want it fenced", *down.Exit)
	}
}

// TestStoppedBackendIsFencedByStages: a backend that reacts to nothing (SIGSTOP, with
// a transaction open) makes the fence go through all its stages.
func TestStoppedBackendIsFencedByStages(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	w.start(&g)
	c := w.crowd()
	signalPID(t, c.idle.pid, syscall.SIGSTOP)
	last := grant(2, 3*time.Second, 2*time.Second)
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	down, steps := w.during(last.Deadline)
	w.checkFenced(c, last.Deadline)
	if kinds(steps) != "fence_begun fence_escalated fence_escalated postmaster_exited" {
		t.Fatalf("steps %q, want both escalations", kinds(steps))
	}
	for i, want := range []time.Duration{last.Budget, last.Budget / 2, last.Budget / 4} {
		if at := last.Deadline.Add(-want); steps[i].At < at {
			t.Errorf("step %d came %s too early", i, at.Sub(steps[i].At))
		}
	}
	if !strings.HasPrefix(steps[1].Note, "immediate") || !strings.HasPrefix(steps[2].Note, "kill") {
		t.Errorf("escalations %q and %q, want immediate, then kill", steps[1].Note, steps[2].Note)
	}
	if !down.At.Before(last.Deadline) {
		t.Errorf("the server was down %s after the deadline", down.At.Sub(last.Deadline))
	}
}

// TestBackendDeafToTheFastStopIsFencedAtTheSecondStage: one that reads from a program
// (which keeps out of its process group) can't be interrupted by SIGTERM, but ends at once on SIGQUIT. It needs no kill-tree.
func TestBackendDeafToTheFastStopIsFencedAtTheSecondStage(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	w.start(&g)
	s := w.session()
	s.must(`create table t (l text)`)
	const sql = `copy t from program 'exec setsid sleep 1000'`
	work := s.background(sql)
	w.active(s.pid, "copy t from")
	last := grant(2, 2500*time.Millisecond, 2*time.Second)
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	_, steps := w.during(last.Deadline)
	if o := <-work; o.err == nil || !o.ended.Before(last.Deadline) {
		t.Errorf("the copy ended %s after the deadline with %v", o.ended.Sub(last.Deadline), o.err)
	}
	if kinds(steps) != "fence_begun fence_escalated postmaster_exited" || !strings.HasPrefix(steps[1].Note, "immediate") {
		t.Errorf("steps %q, want only the second stage", kinds(steps))
	}
}

// TestStoppedPostmasterIsFenced: with the postmaster stopped, no signal is passed on
// to any backend; only the kill-tree ends them, before the deadline.
func TestStoppedPostmasterIsFenced(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	c := w.crowd()
	last := grant(2, 2500*time.Millisecond, 2*time.Second)
	signalPID(t, st.PID, syscall.SIGSTOP)
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	down, _ := w.during(last.Deadline)
	w.checkFenced(c, last.Deadline)
	if !down.At.Before(last.Deadline) {
		t.Errorf("the server was down %s after the deadline", down.At.Sub(last.Deadline))
	}
}

// TestVanishedAgentsPrimaryIsFenced: the same without any connection: the deadline
// needs nobody.
func TestVanishedAgentsPrimaryIsFenced(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	w.start(&g)
	c := w.crowd()
	last := grant(2, 1500*time.Millisecond, time.Second)
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	if err := w.k.Close(); err != nil {
		t.Fatal(err)
	}
	w.checkFenced(c, last.Deadline)
	// A later agent learns what happened.
	w.k = w.launch()
	if err := w.k.WaitDown(w.ctx()); err != nil {
		t.Fatal(err)
	}
	st, err := w.k.Status(w.ctx())
	if err != nil || st.LastExit == nil || !st.LastExit.Fenced {
		t.Errorf("status %+v (%v), want a fenced last exit", st, err)
	}
}

// TestShutdownCheckpointOutlivesTheDeadline: with all clients gone the fence leaves
// the server to finish; here a stopped checkpointer stands for a long checkpoint.
// Connections that PostgreSQL turns away meanwhile don't count as clients.
func TestShutdownCheckpointOutlivesTheDeadline(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	w.start(&g)
	s := w.session()
	pid := s.must(`select pid from pg_stat_activity where backend_type = 'checkpointer'`)
	checkpointer := 0
	if _, err := fmt.Sscan(pid, &checkpointer); err != nil {
		t.Fatal(err)
	}
	s.close()
	signalPID(t, checkpointer, syscall.SIGSTOP)
	last := grant(2, 2200*time.Millisecond, 2*time.Second)
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	turnedAway := w.knock()
	past := last.Deadline.Add(200 * time.Millisecond)
	w.eventually("the deadline passes", func() error {
		if mono.Now() < past {
			return fmt.Errorf("%s to go", past.Sub(mono.Now()))
		}
		return nil
	})
	if n := turnedAway(); n == 0 {
		t.Error("no connection was turned away, so nothing is proven about them")
	}
	if gone(checkpointer) {
		t.Error("the checkpointer was killed although no client was left")
	}
	signalPID(t, checkpointer, syscall.SIGCONT)
	down, steps := w.during(last.Deadline)
	if kinds(steps) != "fence_begun postmaster_exited" || down.Exit.Code != 0 {
		t.Errorf("steps %q, exit %+v, want a clean end without escalation", kinds(steps), *down.Exit)
	}
}

// knock connects again and again until the returned function is called, which says
// how often PostgreSQL answered that it is shutting down.
func (w *world) knock() func() int {
	ctx, cancel := context.WithCancel(w.t.Context())
	counted := make(chan int, 1)
	go func() {
		n := 0
		for ctx.Err() == nil {
			if err := tryConnect(ctx, w.run); err != nil && strings.Contains(err.Error(), "57P03") {
				n++
			}
		}
		counted <- n
	}()
	return func() int { cancel(); return <-counted }
}

// TestFenceOnCommand: fences a server that isn't armed, within the time given.
func TestFenceOnCommand(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	w.start(&g)
	c := w.crowd()
	signalPID(t, c.idle.pid, syscall.SIGSTOP)
	if err := w.k.Disarm(w.ctx(), pause(3)); err != nil {
		t.Fatal(err)
	}
	deadline := mono.Now().Add(time.Second)
	if err := w.k.Fence(w.ctx(), time.Second); err != nil {
		t.Fatal(err)
	}
	refused(t, w.k.Extend(w.ctx(), grant(9, time.Hour, time.Second)), "fencing has begun")
	refused(t, w.k.Disarm(w.ctx(), pause(4)), "fencing has begun")
	w.during(deadline)
	w.checkFenced(c, deadline)
	if err := w.k.Fence(w.ctx(), time.Second); err != nil {
		t.Errorf("fencing a server that is down: %v", err)
	}
}

// TestFenceDoesNotWaitForAHungCommand: a promotion that hangs in the file system
// (here: its signal file is a pipe that nobody reads) holds up neither renewals nor
// the fence.
func TestFenceDoesNotWaitForAHungCommand(t *testing.T) {
	w := newWorld(t)
	w.standby()
	w.start(nil)
	pipe := filepath.Join(w.data, "promote")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	promoted := make(chan error, 1)
	go func() { promoted <- w.k.Promote(ctx, grant(1, time.Minute, time.Second)) }()
	w.eventually("the promotion has armed the server", func() error {
		st, err := w.k.Status(w.ctx())
		if err == nil && st.Armed == nil {
			return fmt.Errorf("not armed")
		}
		return err
	})
	last := grant(2, 1500*time.Millisecond, time.Second)
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	refused(t, w.k.Promote(w.ctx(), grant(2, time.Minute, time.Second)), "busy")
	down, _ := w.during(last.Deadline)
	if !down.Exit.Fenced || !down.At.Before(last.Deadline) {
		t.Errorf("exit %+v, want fenced before the deadline", *down.Exit)
	}
	// Let the hung command go; it must find that it comes too late.
	reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, <-promoted, "ended before it could be promoted")
	cancel()
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
	if left := pgtest.ProcessesIn(w.data); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

// TestFrozenKeeperFencesAtOnceWhenItThaws: S24. A keeper that was stopped past the
// deadline skips the graceful stages.
func TestFrozenKeeperFencesAtOnceWhenItThaws(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	c := w.crowd()
	last := grant(2, time.Second, 800*time.Millisecond)
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	// Freeze the keeper and the server together, as a frozen machine would.
	frozen := append(pgtest.ProcessesIn(w.data), st.KeeperPID)
	all := func(sig syscall.Signal) {
		for _, pid := range frozen { // a session that was closed may have ended since
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Errorf("send %s to %d: %v", sig, pid, err)
			}
		}
	}
	all(syscall.SIGSTOP)
	w.eventually("the deadline passes", func() error {
		if mono.Now() < last.Deadline {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	thawed := mono.Now()
	all(syscall.SIGCONT)
	down, steps := w.during(last.Deadline)
	if len(steps) < 2 || steps[1].Kind != keeper.FenceEscalated || !strings.Contains(steps[1].Note, "too late") {
		t.Errorf("steps %q, want the kill-tree at once, without another look at the clients", kinds(steps))
	}
	<-c.writer.ended
	wrote, _ := c.writer.state()
	t.Logf("after the thaw: last commit %s, down %s", wrote.Sub(thawed), down.At.Sub(thawed))
	if down.At.Sub(thawed) > 2*time.Second {
		t.Errorf("the server was down %s after the thaw", down.At.Sub(thawed))
	}
}
