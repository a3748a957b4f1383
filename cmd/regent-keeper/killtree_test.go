package main

import (
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestAStaleKickEndsNoStart: the end of a server wakes the killer more than once, and the last time
// may come when the next postmaster is being forked and isn't in the books yet.
func TestAStaleKickEndsNoStart(t *testing.T) {
	for name, tc := range map[string]struct {
		killing bool // ordered while it was being forked
		ends    bool
	}{
		"stale":   {false, false},
		"ordered": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			forked := exec.Command("sleep", "1000") // a child of the keeper, as the postmaster is
			if err := forked.Start(); err != nil {
				t.Fatal(err)
			}
			g := lateGuard(t, starting)
			g.killing = tc.killing
			if again := g.clearOnce(time.Now()); again != tc.ends {
				t.Errorf("another pass is needed: %v, want %v", again, tc.ends)
			}
			_ = forked.Process.Signal(syscall.SIGTERM) // it comes second, or it is what ends it
			err := forked.Wait()
			killed := forked.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
			if killed != tc.ends {
				t.Errorf("what was being started ended with %v", err)
			}
		})
	}
}
