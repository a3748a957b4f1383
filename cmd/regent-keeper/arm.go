package main

import (
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// checkGrant refuses a grant under which fencing would have to begin already.
func checkGrant(gr keeper.Grant, now events.Instant) error {
	if gr.Budget <= 0 {
		return refuse("the grant's budget must be positive, not %s", gr.Budget)
	}
	if begin := fenceBegin(gr); !now.Before(begin) {
		return refuse("the grant is past: fencing would have begun %s ago (deadline %s before that plus the budget of %s)",
			now.Sub(begin).Round(time.Microsecond), gr.Deadline.Sub(begin), gr.Budget)
	}
	return nil
}

// fenceBegin is D−B.
func fenceBegin(gr keeper.Grant) events.Instant { return gr.Deadline.Add(-gr.Budget) }

// arm puts a checked grant in force. Called with mu held.
func (g *guard) arm(gr keeper.Grant) {
	g.armed = &gr
	g.highest = gr.Revision
	g.setTimer(fenceBegin(gr))
}

// extend moves the deadline of the running server (S2, S3).
func (g *guard) extend(gr keeper.Grant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.extendLocked(gr)
}

func (g *guard) extendLocked(gr keeper.Grant) error {
	now := mono.Now()
	// The timer may be late: a deadline that came is not extended.
	g.beginFenceIfDue(now)
	switch {
	case g.phase == down:
		return refuse("no server runs")
	case g.phase == ending:
		return refuse("the postmaster is gone")
	case g.fence != nil:
		return refuse("fencing has begun")
	case gr.Revision < g.highest:
		return refuse("revision %d is older than %d", gr.Revision, g.highest)
	}
	if err := checkGrant(gr, now); err != nil {
		return err
	}
	if g.armed != nil && gr.Revision == g.armed.Revision && gr.Deadline <= g.armed.Deadline {
		// An older renewal's answer came late. A newer revision is another lease,
		// perhaps with a shorter TTL: it replaces the deadline, whichever way.
		return nil
	}
	g.arm(gr)
	return nil
}

// disarm takes the deadline away (S11). Older revisions stay refused.
func (g *guard) disarm() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.beginFenceIfDue(mono.Now())
	if g.fence != nil {
		return refuse("fencing has begun")
	}
	if g.armed != nil {
		g.log.Info("disarmed", "pid", g.pid, "revision", uint64(g.armed.Revision))
	}
	g.armed = nil
	g.setTimer(0)
	return nil
}

// promoteFile is what PostgreSQL looks for when it gets SIGUSR1 (12 to 18; unlike
// standby.signal it has no suffix).
const promoteFile = "promote"

// promote arms, then makes PostgreSQL leave recovery the way pg_ctl does: a file
// and SIGUSR1. It writes a file, so nothing may wait for it.
func (g *guard) promote(gr keeper.Grant) error {
	if _, err := os.Stat(filepath.Join(g.dataDir, "standby.signal")); err != nil {
		return refuse("the server isn't a standby: %v", err)
	}
	file, fileErr := readPIDFile(g.dataDir)
	if err := g.armForPromotion(gr, file, fileErr); err != nil {
		return err
	}
	signalFile := filepath.Join(g.dataDir, promoteFile)
	if err := os.WriteFile(signalFile, nil, 0o600); err != nil {
		return refuse("write %s (the server is armed now): %v", signalFile, err)
	}
	err := g.signalPromotion()
	if err != nil {
		if rmErr := os.Remove(signalFile); rmErr != nil && !os.IsNotExist(rmErr) {
			return refuse("%v; and %s is left behind: %v", err, signalFile, rmErr)
		}
	}
	return err
}

// armForPromotion arms when the postmaster is able to take the signal: before it has
// its handlers, SIGUSR1 would end it.
func (g *guard) armForPromotion(gr keeper.Grant, file pidFile, fileErr error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asked {
		return refuse("the server is being stopped")
	}
	if g.phase == starting || g.phase == running && (fileErr != nil || file.pid != g.pid || file.status == "") {
		return refuse("the server is only being started: try again")
	}
	return g.extendLocked(gr)
}

// signalPromotion looks again, because the disk may have taken its time.
func (g *guard) signalPromotion() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.beginFenceIfDue(mono.Now())
	switch {
	case g.phase != running:
		return refuse("the server ended before it could be promoted")
	case g.fence != nil || g.killing:
		return refuse("fencing began before the server could be promoted")
	case g.asked:
		return refuse("a stop came before the server could be promoted")
	case g.armed == nil:
		return refuse("the server was disarmed before it could be promoted")
	}
	g.signal(syscall.SIGUSR1)
	g.log.Info("promotion signalled", "pid", g.pid, "revision", uint64(g.armed.Revision))
	return nil
}
