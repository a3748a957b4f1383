package main

import (
	"context"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// loggerGrace is how long the logging collector may write its last lines after a
// postmaster that exited cleanly.
const loggerGrace = time.Second

// kill begins the kill-tree, which goes on until the server is down. Called with
// mu held.
func (g *guard) kill() {
	g.killing = true
	g.setTimer(0)
	// Stopped at once, so that it forks no more until the killer comes to it.
	g.signal(syscall.SIGSTOP)
	g.strike()
	g.wakeKiller()
}

// strike ends the processes that the kernel names as the postmaster's children, which takes a
// fraction of the time in which all of /proc is read; on a busy machine with many processes that
// is long enough for commits. The killer then looks for all others. Left out for an adopted
// server, whose pid nothing keeps from being somebody else's. Called with mu held.
func (g *guard) strike() {
	if g.phase != running || g.pidfd >= 0 {
		return
	}
	for _, pid := range children(g.pid) {
		_ = unix.Kill(pid, unix.SIGKILL) // the killer reports what can't be killed
	}
}

// runKiller is the killer's goroutine. It alone ends processes other than by a
// signal to the postmaster, and it alone finds that the server is down.
func (g *guard) runKiller(ctx context.Context) {
	defer g.reads.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.kick:
			g.clearOut(ctx)
		}
	}
}

// clearOut ends what has to be ended and returns when the server is down, or when
// there is nothing to end. While it works it looks again whenever a child was
// reaped, and at growing intervals: an adopted server's orphans aren't our
// children, and nothing announces their end.
func (g *guard) clearOut(ctx context.Context) {
	const first, most = time.Millisecond, 100 * time.Millisecond
	began := time.Now()
	for pause := first; g.clearStrays(ctx) || g.clearOnce(began); pause = min(2*pause, most) {
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-g.reaped:
		case <-wait.C:
		}
		wait.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// clearOnce makes one pass and reports whether another is needed.
func (g *guard) clearOnce(began time.Time) bool {
	g.mu.Lock()
	ph, killing, own := g.phase, g.killing, g.pidfd < 0 && !g.orphaned
	clean := g.exit.Code == 0 && g.exit.Signal == 0
	if killing {
		g.signal(syscall.SIGSTOP)
	}
	g.mu.Unlock()
	// A kick of the former server may come when the next one is starting already: that one isn't
	// to be ended, unless it was ordered while it was being forked.
	if ph == down || (ph == starting || ph == running) && !killing {
		return false
	}
	left, err := g.members()
	if err != nil {
		g.log.Error("list the server's processes", "err", err)
		return true
	}
	if ph == ending && len(left) == 0 && g.provenDown(own) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.serverDown()
		return false
	}
	for _, p := range left {
		// Lingering backends are ended at once: one may still get its commit
		// acknowledged, and all of them block the next start. Only the logger may
		// finish, unless this is a kill.
		if !killing && clean && time.Since(began) < loggerGrace && isLogger(title(p.pid)) {
			continue
		}
		if err := unix.Kill(p.pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
			g.log.Error("kill a process of the server", "pid", p.pid, "err", err)
		}
	}
	if killing {
		g.mu.Lock()
		g.signal(syscall.SIGKILL)
		g.mu.Unlock()
	}
	return true
}

// provenDown is asked when a scan of /proc found nothing. A scan can miss a
// process that forks while it is read, so there is a second opinion: of an own
// server the kernel says whether any child is left, since every orphan becomes
// the keeper's; of an adopted one, another scan.
func (g *guard) provenDown(own bool) bool {
	if own {
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		return err == unix.ECHILD
	}
	left, err := g.members()
	return err == nil && len(left) == 0
}
