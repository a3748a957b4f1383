package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// dog owns the watchdog device (S4). The guard tells it, without ever waiting, what
// is in force; its goroutine does what may block in a driver.
//
// A sign of life at time t promises a reset at t+timeout if everything stands still
// from then on, so one is given only while t+timeout isn't after the deadline: a
// machine that freezes is reset before anybody else may promote. The last possible
// one is given too, so that a running keeper's fence comes first. The exception is a
// server of which no client backend is left; its shutdown may outlive the deadline.
type dog struct {
	log  *slog.Logger
	open func(keeper.Watchdog) (watchdogDevice, error)
	// unproven: what an earlier keeper guarded may be alive.
	unproven func() bool
	note     *watchdogNote
	clock    func() events.Instant
	wake     chan struct{}

	mu      sync.Mutex // guards what follows; nothing that can block is done under it
	want    keeper.Watchdog
	until   events.Instant // the deadline
	calm    bool           // no client backend was seen since the last step
	outcome keeper.WatchdogState
	judged  keeper.Watchdog // what outcome is the outcome of
	changed chan struct{}   // closed and replaced when outcome is

	// Owned by run.
	device watchdogDevice
	opened keeper.Watchdog
	actual time.Duration
	petted events.Instant
}

func newDog(log *slog.Logger, note *watchdogNote, unproven func() bool) *dog {
	return &dog{
		log: log, note: note, unproven: unproven, clock: mono.Now,
		open:    func(w keeper.Watchdog) (watchdogDevice, error) { return openWatchdog(w, kernelCalls()) },
		wake:    make(chan struct{}, 1),
		changed: make(chan struct{}),
	}
}

// watch puts a grant's watchdog in force, or none.
func (d *dog) watch(w keeper.Watchdog, until events.Instant) {
	if w.Mode == "" {
		w = keeper.Watchdog{}
	}
	d.mu.Lock()
	idle := w.Mode == "" && d.want == w
	if d.want != w {
		d.judged = keeper.Watchdog{}
	}
	d.want, d.until = w, until
	d.mu.Unlock()
	if !idle {
		d.poke()
	}
}

// release says that PostgreSQL is proven dead or disarmed.
func (d *dog) release() { d.watch(keeper.Watchdog{}, 0) }

// noClients says that a look has just found no client backend.
func (d *dog) noClients() {
	d.mu.Lock()
	d.calm = true
	d.mu.Unlock()
	d.poke()
}

func (d *dog) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// state is for the status; nil when no watchdog was asked for.
func (d *dog) state() *keeper.WatchdogState {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := d.outcome
	if st == (keeper.WatchdogState{}) {
		return nil
	}
	return &st
}

// refusal says why a required watchdog doesn't work; nil when it does, when none is
// required, and while that isn't known yet.
func (d *dog) refusal(w keeper.Watchdog) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w.Mode != keeper.WatchdogRequired || d.judged != w || d.outcome.Active {
		return nil
	}
	return refuse("the watchdog is required and doesn't work: %s", d.outcome.Problem)
}

// await is refusal after the device was tried, for which it waits until the deadline.
// Nothing that fences may call it.
func (d *dog) await(w keeper.Watchdog, until events.Instant) error {
	if w.Mode != keeper.WatchdogRequired {
		return nil
	}
	late := time.NewTimer(until.Sub(mono.Now()))
	defer late.Stop()
	for {
		d.mu.Lock()
		known, changed := d.judged == w, d.changed
		d.mu.Unlock()
		if known {
			return d.refusal(w)
		}
		select {
		case <-changed:
		case <-late.C:
			return refuse("the watchdog is required, and %s didn't answer in time", w.Device)
		}
	}
}

// run is the dog's goroutine. When ctx ends, PostgreSQL is down.
func (d *dog) run(ctx context.Context) {
	d.inherit()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		if next := d.step(); next > 0 {
			timer.Reset(next)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
		case <-d.wake:
		case <-timer.C:
		}
	}
	if d.device == nil {
		return
	}
	if err := d.device.stop(); err != nil {
		d.log.Error("the machine will be reset unless something else pets the watchdog", "within", d.actual, "err", err)
		_ = d.device.pet() // as much time as there is
	}
}

// inherit takes over a device that a killed keeper left counting.
func (d *dog) inherit() {
	w, left := d.note.read()
	if !left {
		return
	}
	d.log.Warn("an earlier keeper left the watchdog running", "device", w.Device)
	d.opened = w
}

// step does what is due and returns when to come again, 0 meaning only when woken.
func (d *dog) step() time.Duration {
	now := d.clock()
	d.mu.Lock()
	want, until, calm := d.want, d.until, d.calm
	d.calm = false
	d.mu.Unlock()
	if want.Mode == "" {
		return d.rest(now)
	}
	if d.opened.Device != "" && d.opened.Device != want.Device {
		if err := d.letGo(); err != nil {
			d.log.Error("the machine may be reset by a watchdog that is not wanted any more", "err", err)
			if d.device != nil {
				_ = d.device.abandon() // it counts on, whatever is done
			}
			d.device, d.opened = nil, keeper.Watchdog{}
		}
	}
	if d.device == nil || d.opened != want {
		err := d.activate(want, until, now)
		if err != nil && d.device != nil {
			if stopErr := d.letGo(); stopErr != nil {
				err = fmt.Errorf("%w; and it can't be switched off: %w", err, stopErr)
			}
		}
		if err != nil {
			d.report(want, keeper.WatchdogState{Problem: err.Error()})
			return 0 // the next grant tries again
		}
		d.report(want, keeper.WatchdogState{Active: true, Timeout: d.actual})
		now = d.clock() // the driver may have taken its time
	}
	return d.attend(now, until, calm)
}

// attend gives a sign of life if one may be given, and returns when the next is due.
func (d *dog) attend(now, until events.Instant, calm bool) time.Duration {
	const early = 20 * time.Millisecond // so that the last one isn't missed
	last := until.Add(-d.actual)
	switch {
	case now <= last, calm && now.Sub(d.petted) > d.actual/4:
		d.petNow(now)
	}
	next := min(d.actual/4, last.Add(-early).Sub(now))
	return max(next, 0)
}

// activate opens the device if it isn't open and sets its timeout. After an error it
// may be open.
func (d *dog) activate(want keeper.Watchdog, until, now events.Instant) error {
	if _, err := os.Stat(want.Device); d.device == nil && errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open the device: %w", err)
	}
	if want.Timeout < time.Second {
		return fmt.Errorf("a timeout of %s is less than a device can do: a longer ttl or a smaller safety_margin is needed (-1 is half of ttl)",
			want.Timeout)
	}
	if now.Add(want.Timeout) > until {
		// Opening is a sign of life.
		return fmt.Errorf("a timeout of %s ends after the lease, in %s: a larger safety_margin is needed", want.Timeout, until.Sub(now))
	}
	if d.device == nil {
		// Noted first: a keeper that is killed now leaves a device that counts.
		if err := d.note.write(want); err != nil {
			return err
		}
		device, err := d.open(want)
		if err != nil {
			d.note.remove(d.log)
			return err
		}
		d.device = device
	}
	d.opened, d.petted = want, now
	actual, err := d.device.setTimeout(want.Timeout)
	if err == nil && now.Add(actual) > until {
		err = fmt.Errorf("%s takes %s at least, which ends after the lease", want.Device, actual)
	}
	if err != nil {
		return err
	}
	d.actual = actual
	d.log.Info("watchdog activated", "device", want.Device, "timeout", actual)
	return nil
}

// rest is for the time without a grant: the device is switched off, and one that
// can't be is kept from resetting a machine on which PostgreSQL is proven dead or may
// run without a deadline.
func (d *dog) rest(now events.Instant) time.Duration {
	const again = 200 * time.Millisecond
	if d.device == nil && d.opened.Device == "" {
		d.report(keeper.Watchdog{}, keeper.WatchdogState{})
		return 0
	}
	if d.device == nil && d.unproven() {
		return again
	}
	err := d.letGo()
	switch {
	case err == nil:
	case d.device == nil:
		d.log.Error("the machine may be reset: the watchdog that an earlier keeper left running can't be opened", "err", err)
		d.report(keeper.Watchdog{}, keeper.WatchdogState{Device: d.opened.Device, Problem: err.Error()})
		return time.Second
	default:
		d.petNow(now)
		d.report(keeper.Watchdog{}, keeper.WatchdogState{
			Device: d.opened.Device, Active: true, Timeout: d.actual, Problem: err.Error(),
		})
		return d.actual / 4
	}
	d.report(keeper.Watchdog{}, keeper.WatchdogState{})
	return 0
}

// petNow gives a sign of life.
func (d *dog) petNow(now events.Instant) {
	if err := d.device.pet(); err != nil {
		d.log.Error("the machine will be reset: a sign of life was not taken", "err", err)
	}
	d.petted = now
}

// letGo switches the device off, and opens it first if an earlier keeper had it.
// After an error it is still held, if it could be opened.
func (d *dog) letGo() error {
	if d.device == nil {
		device, err := d.open(d.opened)
		if err != nil {
			return err
		}
		d.device, d.actual = device, max(d.opened.Timeout, time.Second)
	}
	if err := d.device.stop(); err != nil {
		return err
	}
	d.log.Info("watchdog switched off", "device", d.opened.Device)
	d.note.remove(d.log)
	d.device, d.opened = nil, keeper.Watchdog{}
	return nil
}

// report publishes what became of a wish.
func (d *dog) report(of keeper.Watchdog, st keeper.WatchdogState) {
	if of.Mode != "" {
		st.Mode, st.Device = of.Mode, of.Device
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if st.Problem != "" && st.Problem != d.outcome.Problem {
		level := slog.LevelWarn
		if _, err := os.Stat(st.Device); errors.Is(err, os.ErrNotExist) && st.Mode != keeper.WatchdogRequired {
			level = slog.LevelInfo // most machines have none, and nobody insists
		}
		d.log.Log(context.Background(), level, "watchdog", "device", st.Device, "active", st.Active, "problem", st.Problem)
	}
	d.outcome, d.judged = st, of
	close(d.changed)
	d.changed = make(chan struct{})
}
