package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// startTolerance is how far a process's start, translated to wall clock time, may
// differ from what postmaster.pid says: the file has whole seconds, and the wall
// clock drifts against the kernel's.
const startTolerance = 3 * time.Second

// pidFile is what postmaster.pid says.
type pidFile struct {
	pid     int
	dataDir string
	started time.Time
	// status is "starting", "ready" and so on; empty before the postmaster has its
	// signal handlers and has removed the signal files of an earlier life.
	status string
}

// adopt takes a postmaster in charge that somebody else started (S5). The handle
// on the process is taken first and everything is verified behind it, so that it
// can't be a process that took over the pid meanwhile.
func (g *guard) adopt(pid int) error {
	if err := g.lockDataDir(); err != nil {
		return err
	}
	file, err := readPIDFile(g.dataDir)
	if err != nil {
		return refuse("read postmaster.pid: %v", err)
	}
	if pid == 0 {
		pid = file.pid
	}
	if done, err := g.alreadyMine(pid); done || err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return refuse("no handle on process %d: %v", pid, err)
	}
	started, err := verify(pid, file, g.dataDir)
	if err == nil {
		// Still the process that the handle is on, hence the verified one.
		if alive := unix.PidfdSendSignal(fd, 0, nil, 0); alive != nil {
			err = refuse("process %d: %v", pid, alive)
		}
	}
	if err == nil {
		err = g.takeCharge(pid, fd, started)
	}
	if err != nil {
		_ = unix.Close(fd) // only a number to let go
	}
	return err
}

func (g *guard) alreadyMine(pid int) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase == running && g.pid == pid {
		return true, nil
	}
	return false, g.aliveRefusalLocked()
}

func (g *guard) takeCharge(pid, fd int, started events.Instant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.aliveRefusalLocked(); err != nil {
		return err
	}
	g.phase, g.pid, g.pidfd, g.started = running, pid, fd, started
	g.exit = keeper.Exit{}
	g.log.Info("postgres adopted", "pid", pid)
	g.watch <- fd // room for one, and there is only one server at a time
	return nil
}

// runWatch waits for the end of adopted postmasters; their exit status is their
// parent's to know.
func (g *guard) runWatch() {
	for fd := range g.watch {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if err == nil && n > 0 {
				break
			}
			if err != nil && err != unix.EINTR {
				g.log.Error("wait for the adopted postmaster", "err", err)
				break
			}
		}
		g.mu.Lock()
		if g.phase == running && g.pidfd == fd {
			g.postmasterEnded(-1, 0)
		}
		g.mu.Unlock()
	}
}

// readPIDFile reads postmaster.pid: pid, data directory, start in seconds since
// 1970, and in its eighth line the status.
func readPIDFile(dataDir string) (pidFile, error) {
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return pidFile{}, err
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 3 {
		return pidFile{}, fmt.Errorf("%d lines, want at least 3", len(lines))
	}
	pid, err := strconv.Atoi(lines[0])
	if err != nil || pid <= 1 {
		return pidFile{}, fmt.Errorf("pid %q", lines[0])
	}
	seconds, err := strconv.ParseInt(lines[2], 10, 64)
	if err != nil {
		return pidFile{}, fmt.Errorf("start time %q", lines[2])
	}
	f := pidFile{pid: pid, dataDir: lines[1], started: time.Unix(seconds, 0)}
	if len(lines) > 7 {
		f.status = strings.TrimSpace(lines[7])
	}
	return f, nil
}

// verify makes sure that pid is the postmaster of the data directory, and returns
// when it was started.
func verify(pid int, file pidFile, dataDir string) (events.Instant, error) {
	if file.pid != pid {
		return 0, refuse("postmaster.pid names process %d, not %d", file.pid, pid)
	}
	if real, err := keeper.Resolve(file.dataDir); err != nil || real != dataDir {
		return 0, refuse("postmaster.pid is about data directory %s, not %s", file.dataDir, dataDir)
	}
	p, ok := readProcess(pid)
	if !ok || p.state == 'Z' {
		return 0, refuse("process %d has ended", pid)
	}
	if exe := link(pid, "exe"); !isPostgres(exe) {
		return 0, refuse("process %d runs %q, not postgres", pid, exe)
	}
	if cwd := link(pid, "cwd"); cwd != dataDir {
		return 0, refuse("process %d works in %q, not in data directory %s", pid, cwd, dataDir)
	}
	wall := time.Now().Add(-mono.Now().Sub(p.started))
	if off := wall.Sub(file.started); off < -startTolerance || off > startTolerance {
		return 0, refuse("process %d was started %s after what postmaster.pid says: another process with its pid, or the clock was set",
			pid, off.Round(time.Second))
	}
	return p.started, nil
}
