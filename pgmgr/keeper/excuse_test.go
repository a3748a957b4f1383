package keeper_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/pgmgr/keeper"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// left: the agent says farewell in maintenance mode, and is gone.
func (w *world) left() {
	w.t.Helper()
	refused(w.t, w.k.Shutdown(w.ctx()), "lives")
	if err := w.k.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) keeperEnds(pid int) {
	w.t.Helper()
	w.eventually("the keeper ends", func() error {
		if !gone(pid) {
			return fmt.Errorf("process %d lives", pid)
		}
		return nil
	})
}

// TestKeeperThatWasLeftEndsWithItsServer, whether that was its own or adopted, and doesn't touch
// the one that somebody else starts in the same moment.
func TestKeeperThatWasLeftEndsWithItsServer(t *testing.T) {
	for name, adopted := range map[string]bool{"own": false, "adopted": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var st keeper.Status
			if adopted {
				pid, wait := w.foreign()
				t.Cleanup(func() { _ = wait() }) // its end is seen below
				var err error
				if st, err = w.k.Adopt(w.ctx(), pid); err != nil {
					t.Fatal(err)
				}
			} else {
				w.standby()
				st = w.start(nil)
			}
			w.left()
			signalPID(t, st.PID, syscall.SIGINT)
			w.eventually("the postmaster ends", func() error {
				if !gone(st.PID) {
					return fmt.Errorf("process %d lives", st.PID)
				}
				return nil
			})
			next, wait := w.foreign()
			w.keeperEnds(st.KeeperPID)
			w.session().must(`select 1`)
			if gone(next) {
				t.Error("the next server is gone")
			}
			signalPID(t, next, syscall.SIGINT)
			if err := wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestKeeperThatWasLeftStillClearsUpAfterACrash: what outlives a killed postmaster is ended
// before the keeper is (S1).
func TestKeeperThatWasLeftStillClearsUpAfterACrash(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	st := w.start(&g)
	if err := w.k.Disarm(w.ctx(), pause(7)); err != nil {
		t.Fatal(err)
	}
	w.committing()
	w.left()
	signalPID(t, st.PID, syscall.SIGKILL)
	w.keeperEnds(st.KeeperPID)
	if left := pgtest.ProcessesIn(w.data); len(left) > 0 {
		t.Errorf("the keeper has ended, and %v are left", left)
	}
}

// TestDeadlineOutlastsAFarewell: a primary under its lease is fenced, whoever has left.
func TestDeadlineOutlastsAFarewell(t *testing.T) {
	w := newWorld(t)
	g := grant(1, 2*time.Second, time.Second)
	st := w.start(&g)
	w.left()
	w.k = w.launch()
	if now := w.status(); now.KeeperPID != st.KeeperPID {
		t.Fatalf("keeper %d was replaced by %d", st.KeeperPID, now.KeeperPID)
	}
	w.next(keeper.ServerDown)
}

// TestNextAgentTakesTheKeeperBack: it hears of the server's end, as ever.
func TestNextAgentTakesTheKeeperBack(t *testing.T) {
	w := newWorld(t)
	w.standby()
	st := w.start(nil)
	w.left()
	w.k = w.launch()
	signalPID(t, st.PID, syscall.SIGINT)
	w.next(keeper.ServerDown)
	if now := w.status(); now.KeeperPID != st.KeeperPID {
		t.Errorf("keeper %d was replaced by %d", st.KeeperPID, now.KeeperPID)
	}
}
