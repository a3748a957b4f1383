// Package child is for programs that run themselves again as a child, as another user or in
// namespaces of its own: signals are passed on to it, and orphans, which come to whoever stays
// above it, are reaped, because to PostgreSQL a zombie postmaster still looks alive.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Forwarding passes on what this process is told. Before To is called it is kept.
type Forwarding struct {
	signals chan os.Signal
	done    chan struct{} // closed when nothing is passed on any more; nil before To
}

// Forward begins to collect SIGINT, SIGTERM, SIGHUP and the others named. It is called before the
// child is started, so that nothing is missed. Stop ends it.
func Forward(others ...os.Signal) *Forwarding {
	f := &Forwarding{signals: make(chan os.Signal, 8)}
	signal.Notify(f.signals, append(others, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)...)
	return f
}

// To names the child, once.
func (f *Forwarding) To(child *os.Process) {
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		for s := range f.signals {
			_ = child.Signal(s) // it may just have ended
		}
	}()
}

// Stop lets signals be what they were.
func (f *Forwarding) Stop() {
	signal.Stop(f.signals)
	close(f.signals)
	if f.done != nil {
		<-f.done
	}
}

// Run starts the command, which what names in errors, and returns its exit code when it has ended.
// Signals are passed on to it, and all children reaped meanwhile.
func Run(cmd *exec.Cmd, what string, others ...os.Signal) (int, error) {
	f := Forward(others...)
	defer f.Stop()
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start %s: %w", what, err)
	}
	f.To(cmd.Process)
	return Reap(cmd.Process.Pid, what)
}

// Reap reaps children until pid is among them, and returns its exit code. what names it in errors.
func Reap(pid int, what string) (int, error) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait for %s: %w", what, err)
		case got == pid && ws.Exited():
			return ws.ExitStatus(), nil
		case got == pid && ws.Signaled():
			return 1, fmt.Errorf("%s: ended by %s", what, ws.Signal())
		}
	}
}
