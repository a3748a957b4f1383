package pgtest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// endTimeout bounds how long killed processes may take to disappear.
const endTimeout = 15 * time.Second

// KillIn ends every process whose working directory is dir or below it, and
// returns when none is left. A PostgreSQL backend makes itself a session leader,
// so neither process groups nor parents find it once its postmaster is gone;
// its working directory always does.
func KillIn(t testing.TB, dir string) {
	t.Helper()
	if err := killUntilGone(func() []int { return ProcessesIn(dir) }); err != nil {
		t.Errorf("end the processes in %s: %v", dir, err)
	}
}

// ProcessesIn lists the processes whose working directory is dir or below it.
// Zombies have no working directory and are not listed.
func ProcessesIn(dir string) []int {
	dir = filepath.Clean(dir)
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	var found []int
	for _, pid := range allProcesses() {
		cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if err != nil {
			continue // gone, a zombie, or not ours
		}
		cwd = strings.TrimSuffix(cwd, " (deleted)")
		if cwd == dir || strings.HasPrefix(cwd, dir+"/") {
			found = append(found, pid)
		}
	}
	return found
}

// killUntilGone sends SIGKILL to all that list names, again and again, since one
// of them may fork before it is hit.
func killUntilGone(list func() []int) error {
	deadline := time.Now().Add(endTimeout)
	for {
		pids := list()
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // gone already is what we want
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not end", pids)
		}
		waitGone(list, 20*time.Millisecond)
	}
}

// waitGone waits until list is empty, at most for limit. It looks again every few
// milliseconds: there is no single descriptor to wait on for a changing set.
func waitGone(list func() []int, limit time.Duration) {
	deadline := time.After(limit)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for len(list()) > 0 {
		select {
		case <-deadline:
			return
		case <-tick.C:
		}
	}
}

// descendants lists the living children of this process, their children, and so
// on, and reaps those of its own that have ended.
func descendants() []int {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if pid <= 0 && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	parents := map[int]int{}
	for _, pid := range allProcesses() {
		if ppid, state, ok := parentOf(pid); ok && state != 'Z' {
			parents[pid] = ppid
		}
	}
	self := os.Getpid()
	var found []int
	for pid := range parents {
		for p := parents[pid]; p > 1; p = parents[p] {
			if p == self {
				found = append(found, pid)
				break
			}
		}
	}
	slices.Sort(found)
	return found
}

// parentOf reads a process's parent and state from /proc/PID/stat.
func parentOf(pid int) (ppid int, state byte, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, false
	}
	// The name in parentheses may hold anything; the last parenthesis ends it.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 2 {
		return 0, 0, false
	}
	ppid, err = strconv.Atoi(fields[1])
	return ppid, fields[0][0], err == nil
}

func allProcesses() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func cmdline(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return "(gone)"
	}
	return strings.TrimSpace(string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})))
}

// freeSharedMemory removes the System V segments that killed servers below dir
// left in the kernel: postmaster.pid names them in its seventh line. A segment
// still attached is left alone.
func freeSharedMemory(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "postmaster.pid" {
			return nil // unreadable folders hold no server of ours
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		lines := strings.Split(string(b), "\n")
		if len(lines) < 7 {
			return nil
		}
		if f := strings.Fields(lines[6]); len(f) == 2 {
			if id, err := strconv.Atoi(f[1]); err == nil {
				var ds unix.SysvShmDesc
				if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &ds); err == nil && ds.Nattch == 0 {
					_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
				}
			}
		}
		return nil
	})
}
