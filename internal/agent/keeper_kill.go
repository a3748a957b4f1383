package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/pgmgr/keeper"
)

// killKeeper kills the process that listens on the run directory's socket, and
// returns when it is gone. The kernel names the process behind a socket even when
// that stands still. The handle on the process is taken before it is verified, so
// that a pid that was given away meanwhile is never hit.
func killKeeper(ctx context.Context, runDir string) (pid int, err error) {
	pid, err = listenerOf(ctx, runDir)
	if err != nil {
		return 0, fmt.Errorf("find the keeper of %s: %w", runDir, err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return pid, nil // gone by itself
	}
	if err != nil {
		return pid, fmt.Errorf("take a handle on the keeper: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // only a number to let go
	// A keeper lives in its run directory.
	want, err := keeper.Resolve(runDir)
	if err != nil {
		return pid, err
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != want {
		return pid, fmt.Errorf("process %d is not the keeper of %s: it lives in %q", pid, want, cwd)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return pid, fmt.Errorf("kill the keeper: %w", err)
	}
	return pid, awaitEnd(ctx, fd)
}

// listenerOf is the pid of the process that opened the keeper's socket.
func listenerOf(ctx context.Context, runDir string) (int, error) {
	path, err := keeper.SocketPath(runDir)
	if err != nil {
		return 0, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }() // nothing was said on it
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// awaitEnd waits until the process behind the handle has ended.
func awaitEnd(ctx context.Context, pidfd int) error {
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(50*time.Millisecond/time.Millisecond))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the keeper's end: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
	return fmt.Errorf("wait for the keeper's end: %w", context.Cause(ctx))
}
