package keeper_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// pipe stands for the watchdog device: what the kernel would be told is read from it.
type pipe struct {
	path string

	mu    sync.Mutex
	heard strings.Builder
	at    []events.Instant // of each byte
}

func (w *world) pipe() *pipe {
	w.t.Helper()
	p := &pipe{path: filepath.Join(w.run, "device")}
	if err := syscall.Mkfifo(p.path, 0o600); err != nil {
		w.t.Fatal(err)
	}
	f, err := os.OpenFile(p.path, os.O_RDWR, 0) // so that it never ends
	if err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 64)
		for {
			n, err := f.Read(buf)
			now := mono.Now()
			p.mu.Lock()
			p.heard.Write(buf[:n])
			for range n {
				p.at = append(p.at, now)
			}
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	w.t.Cleanup(func() {
		if err := f.Close(); err != nil {
			w.t.Error(err)
		}
		<-ended
	})
	return p
}

// told is everything that was heard, with the time of the last byte.
func (p *pipe) told() (string, events.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.at) == 0 {
		return "", 0
	}
	return p.heard.String(), p.at[len(p.at)-1]
}

// until waits until what was told ends so.
func (p *pipe) until(w *world, end string) {
	w.t.Helper()
	w.eventually("the watchdog is told "+end, func() error {
		if s, _ := p.told(); !strings.HasSuffix(s, end) {
			return fmt.Errorf("it was told %q", s)
		}
		return nil
	})
}

// watched is a grant that requires the watchdog, with a timeout of a second.
func (p *pipe) watched(rev events.Revision, d, budget time.Duration) keeper.Grant {
	g := grant(rev, d, budget)
	g.Watchdog = keeper.Watchdog{
		Mode: keeper.WatchdogRequired, Device: p.path, Driver: keeper.DriverTesting, Timeout: time.Second,
	}
	return g
}

// TestWatchdogBacksTheGrant: S4. It counts before PostgreSQL runs, its signs of life end
// a timeout before the deadline, and it is switched off only when PostgreSQL is
// proven dead.
func TestWatchdogBacksTheGrant(t *testing.T) {
	w := newWorld(t)
	p := w.pipe()
	g := p.watched(1, time.Hour, time.Second)
	st, err := w.k.Start(w.ctx(), w.startRequest(&g))
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("the watchdog counts", func() error { // it does; only the reader may be late
		if told, _ := p.told(); !strings.HasPrefix(told, "T1\n") {
			return fmt.Errorf("it was told %q", told)
		}
		return nil
	})
	if st.Watchdog == nil || !st.Watchdog.Active || st.Watchdog.Timeout != time.Second {
		t.Errorf("status %+v, want an active watchdog", st.Watchdog)
	}
	busy := w.session()
	signalPID(t, busy.pid, syscall.SIGSTOP) // the fence needs its whole ladder
	last := p.watched(2, 3*time.Second, 2*time.Second)
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	down, steps := w.during(last.Deadline)
	p.until(w, "V")
	told, off := p.told()
	if off < down.At {
		t.Errorf("the watchdog was switched off %s before the server was down", down.At.Sub(off))
	}
	p.mu.Lock()
	signs := strings.Count(told, "1") - 1 // without the timeout's
	sign := p.at[len(p.at)-2]
	p.mu.Unlock()
	if limit := last.Deadline.Add(-last.Watchdog.Timeout + 100*time.Millisecond); sign > limit {
		t.Errorf("the last sign of life came %s late (steps %s)", sign.Sub(limit), kinds(steps))
	}
	if signs < 3 || strings.Count(told, "V") != 1 {
		t.Errorf("it was told %q", told)
	}
	if st := w.status(); st.Watchdog != nil {
		t.Errorf("status %+v after the end", st.Watchdog)
	}
}

// TestLongShutdownIsNotReset: with all clients gone, a checkpoint that outlives the
// deadline doesn't cost the machine.
func TestLongShutdownIsNotReset(t *testing.T) {
	w := newWorld(t)
	p := w.pipe()
	g := p.watched(1, time.Hour, time.Second)
	w.start(&g)
	s := w.session()
	checkpointer := 0
	if _, err := fmt.Sscan(s.must(`select pid from pg_stat_activity where backend_type = 'checkpointer'`), &checkpointer); err != nil {
		t.Fatal(err)
	}
	s.close()
	signalPID(t, checkpointer, syscall.SIGSTOP)
	last := p.watched(2, 2500*time.Millisecond, 2*time.Second)
	if err := w.k.Extend(w.ctx(), last); err != nil {
		t.Fatal(err)
	}
	w.until(last.Deadline.Add(time.Second))
	told, sign := p.told()
	if strings.Contains(told, "V") || sign < last.Deadline.Add(300*time.Millisecond) {
		t.Errorf("a second after the deadline the last sign is %s old, and %q was told", mono.Now().Sub(sign), told)
	}
	signalPID(t, checkpointer, syscall.SIGCONT)
	w.next(keeper.ServerDown)
	p.until(w, "V")
}

// TestRequiredWatchdogIsMissing: nothing becomes writable.
func TestRequiredWatchdogIsMissing(t *testing.T) {
	w := newWorld(t)
	g := (&pipe{path: filepath.Join(w.run, "device")}).watched(1, time.Hour, time.Second)
	_, err := w.k.Start(w.ctx(), w.startRequest(&g))
	refused(t, err, "watchdog is required and doesn't work: open")
	if left := pgtest.ProcessesIn(w.data); len(left) > 0 {
		t.Errorf("processes %v run", left)
	}
	if st := w.status(); st.Alive || st.Armed != nil {
		t.Errorf("status %+v, want nothing", st)
	}
	w.standby()
	w.start(nil)
	refused(t, w.k.Promote(w.ctx(), g), "watchdog is required")
	if v := w.session().must(`select pg_is_in_recovery()`); v != "t" {
		t.Error("the refused promotion promoted")
	}
	// An extension is refused once it is known; it is tried again each time.
	w.eventually("an extension is refused", func() error {
		g.Deadline++
		if err := w.k.Extend(w.ctx(), g); err != nil {
			return nil
		}
		return fmt.Errorf("accepted")
	})
	w.pipe() // the device appears
	w.eventually("an extension is accepted", func() error {
		g.Deadline++
		return w.k.Extend(w.ctx(), g)
	})
	if st := w.status(); st.Armed == nil || st.Watchdog == nil || !st.Watchdog.Active {
		t.Errorf("status %+v, want it armed, with its watchdog", st)
	}
	// As automatic it does without, and says so.
	g.Watchdog = keeper.Watchdog{Mode: keeper.WatchdogAutomatic, Device: filepath.Join(w.run, "nothing"), Timeout: time.Second}
	g.Deadline++
	if err := w.k.Promote(w.ctx(), g); err != nil {
		t.Fatal(err)
	}
	w.eventually("the status says why there is none", func() error {
		if st := w.status(); st.Watchdog == nil || st.Watchdog.Active || !strings.Contains(st.Watchdog.Problem, "no such file") {
			return fmt.Errorf("status %+v", st.Watchdog)
		}
		return nil
	})
}

// TestPauseSwitchesTheWatchdogOff, and the resume on again.
func TestPauseSwitchesTheWatchdogOff(t *testing.T) {
	w := newWorld(t)
	p := w.pipe()
	g := p.watched(1, time.Hour, time.Second)
	w.start(&g)
	if err := w.k.Disarm(w.ctx(), pause(7)); err != nil {
		t.Fatal(err)
	}
	p.until(w, "V")
	g = p.watched(2, time.Hour, time.Second)
	g.Config = 8
	if err := w.k.Extend(w.ctx(), g); err != nil {
		t.Fatal(err)
	}
	p.until(w, "VT1\n1")
}

// TestNextKeeperSwitchesTheWatchdogOff: a killed keeper leaves it counting. The next one
// switches it off, not before the last backend of the old server is gone.
func TestNextKeeperSwitchesTheWatchdogOff(t *testing.T) {
	w := newWorld(t)
	p := w.pipe()
	g := p.watched(1, time.Hour, time.Second)
	st := w.start(&g)
	busy := w.committing()
	w.killTogether(st)
	if gone(busy.pid) {
		t.Fatal("the backend ended with its postmaster, so nothing is proven")
	}
	if told, _ := p.told(); strings.Contains(told, "V") {
		t.Fatalf("the killed keeper told %q", told)
	}
	w.k = w.launch()
	down, _ := w.next(keeper.ServerDown)
	p.until(w, "V")
	if _, off := p.told(); off < down.At {
		t.Errorf("the watchdog was switched off %s before the server was down", down.At.Sub(off))
	}
}
