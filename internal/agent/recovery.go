package agent

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watchRecovery asks for a look at PostgreSQL the moment it leaves recovery: the
// startup process removes standby.signal then (PostgreSQL's xlogrecovery.c), and
// the kernel tells. That is what makes a promotion behind the agent's back a matter
// of milliseconds without polling.
func (a *Agent) watchRecovery(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case st := <-a.observe.looked:
			if st.Running && st.InRecovery {
				a.awaitSignalFile(ctx)
			}
		}
	}
}

// awaitSignalFile returns when standby.signal is gone, the data directory too, or
// ctx has ended.
func (a *Agent) awaitSignalFile(ctx context.Context) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		a.log.Warn("no inotify; a promotion behind the agent's back is noticed at the next heartbeat", "err", err)
		wait(ctx, time.Minute)
		return
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	if _, err := unix.InotifyAddWatch(fd, a.opt.DataDir, unix.IN_DELETE|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF); err != nil {
		wait(ctx, 100*time.Millisecond)
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := os.Stat(filepath.Join(a.opt.DataDir, "standby.signal")); err != nil {
		return // gone already; the look that brought us here told so, or the next will
	}
	buf := make([]byte, 16*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		if removed(buf[:n]) {
			a.lookUntilPrimary(ctx)
			return
		}
	}
}

// removed reports whether the signal file, or the directory, was deleted.
func removed(buf []byte) bool {
	for len(buf) >= unix.SizeofInotifyEvent {
		ev := (*unix.InotifyEvent)(unsafe.Pointer(&buf[0]))
		end := unix.SizeofInotifyEvent + int(ev.Len)
		if end > len(buf) {
			return false
		}
		name := string(bytes.TrimRight(buf[unix.SizeofInotifyEvent:end], "\x00"))
		if ev.Mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED) != 0 || name == "standby.signal" {
			return true
		}
		buf = buf[end:]
	}
	return false
}

// lookUntilPrimary looks until the server says that recovery is over: the file goes
// a few milliseconds before it does.
func (a *Agent) lookUntilPrimary(ctx context.Context) {
	for range 20 {
		a.observe.kick()
		t := time.NewTimer(25 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case st := <-a.observe.looked:
			t.Stop()
			if !st.Running || !st.InRecovery {
				return
			}
			wait(ctx, 10*time.Millisecond)
		case <-t.C:
		}
	}
}
