package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgregent/regent/events"
)

// process is one line of /proc, as far as it matters here.
type process struct {
	pid, ppid int
	session   int            // the pid of the process that made it
	state     byte           // 'Z' is a zombie: it can't run any more
	started   events.Instant // since boot, to a hundredth of a second
}

// readProcesses lists all processes. It reads only /proc/PID/stat, which the
// kernel answers without taking a process's memory lock: a process that hangs in
// its storage can't hang the keeper.
func readProcesses() ([]process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer func() { _ = dir.Close() }() // read only
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	procs := make([]process, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := readProcess(pid); ok {
				procs = append(procs, p)
			}
		}
	}
	return procs, nil
}

// readProcess reads one process; false when it is gone.
func readProcess(pid int) (process, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	// The name in parentheses may hold anything; the last parenthesis ends it.
	// Behind it: field 3 is the state, 4 the parent, 6 the session, 22 the start in
	// 1/100 s.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return process{}, false
	}
	ppid, err1 := strconv.Atoi(string(fields[1]))
	session, err2 := strconv.Atoi(string(fields[3]))
	ticks, err3 := strconv.ParseInt(string(fields[19]), 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return process{}, false
	}
	const tick = 10_000_000 // USER_HZ is 100 on every Linux that Go runs on
	return process{
		pid: pid, ppid: ppid, session: session, state: fields[0][0], started: events.Instant(ticks * tick),
	}, true
}

// children are the processes whose parent is the given one, as the kernel lists them; none where
// it doesn't (CONFIG_PROC_CHILDREN), or when the process is gone.
func children(pid int) []int {
	at := strconv.Itoa(pid)
	b, err := os.ReadFile("/proc/" + at + "/task/" + at + "/children")
	if err != nil {
		return nil
	}
	var found []int
	for _, field := range bytes.Fields(b) {
		if child, err := strconv.Atoi(string(field)); err == nil {
			found = append(found, child)
		}
	}
	return found
}

// descendants picks the processes below the given ones, without them.
func descendants(procs []process, of ...int) []process {
	children := make(map[int][]process, len(procs))
	for _, p := range procs {
		children[p.ppid] = append(children[p.ppid], p)
	}
	var found []process
	queue := of
	for len(queue) > 0 {
		next := children[queue[0]]
		queue = queue[1:]
		for _, p := range next {
			found = append(found, p)
			queue = append(queue, p.pid)
		}
	}
	return found
}

// standsIn reports whether a PostgreSQL process has dir as its working directory,
// as every process of a server has (safety rule S1). An administrator's shell in
// the data directory is no PostgreSQL process. A process that is ending loses its
// program before its sockets and its directory, and counts until it has lost all.
// Both links are read without touching the file system they point into.
func standsIn(pid int, dir string) bool {
	if link(pid, "cwd") != dir {
		return false
	}
	exe := link(pid, "exe")
	return exe == "" || isPostgres(exe)
}

// isPostgres knows the server's program by its name.
func isPostgres(exe string) bool {
	base := filepath.Base(exe)
	return base == "postgres" || base == "postmaster"
}

// link reads a link in /proc/PID; empty when the process is gone, has ended its
// life in user space, or isn't ours. A target that was removed or replaced since
// keeps its name.
func link(pid int, name string) string {
	target, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(target, " (deleted)")
}

// title reads a process's command line up to its first end of string, which is
// where PostgreSQL writes what the process is. Unlike the rest of this file it may
// block, when the process hangs with its memory locked.
func title(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return ""
	}
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.TrimRight(string(b), " ")
}
