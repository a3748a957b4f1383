package main

import (
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// slack is how late the kernel may wake a thread of an agent that sleeps for a time. Go's runtime has
// a thread that watches the others: from the moment when the process is woken until it sleeps again
// this one sleeps for 20 µs at a time, to the kernel's default precision of 50 µs. With a precision of
// 1 ms it mostly sleeps once instead, which is a tenth of what an idle agent uses. Nothing that an
// agent waits for is exact to a millisecond; the fence's timer is the keeper's, and a timerfd, which
// has no slack (prctl(2), PR_SET_TIMERSLACK; timerfd_create(2)).
const slack = time.Millisecond

// lazyTimers gives the process that precision. Threads have that of their maker, and the one that
// matters is older than main, so the program is executed again, as the same process. Where that
// can't be, all stays as it is. The keeper inherits the precision, and gives PostgreSQL back the
// default.
func lazyTimers() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if now, err := timerSlack(); err != nil || now >= slack {
		return
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
		return
	}
	// Set and not in force (a real-time process has none): executing again would go on for ever.
	if now, err := timerSlack(); err != nil || now < slack {
		return
	}
	if self, err := os.Executable(); err == nil {
		_ = syscall.Exec(self, os.Args, os.Environ()) // it returns only if it fails
	}
}

// timerSlack is the calling thread's.
func timerSlack() (time.Duration, error) {
	ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	return time.Duration(ns), err
}

// waits reports that the program is to be one that waits nearly always.
func waits(name string, args []string) bool {
	return name == "patroni" || name != "patronictl" && len(args) > 0 && slices.Contains([]string{"agent", "witness"}, args[0])
}
