package keeper_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// pause is the waiver of a pause that was read at a revision of /config.
func pause(config events.Revision) keeper.Waiver {
	return keeper.Waiver{Reason: keeper.WaivedPause, Config: config}
}

// resumed is a grant given when /config was at a revision without pause.
func resumed(rev, config events.Revision, d, budget time.Duration) keeper.Grant {
	g := grant(rev, d, budget)
	g.Config = config
	return g
}

// until waits for an instant.
func (w *world) until(at events.Instant) {
	w.t.Helper()
	w.eventually("the time comes", func() error {
		if now := mono.Now(); now < at {
			return fmt.Errorf("%s to go", at.Sub(now))
		}
		return nil
	})
}

func (w *world) status() keeper.Status {
	w.t.Helper()
	st, err := w.k.Status(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}

// TestPausedServerIsNotFenced: S11. It lives on when the old deadline has passed, a
// renewal that was under way doesn't arm it again, a restarted agent learns why it
// is disarmed, and after the resume the deadline counts again.
func TestPausedServerIsNotFenced(t *testing.T) {
	w := newWorld(t)
	g := longGrant()
	w.start(&g)
	short := resumed(2, 6, 800*time.Millisecond, 200*time.Millisecond)
	if err := w.k.Extend(w.ctx(), short); err != nil {
		t.Fatal(err)
	}
	refused(t, w.k.Disarm(w.ctx(), pause(5)), "older")
	refused(t, w.k.Disarm(w.ctx(), keeper.Waiver{Config: 7}), "reason")
	if err := w.k.Disarm(w.ctx(), pause(7)); err != nil {
		t.Fatal(err)
	}
	for _, config := range []events.Revision{0, 6, 7} {
		refused(t, w.k.Extend(w.ctx(), resumed(3, config, 800*time.Millisecond, 200*time.Millisecond)), "disarmed (pause) at revision 7")
	}
	w.until(short.Deadline.Add(100 * time.Millisecond))
	w.session().must(`create table still_writable (i int)`)

	if err := w.k.Close(); err != nil {
		t.Fatal(err)
	}
	w.k = w.launch()
	if st := w.status(); st.Armed != nil || st.Waived == nil || *st.Waived != pause(7) {
		t.Errorf("a new agent is told %+v, want that it is disarmed for the pause at revision 7", st)
	}
	last := resumed(3, 8, 1500*time.Millisecond, time.Second)
	c := w.crowd()
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	if st := w.status(); st.Armed == nil || st.Waived != nil {
		t.Errorf("status %+v, want it armed", st)
	}
	w.during(last.Deadline)
	w.checkFenced(c, last.Deadline)
	if st := w.status(); st.Waived != nil {
		t.Errorf("status %+v: a waiver outlived its server", st)
	}
}

// TestDisarmingNothing: nothing is kept for the next server.
func TestDisarmingNothing(t *testing.T) {
	w := newWorld(t)
	if err := w.k.Disarm(w.ctx(), pause(7)); err != nil {
		t.Errorf("disarming a server that is down: %v", err)
	}
	_, err := w.k.Start(w.ctx(), w.startRequest(nil))
	refused(t, err, "standby.signal")
	g := longGrant()
	w.start(&g)
	if st := w.status(); st.Armed == nil || st.Waived != nil {
		t.Errorf("status %+v, want it armed", st)
	}
}

// TestPrimaryWithFencingOff: it is started without a deadline and outlives its
// agent; when the setting comes back it is armed, at the same revision of /config,
// because the setting may stand in a file; from then on it is fenced.
func TestPrimaryWithFencingOff(t *testing.T) {
	w := newWorld(t)
	off := keeper.Waiver{Reason: keeper.WaivedFencingOff, Config: 7}
	r := w.startRequest(nil)
	r.Waiver = &off
	g := longGrant()
	both := r
	both.Grant = &g
	_, err := w.k.Start(w.ctx(), both)
	refused(t, err, "exclude")
	st, err := w.k.Start(w.ctx(), r)
	if err != nil {
		t.Fatal(err)
	}
	if st.Armed != nil || st.Waived == nil || *st.Waived != off {
		t.Errorf("status %+v, want that fencing is off", st)
	}
	w.session().must(`create table t (i int)`)
	if err := w.k.Close(); err != nil {
		t.Fatal(err)
	}
	w.session().must(`insert into t values (1)`)
	w.k = w.launch()
	if now := w.status(); now.PID != st.PID || now.Waived == nil || *now.Waived != off {
		t.Errorf("a new agent is told %+v, want server %d with fencing off", now, st.PID)
	}
	refused(t, w.k.Extend(w.ctx(), resumed(1, 6, time.Hour, time.Second)), "disarmed (fencing_off)")
	last := resumed(1, 7, 1500*time.Millisecond, time.Second)
	c := w.crowd()
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	down, _ := w.during(last.Deadline)
	w.checkFenced(c, last.Deadline)
	if !down.Exit.Fenced {
		t.Errorf("exit %+v, want it fenced", *down.Exit)
	}
}

// TestPromotionWithFencingOff: the same for a standby.
func TestPromotionWithFencingOff(t *testing.T) {
	w := newWorld(t)
	w.standby()
	w.start(nil)
	s := w.session()
	off := keeper.Waiver{Reason: keeper.WaivedFencingOff, Config: 1}
	refused(t, w.k.PromoteWaived(w.ctx(), keeper.Waiver{}), "reason")
	if v := s.must(`select pg_is_in_recovery()`); v != "t" {
		t.Fatal("the refused promotion promoted")
	}
	if err := w.k.PromoteWaived(w.ctx(), off); err != nil {
		t.Fatal(err)
	}
	if st := w.status(); st.Armed != nil || st.Waived == nil || *st.Waived != off {
		t.Errorf("status %+v, want that fencing is off", st)
	}
	w.eventually("recovery ends", func() error {
		if s.must(`select pg_is_in_recovery()`) != "f" {
			return fmt.Errorf("still in recovery")
		}
		return nil
	})
}
