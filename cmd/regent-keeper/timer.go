package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/events"
)

// timer wakes the fence at an absolute point of CLOCK_BOOTTIME. Timers only wake;
// whether the time has come is decided by reading the clock (safety rule S9).
type timer struct {
	file *os.File // owns fd; registered with the runtime's poller
	fd   int
}

func newTimer() (*timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create the fence timer: %w", err)
	}
	return &timer{file: os.NewFile(uintptr(fd), "fence timer"), fd: fd}, nil
}

// set makes wait return at the given moment, at once if it is past. A zero moment
// switches the timer off. It never blocks.
func (t *timer) set(at events.Instant) error {
	var spec unix.ItimerSpec
	if at > 0 {
		spec.Value = unix.NsecToTimespec(int64(at))
	}
	if err := unix.TimerfdSettime(t.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		return fmt.Errorf("set the fence timer: %w", err)
	}
	return nil
}

// wait blocks until the timer went off; an error once it is closed.
func (t *timer) wait() error {
	var count [8]byte
	if _, err := t.file.Read(count[:]); err != nil {
		return fmt.Errorf("wait for the fence timer: %w", err)
	}
	return nil
}

func (t *timer) close() error { return t.file.Close() }
