package main

import (
	"io"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPostgreSQLGetsTheKernelsPrecision, whatever the keeper's is, which it has from the agent.
func TestPostgreSQLGetsTheKernelsPrecision(t *testing.T) {
	const inside = "REGENT_TEST_SLACK"
	if os.Getenv(inside) != "" {
		ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stdout.WriteString(strconv.Itoa(ns) + "\n"); err != nil {
			t.Fatal(err)
		}
		return
	}
	g := &guard{log: slog.New(slog.DiscardHandler), spawns: make(chan spawnRequest)}
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(time.Millisecond), 0, 0, 0); err != nil {
			t.Error(err)
		}
		g.runSpawner()
	}()
	defer close(g.spawns)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reply := make(chan spawnReply, 1)
	g.spawns <- spawnRequest{
		args:  []string{os.Args[0], "-test.run=^" + t.Name() + "$", "-test.count=1"},
		attr:  &syscall.ProcAttr{Env: append(os.Environ(), inside+"=1"), Files: []uintptr{0, in.Fd(), 2}},
		allow: func() bool { return true }, reply: reply,
	}
	r := <-reply
	if err := in.Close(); r.err != nil || err != nil {
		t.Fatal(r.err, err)
	}
	said, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Wait4(r.pid, nil, 0, nil); err != nil {
		t.Error(err)
	}
	first, _, _ := strings.Cut(string(said), "\n")
	ns, err := strconv.Atoi(first)
	if err != nil || time.Duration(ns) != defaultSlack {
		t.Errorf("a child of the keeper said %q", said)
	}
}
