package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// kernel answers the ioctls; everything that is written goes into a real file.
type kernel struct {
	options   uint32
	least     int   // seconds; the device can't do less
	stopErr   error // of WDIOS_DISABLECARD
	timeout   int
	requested []int // what was set, in order
	stopped   int
}

func (k *kernel) calls() watchdogCalls {
	return watchdogCalls{
		info: func(int) (*unix.WatchdogInfo, error) { return &unix.WatchdogInfo{Options: k.options}, nil },
		get:  func(int) (int, error) { return k.timeout, nil },
		set: func(_, request, value int) error {
			if request == unix.WDIOC_SETOPTIONS {
				if k.stopErr == nil {
					k.stopped++
				}
				return k.stopErr
			}
			k.requested = append(k.requested, value)
			k.timeout = max(value, k.least)
			return nil
		},
	}
}

// kennel is a dog on a device that is a file.
type kennel struct {
	*dog
	t        *testing.T
	kernel   *kernel
	path     string
	unproven bool
	opened   int
	now      events.Instant
}

// step is the dog's at some moment.
func (k *kennel) step(now events.Instant) time.Duration {
	k.now = now
	return k.dog.step()
}

const second = events.Instant(time.Second)

func newKennel(t *testing.T) *kennel {
	t.Helper()
	dir := t.TempDir()
	k := &kennel{t: t, path: filepath.Join(dir, "watchdog-device"),
		kernel: &kernel{options: unix.WDIOF_SETTIMEOUT | unix.WDIOF_MAGICCLOSE, timeout: 60}}
	if err := os.WriteFile(k.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k.renew(dir)
	return k
}

// renew is the next keeper's dog in the same run directory.
func (k *kennel) renew(dir string) {
	k.dog = newDog(slog.New(slog.DiscardHandler), newWatchdogNote(dir), func() bool { return k.unproven })
	k.open = func(w keeper.Watchdog) (watchdogDevice, error) {
		k.opened++
		return openWatchdog(w, k.kernel.calls())
	}
	k.clock = func() events.Instant { return k.now }
	k.inherit()
}

// written is what the device was told; each opening writes from the start again, so
// it is emptied by reading.
func (k *kennel) written() string {
	k.t.Helper()
	b, err := os.ReadFile(k.path)
	if err == nil {
		err = os.Truncate(k.path, 0)
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return strings.Trim(string(b), "\x00") // where an open file had got to
}

func (k *kennel) wish(timeout time.Duration) keeper.Watchdog {
	return keeper.Watchdog{Mode: keeper.WatchdogRequired, Device: k.path, Timeout: timeout}
}

func (k *kennel) want(written string, active bool) {
	k.t.Helper()
	if got := k.written(); got != written {
		k.t.Errorf("the device was told %q, want %q", got, written)
	}
	if st := k.state(); (st != nil && st.Active) != active {
		k.t.Errorf("state %+v, want active: %v", st, active)
	}
}

// TestSignsOfLifeEndBeforeTheDeadline: what stands still after the last one is reset no
// later than the deadline; while the keeper runs, not before.
func TestSignsOfLifeEndBeforeTheDeadline(t *testing.T) {
	k := newKennel(t)
	k.watch(k.wish(5*time.Second), 30*second)
	k.step(10 * second)
	k.want("1", true)
	if st := k.state(); st.Timeout != 5*time.Second || st.Mode != keeper.WatchdogRequired || len(k.kernel.requested) != 1 {
		t.Errorf("state %+v, requests %v", st, k.kernel.requested)
	}
	if next := k.step(24 * second); next <= 0 || next > time.Second {
		t.Errorf("the last sign is due at 25 s, and it sleeps for %s", next)
	}
	k.want("1", true)
	k.step(25 * second)
	k.want("1", true)
	if next := k.step(25*second + 1); next != 0 {
		t.Errorf("past the last sign it comes again in %s", next)
	}
	k.want("", true)
	// The next grant changes that.
	k.watch(k.wish(5*time.Second), 40*second)
	k.step(26 * second)
	k.want("1", true)
	// A fence that sees no client lets the shutdown outlive the deadline, look by look.
	k.step(38 * second)
	k.want("", true)
	k.noClients()
	k.step(39 * second)
	k.want("1", true)
	k.noClients()
	k.step(39*second + 1)
	k.want("", true)
	k.step(45 * second)
	k.want("", true)
	k.noClients()
	k.step(45 * second)
	k.want("1", true)
	k.release()
	k.step(46 * second)
	k.want("V", false)
	if k.kernel.stopped != 1 || k.state() != nil {
		t.Errorf("stopped %d times, state %+v", k.kernel.stopped, k.state())
	}
}

// TestWatchdogThatDoesNotFit: the device is left, or not even opened.
func TestWatchdogThatDoesNotFit(t *testing.T) {
	for _, tt := range []struct {
		name, problem string
		timeout       time.Duration
		change        func(*kennel)
		written       string
	}{
		{"shorter than a second", "safety_margin", 0, func(*kennel) {}, ""},
		{"longer than the lease", "ends after the lease", 29 * time.Second, func(*kennel) {}, ""},
		{"the device takes longer", "takes 40s at least", 5 * time.Second, func(k *kennel) { k.kernel.least = 40 }, "V"},
		{"a timeout that can't be set", "takes 1m0s", 5 * time.Second, func(k *kennel) { k.kernel.options = 0 }, "V"},
		{"no device", "no such file", 5 * time.Second, func(k *kennel) { k.path += "-gone" }, ""},
		{"another driver", "no driver", 5 * time.Second, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newKennel(t)
			device := k.path
			if tt.change != nil {
				tt.change(k)
			}
			w := k.wish(tt.timeout)
			if tt.change == nil {
				w.Driver = "telepathy"
			}
			k.watch(w, 30*second)
			if err := k.refusal(w); err != nil {
				t.Errorf("refused before it was tried: %v", err)
			}
			k.step(2 * second)
			k.path = device
			k.want(tt.written, false)
			if err := k.refusal(w); err == nil || !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("refused with %v, want %q", err, tt.problem)
			}
			w.Mode = keeper.WatchdogAutomatic
			if err := k.refusal(w); err != nil {
				t.Errorf("in automatic mode: %v", err)
			}
			if _, left := k.note.read(); left {
				t.Error("a note is left of a device that doesn't count")
			}
		})
	}
}

// TestWatchdogThatCanNotBeSwitchedOff (nowayout) must not reset a machine on which
// PostgreSQL is down, nor be closed, which would leave nobody to pet it.
func TestWatchdogThatCanNotBeSwitchedOff(t *testing.T) {
	k := newKennel(t)
	k.kernel.stopErr = unix.EBUSY
	k.watch(k.wish(4*time.Second), 30*second)
	k.step(2 * second)
	k.release()
	k.written()
	for now := 40 * second; now < 50*second; now += second {
		if next := k.step(now); next <= 0 || next > 2*time.Second {
			t.Fatalf("it comes again in %s, and the device resets after 4 s", next)
		}
		k.want("1", true)
	}
	if st := k.state(); st == nil || !strings.Contains(st.Problem, "busy") {
		t.Errorf("state %+v, want the problem", st)
	}
	// The next grant uses it as it is.
	k.watch(k.wish(4*time.Second), 90*second)
	k.step(60 * second)
	k.want("1", true)
	if k.opened != 1 {
		t.Errorf("it was opened %d times", k.opened)
	}
	// A driver that doesn't know the request has only the magic close.
	k.kernel.stopErr = unix.ENOTTY
	k.release()
	k.step(61 * second)
	k.want("V", false)
}

// TestWatchdogOfAKilledKeeper: it counts on. The next keeper switches it off, but not
// before everything that the killed one guarded is proven dead: opening it is a sign
// of life.
func TestWatchdogOfAKilledKeeper(t *testing.T) {
	k := newKennel(t)
	k.watch(k.wish(4*time.Second), 30*second)
	k.step(2 * second)
	if err := errors.Join(k.device.abandon()); err != nil {
		t.Fatal(err)
	}
	k.written()
	k.unproven = true
	k.renew(filepath.Dir(k.path))
	if next := k.step(3 * second); next <= 0 || next > time.Second {
		t.Errorf("it looks again after %s", next)
	}
	k.want("", false)
	if k.opened != 1 {
		t.Error("it was opened while a backend may live")
	}
	k.unproven = false
	k.step(4 * second)
	k.want("V", false)
	// A third has nothing to do, and neither has one after a reboot.
	k.renew(filepath.Dir(k.path))
	k.step(5 * second)
	if err := k.note.write(k.wish(time.Second)); err != nil {
		t.Fatal(err)
	}
	k.note.boot = "another"
	k.inherit()
	k.step(6 * second)
	if k.opened != 2 {
		t.Errorf("it was opened %d times", k.opened)
	}
}

// TestWatchdogSettingsMayChange under a running server.
func TestWatchdogSettingsMayChange(t *testing.T) {
	k := newKennel(t)
	k.watch(k.wish(4*time.Second), 30*second)
	k.step(2 * second)
	k.watch(k.wish(6*time.Second), 40*second)
	k.step(3 * second)
	k.want("11", true)
	if n := k.kernel.requested; len(n) != 2 || n[1] != 6 || k.opened != 1 {
		t.Errorf("timeouts %v on %d openings", n, k.opened)
	}
	first := k.path
	k.path += "2"
	if err := os.WriteFile(k.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k.watch(k.wish(6*time.Second), 50*second)
	k.step(4 * second)
	k.want("1", true)
	k.path = first
	k.want("V", true)
	// One that doesn't fit any more is switched off.
	k.watch(k.wish(time.Minute), 50*second)
	k.step(5 * second)
	k.want("", false)
	k.watch(keeper.Watchdog{}, 60*second)
	k.step(6 * second)
	if k.state() != nil {
		t.Errorf("state %+v although none is wanted", k.state())
	}
}
