package main

import (
	"errors"
	"log/slog"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// lateGuard is armed with a deadline that has come, and its timer hasn't gone off: the
// timer is only what wakes the fence (S9).
func lateGuard(t *testing.T, ph phase) *guard {
	t.Helper()
	g, err := newGuard(t.TempDir(), newWatchdogNote(t.TempDir()), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.timer.close(); err != nil {
			t.Error(err)
		}
	})
	now := mono.Now()
	g.phase, g.armed = ph, &keeper.Grant{Revision: 1, Deadline: now.Add(time.Minute), Budget: 2 * time.Minute}
	return g
}

// TestLateTimerMakesNoDeadlineNegotiable: S3. Every command that could extend looks at the
// clock first; one that comes too late begins the fence in the timer's place.
func TestLateTimerMakesNoDeadlineNegotiable(t *testing.T) {
	for name, command := range map[string]func(*guard) error{
		"extend": func(g *guard) error {
			return g.extend(keeper.Grant{Revision: 2, Deadline: mono.Now().Add(time.Hour), Budget: time.Second})
		},
		"disarm": func(g *guard) error { return g.disarm(&keeper.Waiver{Reason: keeper.WaivedPause, Config: 9}) },
	} {
		t.Run(name, func(t *testing.T) {
			postmaster := exec.Command("sleep", "1000") // gets the fence's signal
			if err := postmaster.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = postmaster.Process.Kill() }) // it may be gone
			g := lateGuard(t, running)
			g.pid = postmaster.Process.Pid
			if err := command(g); err == nil || !strings.Contains(err.Error(), "fencing has begun") {
				t.Fatalf("got %v, want that fencing has begun", err)
			}
			err := postmaster.Wait()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
				t.Errorf("the postmaster ended with %v, want the fence's SIGINT", err)
			}
		})
	}
}

// TestNothingIsForkedAfterTheDeadline: between the check of a start and its fork the disk
// may take its time.
func TestNothingIsForkedAfterTheDeadline(t *testing.T) {
	g := lateGuard(t, starting)
	ended := make(chan struct{})
	go func() { defer close(ended); g.runSpawner() }()
	reply := make(chan spawnReply, 1)
	g.spawns <- spawnRequest{args: []string{"/bin/true"}, attr: &syscall.ProcAttr{}, allow: g.mayStart, reply: reply}
	r := <-reply
	close(g.spawns)
	<-ended
	if !errors.Is(r.err, errTooLate) || r.pid != 0 {
		t.Errorf("pid %d, %v; want that it is too late", r.pid, r.err)
	}
	if g.finishStart(keeper.StartRequest{Args: []string{"/bin/true"}}, r) == nil || g.phase != down || g.armed != nil {
		t.Errorf("afterwards: phase %d, armed %+v", g.phase, g.armed)
	}
}
