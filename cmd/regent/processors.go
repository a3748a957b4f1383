package main

import (
	"os"
	"runtime"
)

// oneProcessor lets the process's goroutines run one at a time, unless GOMAXPROCS says
// otherwise. An agent waits nearly always, and is woken dozens of times a second for
// some microseconds; with more processors each of these times wakes idle threads as well,
// which look for work and find none: a fifth of what an idle agent uses on two cores. Who
// blocks in a call of the system (a disk that stands still, say) keeps the others waiting
// for 10 ms at most, then the runtime gives its place away.
func oneProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}
