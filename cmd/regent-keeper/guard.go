package main

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// refusal is the sentence with which a command is refused.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// phase is where the one server of the data directory is in its life.
type phase int

const (
	down     phase = iota // no process is left: proven, not assumed
	starting              // being forked; the pid isn't known yet
	running               // the postmaster lives
	ending                // the postmaster is gone, others may be left (S1)
)

// guard keeps one PostgreSQL server. Its commands are called by the connection,
// its fence and killer run beside them.
type guard struct {
	dataDir string // as the kernel names it
	log     *slog.Logger
	timer   *timer
	dog     *dog               // the kernel's watchdog
	emit    func(keeper.Event) // never blocks; called with mu held
	leave   func()             // ends the keeper; never blocks
	spawns  chan spawnRequest  // to the thread that lives as long as the keeper (S4)
	watch   chan int           // pidfds of adopted postmasters to wait on
	kick    chan struct{}      // wakes the killer
	reaped  chan struct{}      // a child ended; wakes the killer while it works
	scans   sync.WaitGroup     // title scans that may outlive the fence step that asked
	reads   sync.WaitGroup     // titles that the killer gave up reading
	lock    *os.File           // on the data directory; owned by the slow commands

	// mu guards what follows. Nothing that can block is done while it is held, so
	// that the fence never waits for a command, a disk or a log (S3).
	mu       sync.Mutex
	phase    phase
	closed   bool // the keeper is going to end
	pid      int
	pidfd    int // of an adopted postmaster, else -1
	started  events.Instant
	armed    *keeper.Grant
	highest  events.Revision // of all grants this server got
	waived   *keeper.Waiver  // why it runs without a deadline
	config   events.Revision // the newest of /config in any grant or waiver of this server
	fence    *fence          // nil until fencing begins
	asked    bool            // a stop was commanded
	orphaned bool            // what is ending never was in this keeper's charge
	excused  bool            // the agent has left for good; see excuse
	killing  bool            // the kill-tree is at work, until the server is down
	pending  syscall.Signal  // a stop that came while starting
	early    map[int]unix.WaitStatus
	exit     keeper.Exit
	lastExit *keeper.Exit
}

func newGuard(dataDir string, note *watchdogNote, log *slog.Logger) (*guard, error) {
	t, err := newTimer()
	if err != nil {
		return nil, err
	}
	g := &guard{
		dataDir: dataDir,
		log:     log,
		timer:   t,
		emit:    func(keeper.Event) {},
		leave:   func() {},
		spawns:  make(chan spawnRequest),
		watch:   make(chan int, 1),
		kick:    make(chan struct{}, 1),
		reaped:  make(chan struct{}, 1),
		pidfd:   -1,
	}
	g.dog = newDog(log, note, g.unproven)
	return g, nil
}

// status says what is known now.
func (g *guard) status() keeper.Status {
	s := g.lookAround()
	g.mu.Lock()
	defer g.mu.Unlock()
	st := g.statusLocked()
	g.admit(&st, s)
	return st
}

func (g *guard) statusLocked() keeper.Status {
	st := keeper.Status{
		KeeperPID: os.Getpid(),
		Version:   version,
		Protocol:  keeper.Protocol,
		DataDir:   g.dataDir,
		PID:       g.pid,
		Alive:     g.phase != down,
		Started:   g.started,
		Adopted:   g.pidfd >= 0,
		Fencing:   g.fence != nil,
		LastExit:  g.lastExit,
	}
	st.Watchdog = g.dog.state()
	if g.armed != nil {
		grant := *g.armed
		st.Armed = &grant
	}
	if g.waived != nil {
		waiver := *g.waived
		st.Waived = &waiver
	}
	return st
}

// present calls f with the status and the events that bring a newcomer up to
// date, in one piece with respect to everything that happens.
func (g *guard) present(f func(keeper.Status, []keeper.Event)) {
	s := g.lookAround()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.excused = false
	var past []keeper.Event
	if g.fence != nil {
		past = append(past, keeper.Event{Kind: keeper.FenceBegun, At: g.fence.begun, Repeated: true})
	}
	switch {
	case g.phase == ending:
		exit := g.exit
		past = append(past, keeper.Event{Kind: keeper.PostmasterExited, At: exit.At, Exit: &exit, Repeated: true})
	case g.phase == down && g.lastExit != nil:
		past = append(past, keeper.Event{Kind: keeper.ServerDown, At: g.lastExit.At, Exit: g.lastExit, Repeated: true})
	}
	st := g.statusLocked()
	g.admit(&st, s)
	f(st, past)
}

// end marks the keeper as ending; refused while its PostgreSQL lives (S4).
func (g *guard) end() error {
	s := g.lookAround()
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.phase != down:
		return refuse("PostgreSQL (pid %d) lives: stop it first", g.pid)
	case len(s.alone) > 0 || s.unseen != nil:
		return refuse("processes %v of a former server live, or could not be looked for (%v)", s.pids(), s.unseen)
	}
	g.closed = true
	return nil
}

// signal sends a signal to the postmaster. An own child's pid can't be taken over
// by another process before it is reaped, which happens under the same lock; an
// adopted one is reached through its pidfd. Called with mu held.
func (g *guard) signal(sig syscall.Signal) {
	var err error
	switch {
	case g.phase != running:
		return
	case g.pidfd >= 0:
		err = unix.PidfdSendSignal(g.pidfd, sig, nil, 0)
	default:
		err = unix.Kill(g.pid, sig)
	}
	if err != nil && err != unix.ESRCH {
		g.log.Error("signal the postmaster", "pid", g.pid, "signal", sig.String(), "err", err)
	}
}

// postmasterEnded notes the postmaster's exit, which isn't the server's (S1).
// Called with mu held.
func (g *guard) postmasterEnded(code, sig int) {
	g.exit = keeper.Exit{
		PID: g.pid, At: mono.Now(), Code: code, Signal: sig,
		Ours: g.asked || g.fence != nil, Fenced: g.fence != nil,
	}
	g.phase = ending
	g.log.Info("postmaster exited", "pid", g.pid, "code", code, "signal", sig, "ours", g.exit.Ours)
	g.pid = 0
	exit := g.exit
	g.emit(keeper.Event{Kind: keeper.PostmasterExited, At: exit.At, Exit: &exit})
	if g.excused && g.armed == nil && (g.pidfd >= 0 || code == 0) {
		g.retire()
		return
	}
	g.wakeKiller()
}

// disown forgets what was in force for a server that is no more, or never came to
// be. Called with mu held.
func (g *guard) disown() {
	g.armed, g.highest, g.waived, g.config, g.fence = nil, 0, nil, 0, nil
	g.asked, g.orphaned, g.killing, g.pending = false, false, false, 0
	g.setTimer(0)
	g.dog.release()
}

// serverDown notes that no process is left. Called with mu held.
func (g *guard) serverDown() {
	g.exit.At = mono.Now()
	exit := g.exit
	g.lastExit = &exit
	if g.pidfd >= 0 {
		_ = unix.Close(g.pidfd) // only a number to let go
	}
	g.phase, g.pid, g.pidfd, g.started = down, 0, -1, 0
	g.disown()
	g.log.Info("server down", "pid", exit.PID, "code", exit.Code, "signal", exit.Signal,
		"ours", exit.Ours, "fenced", exit.Fenced)
	g.emit(keeper.Event{Kind: keeper.ServerDown, At: exit.At, Exit: &exit})
	if g.excused {
		g.retire()
	}
}

// setTimer sets the fence timer. Called with mu held.
func (g *guard) setTimer(at events.Instant) {
	if g.closed {
		return // the timer's descriptor may be gone, and there is nothing to fence
	}
	if err := g.timer.set(at); err != nil {
		// It can't fail with these arguments; should it, a fence that might not
		// wake is worse than one that comes early.
		g.log.Error("set the fence timer", "err", err)
		if g.armed != nil {
			g.killing = true
			g.wakeKiller()
		}
	}
}

func (g *guard) wakeKiller() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// reap collects ended children, those of PostgreSQL that were orphaned included.
func (g *guard) reap() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			break
		}
		switch {
		case g.phase == running && g.pidfd < 0 && pid == g.pid:
			g.postmasterEnded(exitOf(ws))
		case g.phase == starting:
			g.early[pid] = ws
		}
	}
	select {
	case g.reaped <- struct{}{}:
	default:
	}
}

// exitOf splits a wait status into exit code (-1 if a signal ended it) and signal.
func exitOf(ws unix.WaitStatus) (code, sig int) {
	if ws.Signaled() {
		return -1, int(ws.Signal())
	}
	return ws.ExitStatus(), 0
}
