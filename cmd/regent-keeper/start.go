package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// spawnRequest asks the keeper's one long-lived thread to start a postmaster.
type spawnRequest struct {
	args  []string
	attr  *syscall.ProcAttr
	allow func() bool // asked at the last moment
	reply chan spawnReply
}

type spawnReply struct {
	pid int
	err error
}

// defaultSlack is the kernel's own (prctl(2), PR_SET_TIMERSLACK).
const defaultSlack = 50 * time.Microsecond

var errTooLate = errors.New("the deadline came before PostgreSQL was started")

// runSpawner starts postmasters, on the calling goroutine's thread, until spawns
// is closed. The kernel sends a parent-death signal when the *thread* that forked
// ends, so the caller must be locked to a thread that ends with the keeper (S4).
func (g *guard) runSpawner() {
	// PostgreSQL times commit_delay and the like in microseconds, and would inherit the agent's
	// precision.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(defaultSlack), 0, 0, 0); err != nil {
		g.log.Warn("set the precision of timers back", "err", err)
	}
	for r := range g.spawns {
		if !r.allow() {
			r.reply <- spawnReply{err: errTooLate}
			continue
		}
		pid, err := syscall.ForkExec(r.args[0], r.args, r.attr)
		r.reply <- spawnReply{pid: pid, err: err}
	}
}

// start starts PostgreSQL: armed first (S3), and with SIGQUIT as its share in the
// keeper's death (S4). It reads and writes files, so it must not be called from
// where something else would wait for it.
func (g *guard) start(r keeper.StartRequest) error {
	if err := g.checkStart(r); err != nil {
		return err
	}
	logFile, err := os.OpenFile(r.LogFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return refuse("open PostgreSQL's log: %v", err)
	}
	defer func() { _ = logFile.Close() }() // the child has its own
	null, err := os.Open(os.DevNull)
	if err != nil {
		return refuse("open %s: %v", os.DevNull, err)
	}
	defer func() { _ = null.Close() }()
	if err := g.beginStart(r); err != nil {
		return err
	}
	if r.Grant != nil {
		if err := g.dog.await(r.Grant.Watchdog, fenceBegin(*r.Grant)); err != nil {
			return g.finishStart(r, spawnReply{err: err})
		}
	}
	reply := make(chan spawnReply, 1)
	g.spawns <- spawnRequest{
		args: r.Args,
		attr: &syscall.ProcAttr{
			Dir:   g.dataDir,
			Env:   r.Env,
			Files: []uintptr{null.Fd(), logFile.Fd(), logFile.Fd()},
			Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGQUIT},
		},
		allow: g.mayStart,
		reply: reply,
	}
	return g.finishStart(r, <-reply)
}

// checkStart judges everything about the request that lies in files.
func (g *guard) checkStart(r keeper.StartRequest) error {
	if len(r.Args) == 0 || !filepath.IsAbs(r.Args[0]) || !isPostgres(r.Args[0]) {
		return refuse("the command line must begin with the absolute path of a postgres program, not %q", r.Args)
	}
	if r.LogFile == "" {
		return refuse("PostgreSQL's log file must be named")
	}
	if now, err := keeper.Resolve(g.dataDir); err != nil || now != g.dataDir {
		return refuse("data directory %s now leads to %s (%v): end this keeper and start another", g.dataDir, now, err)
	}
	if other := otherDataDir(r.Args, g.dataDir); other != "" {
		return refuse("the command line names data directory %s, but this keeper guards %s", other, g.dataDir)
	}
	if r.Grant != nil && r.Waiver != nil {
		return refuse("a grant and a waiver exclude each other")
	}
	if r.Waiver != nil {
		if err := checkWaiver(*r.Waiver); err != nil {
			return err
		}
	}
	if r.Grant == nil && r.Waiver == nil {
		// recovery.signal alone isn't enough: such a server becomes writable by
		// itself when its recovery ends (S3).
		if _, err := os.Stat(filepath.Join(g.dataDir, "standby.signal")); err != nil {
			return refuse("without a grant only a standby may be started, and standby.signal isn't there: %v", err)
		}
	}
	if err := g.lockDataDir(); err != nil {
		return err
	}
	if err := g.aliveRefusal(); err != nil {
		return err
	}
	procs, err := readProcesses()
	if err != nil {
		return refuse("can't see whether PostgreSQL runs already: %v", err)
	}
	for _, p := range procs {
		if p.state != 'Z' && standsIn(p.pid, g.dataDir) {
			g.wakeKiller() // it may be an orphan that is to be killed
			return refuse("PostgreSQL runs already in %s (pid %d) and isn't in this keeper's charge: adopt or stop it",
				g.dataDir, p.pid)
		}
	}
	return nil
}

func (g *guard) aliveRefusal() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.aliveRefusalLocked()
}

func (g *guard) aliveRefusalLocked() error {
	switch {
	case g.closed:
		return refuse("the keeper is ending")
	case g.phase == ending:
		return refuse("the postmaster is gone, but processes of the old server are left")
	case g.phase != down:
		return refuse("PostgreSQL runs already (pid %d)", g.pid)
	}
	return nil
}

// otherDataDir finds a -D that names an existing data directory other than dir.
func otherDataDir(args []string, dir string) string {
	for i, a := range args {
		named, ok := strings.CutPrefix(a, "-D")
		if !ok {
			continue
		}
		if named == "" && i+1 < len(args) {
			named = args[i+1]
		}
		// A folder of configuration files only (Debian) isn't a data directory.
		if _, err := os.Stat(filepath.Join(named, "PG_VERSION")); err != nil {
			continue
		}
		if real, err := keeper.Resolve(named); err != nil || real != dir {
			return named
		}
	}
	return ""
}

// beginStart arms, or notes the waiver, and enters the phase starting.
func (g *guard) beginStart(r keeper.StartRequest) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.aliveRefusalLocked(); err != nil {
		return err
	}
	if r.Grant != nil {
		if err := checkGrant(*r.Grant, mono.Now()); err != nil {
			return err
		}
	}
	g.phase = starting
	g.early = map[int]unix.WaitStatus{}
	g.exit = keeper.Exit{}
	switch {
	case r.Grant != nil:
		g.arm(*r.Grant)
	case r.Waiver != nil:
		g.waive(*r.Waiver)
	}
	return nil
}

// mayStart is asked immediately before the fork.
func (g *guard) mayStart() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.beginFenceIfDue(mono.Now())
	return g.fence == nil && !g.killing
}

// finishStart takes the forked postmaster into the books, or the failure.
func (g *guard) finishStart(r keeper.StartRequest, s spawnReply) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	early := g.early
	g.early = nil
	if s.err != nil {
		g.phase = down
		g.disown()
		return refuse("start %s: %v", r.Args[0], s.err)
	}
	g.pid, g.phase, g.started = s.pid, running, mono.Now()
	g.log.Info("postgres started", "pid", s.pid, "armed", g.armed != nil, "waived", g.waived != nil)
	if ws, ended := early[s.pid]; ended {
		g.postmasterEnded(exitOf(ws))
		return nil
	}
	g.beginFenceIfDue(g.started)
	switch {
	case g.fence != nil:
		// Fencing began between the last question and the fork: nothing of this
		// server may live.
		g.kill()
	case g.pending != 0:
		g.signal(g.pending)
		g.pending = 0
	}
	return nil
}

// stop asks the server to stop; a server that is down has stopped.
func (g *guard) stop(mode keeper.StopMode) error {
	sig, ok := map[keeper.StopMode]syscall.Signal{
		keeper.StopFast: syscall.SIGINT, keeper.StopImmediate: syscall.SIGQUIT, keeper.StopKill: syscall.SIGKILL,
	}[mode]
	if !ok {
		return refuse("no stop mode %q: fast, immediate or kill", mode)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase == down {
		return nil
	}
	g.asked = true
	g.log.Info("stop commanded", "pid", g.pid, "mode", string(mode))
	switch {
	case sig == syscall.SIGKILL:
		g.kill()
	case g.phase == starting:
		g.pending = sig
	default:
		g.signal(sig)
	}
	return nil
}

// lockDataDir takes the lock on the data directory itself, so that keepers of
// different run directories exclude each other. A clone makes a new directory, so
// the lock is renewed when the one held is of an old one.
func (g *guard) lockDataDir() error {
	dir, err := os.Open(g.dataDir)
	if err != nil {
		return refuse("open data directory: %v", err)
	}
	if g.lock != nil {
		held, err1 := g.lock.Stat()
		here, err2 := dir.Stat()
		if err1 == nil && err2 == nil && os.SameFile(held, here) {
			return errors.Join(dir.Close())
		}
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = dir.Close() // nothing was written
		if err == unix.EWOULDBLOCK {
			return refuse("another keeper or agent has locked data directory %s", g.dataDir)
		}
		return refuse("lock data directory %s: %v", g.dataDir, err)
	}
	if g.lock != nil {
		_ = g.lock.Close() // the lock on a directory that is gone
	}
	g.lock = dir
	return nil
}

// unlock gives the data directory free when the keeper ends.
func (g *guard) unlock() error {
	if g.lock == nil {
		return nil
	}
	if err := g.lock.Close(); err != nil {
		return fmt.Errorf("unlock the data directory: %w", err)
	}
	return nil
}
