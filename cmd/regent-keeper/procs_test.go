package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/mono"
)

func TestReadProcess(t *testing.T) {
	// A name that tries to end the field it stands in.
	dir := t.TempDir()
	path := dir + "/a) Z 1 (b"
	if err := exec.Command("cp", "/bin/sleep", path).Run(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "1000")
	cmd.Dir = dir
	before := mono.Now()
	background(t, cmd, nil)
	p, ok := readProcess(cmd.Process.Pid)
	if !ok || p.ppid != os.Getpid() || p.state == 'Z' {
		t.Errorf("read %+v (%v), want a living child of %d", p, ok, os.Getpid())
	}
	if off := p.started.Sub(before); off < -20*time.Millisecond || off > time.Second {
		t.Errorf("started %s after it was asked to", off)
	}
	if link(p.pid, "cwd") != dir {
		t.Errorf("it works in %q, want %q", link(p.pid, "cwd"), dir)
	}
	if standsIn(p.pid, dir) {
		t.Error("a process that isn't PostgreSQL's counts as one")
	}
	procs, err := readProcesses()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(descendants(procs, os.Getpid()), func(d process) bool { return d.pid == p.pid }) {
		t.Error("a child isn't among the descendants")
	}
}

// A process with one thread, as a postmaster is: the kernel lists the children of threads.
func TestChildrenAreThoseOfAProcess(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 1000 & sleep 1000 & wait")
	background(t, cmd, nil)
	t.Cleanup(func() {
		for _, pid := range children(cmd.Process.Pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(children(cmd.Process.Pid)) < 2 {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the children of %d are %v, want two", cmd.Process.Pid, children(cmd.Process.Pid))
		}
	}
	for _, pid := range children(cmd.Process.Pid) {
		if p, ok := readProcess(pid); !ok || p.ppid != cmd.Process.Pid {
			t.Errorf("%d is no child of %d: %+v", pid, cmd.Process.Pid, p)
		}
	}
}

func TestDescendantsAreAllGenerations(t *testing.T) {
	procs := []process{{pid: 2, ppid: 1}, {pid: 3, ppid: 2}, {pid: 4, ppid: 3}, {pid: 5, ppid: 1}, {pid: 6, ppid: 5}}
	var pids []int
	for _, p := range descendants(procs, 2, 6) {
		pids = append(pids, p.pid)
	}
	slices.Sort(pids)
	if !slices.Equal(pids, []int{3, 4}) {
		t.Errorf("descendants %v, want 3 and 4", pids)
	}
}

// stuckWriter doesn't return before it is let go.
type stuckWriter struct {
	entered chan struct{}
	free    chan struct{}
	got     bytes.Buffer
}

func (w *stuckWriter) Write(b []byte) (int, error) {
	select {
	case w.entered <- struct{}{}:
	default:
	}
	<-w.free
	return w.got.Write(b)
}

// TestLogNeverBlocks: a log on a disk that hangs costs lines, not time, and says how
// many.
func TestLogNeverBlocks(t *testing.T) {
	disk := &stuckWriter{entered: make(chan struct{}, 1), free: make(chan struct{})}
	w := newAsyncWriter(disk)
	go w.run()
	log := slog.New(slog.NewTextHandler(w, nil))
	log.Info("first")
	<-disk.entered
	for range 1000 { // more than it keeps; would hang here
		log.Info("more")
	}
	close(disk.free)
	w.close()
	if !bytes.Contains(disk.got.Bytes(), []byte("log lines dropped")) {
		t.Error("lost lines aren't counted in the log")
	}
	if !bytes.Contains(disk.got.Bytes(), []byte("first")) {
		t.Error("a line was lost that need not have been")
	}
}
