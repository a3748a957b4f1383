package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one row of /proc.
type process struct {
	pid      int
	exe, cwd string
	args     []string
}

// String is for messages.
func (p process) String() string { return fmt.Sprintf("%d %s", p.pid, strings.Join(p.args, " ")) }

// readProcess returns false for a process that is gone, a zombie, or another user's.
func readProcess(pid int) (process, bool) {
	dir := fmt.Sprintf("/proc/%d", pid)
	exe, err := os.Readlink(dir + "/exe")
	if err != nil {
		return process{}, false
	}
	cwd, err := os.Readlink(dir + "/cwd")
	if err != nil {
		return process{}, false
	}
	line, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return process{}, false
	}
	p := process{pid: pid, exe: strings.TrimSuffix(exe, " (deleted)"), cwd: strings.TrimSuffix(cwd, " (deleted)")}
	for arg := range bytes.SplitSeq(bytes.TrimRight(line, "\x00"), []byte{0}) {
		p.args = append(p.args, string(arg))
	}
	return p, true
}

// belongs reports whether the process works for the given folder: in it, from it, or as one
// of the known programs that was given a path in it.
func (p process) belongs(folder string, programs []string) bool {
	if under(p.cwd, folder) || under(p.exe, folder) {
		return true
	}
	known := slices.ContainsFunc(programs, func(dir string) bool { return filepath.Dir(p.exe) == dir })
	return known && slices.ContainsFunc(p.args, func(arg string) bool { return strings.Contains(arg, folder+"/") })
}

func under(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// processesOf lists the processes that belong to folder, this one excluded.
func processesOf(folder string, programs []string) []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if p, ok := readProcess(pid); ok && p.belongs(folder, programs) {
			found = append(found, p)
		}
	}
	return found
}

// killAll ends the processes that list names, again and again, since one of them may fork
// before it is hit, and returns when none is left. All are stopped before the first is
// killed: none of them shall see another one die and say so to anybody.
func killAll(ctx context.Context, list func() []process) error {
	stopped := map[int]bool{}
	for _, p := range list() {
		if unix.Kill(p.pid, unix.SIGSTOP) == nil {
			stopped[p.pid] = true
		}
	}
	for {
		left := list()
		if len(left) == 0 {
			return nil
		}
		for _, p := range left {
			_ = unix.Kill(p.pid, unix.SIGKILL) // gone already is what we want
		}
		if !pause(ctx, 2*time.Millisecond) {
			return fmt.Errorf("end processes %v: %w", left, context.Cause(ctx))
		}
	}
}

// pause waits for d; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// freeSharedMemory removes the System V segments that killed servers below folder left in
// the kernel: the seventh line of postmaster.pid names them. One in use is left alone.
func freeSharedMemory(folder string) {
	found, err := filepath.Glob(filepath.Join(folder, "*", "data", "postmaster.pid"))
	if err != nil {
		return
	}
	for _, path := range found {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		lines := strings.Split(string(content), "\n")
		if len(lines) < 7 {
			continue
		}
		fields := strings.Fields(lines[6])
		if len(fields) != 2 {
			continue
		}
		id, err := strconv.Atoi(fields[1])
		if err != nil {
			continue
		}
		var ds unix.SysvShmDesc
		if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &ds); err == nil && ds.Nattch == 0 {
			_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		}
	}
}
