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

// checkWaiver refuses a waiver without a reason.
func checkWaiver(w keeper.Waiver) error {
	if w.Reason == "" {
		return refuse("a waiver needs its reason")
	}
	return nil
}

// arm puts a checked grant in force. Called with mu held.
func (g *guard) arm(gr keeper.Grant) {
	if g.waived != nil {
		g.log.Info("armed again", "pid", g.pid, "config_revision", uint64(gr.Config), "was_waived_for", string(g.waived.Reason))
	}
	g.armed, g.waived = &gr, nil
	g.highest = gr.Revision
	g.config = max(g.config, gr.Config)
	g.setTimer(fenceBegin(gr))
	g.dog.watch(gr.Watchdog, gr.Deadline)
}

// waive puts a checked waiver in force. Called with mu held.
func (g *guard) waive(w keeper.Waiver) {
	g.log.Info("no deadline", "pid", g.pid, "was_armed", g.armed != nil, "why", string(w.Reason), "config_revision", uint64(w.Config))
	g.armed, g.waived = nil, &w
	g.config = max(g.config, w.Config)
	g.setTimer(0)
	g.dog.release()
}

// overrules reports whether the grant was given knowing better than the waiver. A
// pause is over only at a later revision. Where fencing was off by a setting, the
// same revision will do: the setting may stand in the agent's own file.
func overrules(gr keeper.Grant, w keeper.Waiver) bool {
	if w.Reason == keeper.WaivedFencingOff {
		return gr.Config >= w.Config
	}
	return gr.Config > w.Config
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
	case g.waived != nil && !overrules(gr, *g.waived):
		return refuse("disarmed (%s) at revision %d of /config; a grant given at revision %d doesn't arm again",
			g.waived.Reason, g.waived.Config, gr.Config)
	}
	if err := checkGrant(gr, now); err != nil {
		return err
	}
	if g.armed != nil && gr.Revision == g.armed.Revision && gr.Deadline <= g.armed.Deadline {
		// An older renewal's answer came late. A newer revision is another lease,
		// perhaps with a shorter TTL: it replaces the deadline, whichever way.
		return nil
	}
	if err := g.dog.refusal(gr.Watchdog); err != nil {
		g.dog.watch(gr.Watchdog, gr.Deadline) // try again; the lease holds until then
		return err
	}
	g.arm(gr)
	return nil
}

// disarm takes the deadline away (S11). Older revisions, of the leader key as of
// /config, stay refused.
func (g *guard) disarm(w *keeper.Waiver) error {
	if w == nil {
		return refuse("disarming needs a reason and the revision of /config")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase == down {
		return nil
	}
	return g.disarmLocked(*w)
}

func (g *guard) disarmLocked(w keeper.Waiver) error {
	g.beginFenceIfDue(mono.Now())
	switch {
	case g.fence != nil:
		return refuse("fencing has begun")
	case w.Config < g.config:
		return refuse("revision %d of /config is older than %d", w.Config, g.config)
	}
	if err := checkWaiver(w); err != nil {
		return err
	}
	g.waive(w)
	return nil
}

// promoteFile is what PostgreSQL looks for when it gets SIGUSR1 (12 to 18; unlike
// standby.signal it has no suffix).
const promoteFile = "promote"

// promote arms, or waives the deadline, then makes PostgreSQL leave recovery the way
// pg_ctl does: a file and SIGUSR1. It writes a file, so nothing may wait for it.
func (g *guard) promote(gr *keeper.Grant, w *keeper.Waiver) error {
	if (gr == nil) == (w == nil) {
		return refuse("a promotion needs either a grant or a waiver")
	}
	if _, err := os.Stat(filepath.Join(g.dataDir, "standby.signal")); err != nil {
		return refuse("the server isn't a standby: %v", err)
	}
	file, fileErr := readPIDFile(g.dataDir)
	if err := g.armForPromotion(gr, w, file, fileErr); err != nil {
		return err
	}
	if gr != nil {
		if err := g.dog.await(gr.Watchdog, fenceBegin(*gr)); err != nil {
			return err
		}
	}
	signalFile := filepath.Join(g.dataDir, promoteFile)
	if err := os.WriteFile(signalFile, nil, 0o600); err != nil {
		return refuse("write %s (what was armed or disarmed for it stays so): %v", signalFile, err)
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
func (g *guard) armForPromotion(gr *keeper.Grant, w *keeper.Waiver, file pidFile, fileErr error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asked {
		return refuse("the server is being stopped")
	}
	if g.phase == starting || g.phase == running && (fileErr != nil || file.pid != g.pid || file.status == "") {
		return refuse("the server is only being started: try again")
	}
	if gr != nil {
		return g.extendLocked(*gr)
	}
	if g.phase != running {
		return refuse("no server runs")
	}
	return g.disarmLocked(*w)
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
	case g.armed == nil && g.waived == nil:
		return refuse("the server was disarmed before it could be promoted")
	}
	g.signal(syscall.SIGUSR1)
	g.log.Info("promotion signalled", "pid", g.pid, "armed", g.armed != nil)
	return nil
}
