package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/pgmgr/keeper"
)

// watchdogDevice is an open device that counts. Its methods may block in the driver.
type watchdogDevice interface {
	// setTimeout returns what the device will do, which may differ.
	setTimeout(want time.Duration) (time.Duration, error)
	// pet gives a sign of life.
	pet() error
	// stop makes it stop counting and lets it go. After an error it counts on and is
	// still held, so that it can be kept from resetting the machine.
	stop() error
	// abandon lets it go as it is: it counts on.
	abandon() error
}

// watchdogCalls are the ioctls, so that tests can be the kernel.
type watchdogCalls struct {
	info func(fd int) (*unix.WatchdogInfo, error)
	get  func(fd int) (int, error)
	set  func(fd, request, value int) error
}

func kernelCalls() watchdogCalls {
	return watchdogCalls{
		info: unix.IoctlGetWatchdogInfo,
		get:  func(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT) },
		set: func(fd, request, value int) error {
			return unix.IoctlSetPointerInt(fd, uint(request), value)
		},
	}
}

// openWatchdog opens a device, which starts it.
func openWatchdog(w keeper.Watchdog, calls watchdogCalls) (watchdogDevice, error) {
	// Without O_NONBLOCK a named pipe that nobody reads would hold this up for ever.
	fd, err := unix.Open(w.Device, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", w.Device, err)
	}
	d := fileDevice{path: w.Device, fd: fd}
	switch w.Driver {
	case keeper.DriverTesting:
		return testingDevice{d}, nil
	case keeper.DriverLinux:
		return &linuxDevice{fileDevice: d, calls: calls}, nil
	}
	return nil, errors.Join(fmt.Errorf("open %s: no driver %q", w.Device, w.Driver), d.abandon())
}

// fileDevice is what all drivers share: bytes written to a file.
type fileDevice struct {
	path string
	fd   int
}

func (d fileDevice) write(what, text string) error {
	if n, err := unix.Write(d.fd, []byte(text)); err != nil || n != len(text) {
		return fmt.Errorf("%s %s (%d bytes written): %w", what, d.path, n, err)
	}
	return nil
}

func (d fileDevice) pet() error { return d.write("pet", "1") }

func (d fileDevice) abandon() error {
	if err := unix.Close(d.fd); err != nil {
		return fmt.Errorf("close %s: %w", d.path, err)
	}
	return nil
}

func (d fileDevice) magicClose() error {
	if err := d.write("write the magic close to", "V"); err != nil {
		return err
	}
	return d.abandon()
}

// linuxDevice speaks the kernel's watchdog interface.
type linuxDevice struct {
	fileDevice
	calls watchdogCalls
}

func (d *linuxDevice) setTimeout(want time.Duration) (time.Duration, error) {
	info, err := d.calls.info(d.fd)
	if err != nil {
		return 0, fmt.Errorf("ask %s what it is: %w", d.path, err)
	}
	if info.Options&unix.WDIOF_SETTIMEOUT != 0 {
		if err := d.calls.set(d.fd, unix.WDIOC_SETTIMEOUT, int(want/time.Second)); err != nil {
			return 0, fmt.Errorf("set the timeout of %s to %s: %w", d.path, want, err)
		}
	}
	seconds, err := d.calls.get(d.fd)
	if err != nil {
		return 0, fmt.Errorf("ask %s for its timeout: %w", d.path, err)
	}
	return time.Duration(seconds) * time.Second, nil
}

// stop disables the device before the magic close: one that can't be stopped
// (nowayout) says so only then, and a close would leave it counting with nobody to
// pet it. Drivers that don't know the request are content with the magic close.
func (d *linuxDevice) stop() error {
	err := d.calls.set(d.fd, unix.WDIOC_SETOPTIONS, unix.WDIOS_DISABLECARD)
	switch err {
	case nil, unix.ENOTTY, unix.EOPNOTSUPP, unix.EINVAL:
		return d.magicClose()
	}
	return fmt.Errorf("stop %s: %w", d.path, err)
}

// testingDevice tells a named pipe what a device would be told.
type testingDevice struct{ fileDevice }

func (d testingDevice) setTimeout(want time.Duration) (time.Duration, error) {
	return want, d.write("set the timeout of", fmt.Sprintf("T%d\n", want/time.Second))
}

func (d testingDevice) stop() error { return d.magicClose() }
