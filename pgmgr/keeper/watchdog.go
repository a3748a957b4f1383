package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/events"
)

// WatchdogMode says how much a grant depends on the kernel's watchdog.
type WatchdogMode string

// The modes; the zero value is off.
const (
	// WatchdogAutomatic uses the device if there is one that works.
	WatchdogAutomatic WatchdogMode = "automatic"
	// WatchdogRequired refuses to start, promote or extend without one.
	WatchdogRequired WatchdogMode = "required"
)

// WatchdogDriver says how the device is spoken to.
type WatchdogDriver string

// The drivers; the zero value is Linux's.
const (
	// DriverLinux is the kernel's interface (Documentation/watchdog/watchdog-api).
	DriverLinux WatchdogDriver = ""
	// DriverTesting writes what would happen to a named pipe: "T5\n" for a timeout of
	// five seconds, "1" for each sign of life, "V" before an orderly close.
	DriverTesting WatchdogDriver = "testing"
)

// Watchdog backs a grant with a device that resets the machine when the keeper
// hasn't given it a sign of life for Timeout (safety rule S4). The keeper times its
// signs so that a reset comes no later than the grant's deadline, and not before
// fencing had its chance if the keeper runs: D−Timeout is the last one. Once no
// client backend is left it keeps the machine alive for the rest of the shutdown,
// and it switches the device off when PostgreSQL is proven dead or is disarmed.
type Watchdog struct {
	Mode   WatchdogMode   `json:"mode"`
	Device string         `json:"device"`
	Driver WatchdogDriver `json:"driver,omitempty"`
	// Timeout in whole seconds, less than the belief; see WatchdogTimeout.
	Timeout time.Duration `json:"timeout"`
}

// WatchdogTimeout is Patroni's rule: ttl less a margin, or half of ttl when the margin
// is negative, in whole seconds. Below a second no device works, and the keeper says
// so.
func WatchdogTimeout(ttl, margin time.Duration) time.Duration {
	if margin < 0 {
		return (ttl / 2).Truncate(time.Second)
	}
	return (ttl - margin).Truncate(time.Second)
}

// Unusable says why the keeper would refuse a grant of that ttl because of the watchdog, as
// far as can be told without opening the device, which starts it; nil: nothing is known.
func (w Watchdog) Unusable(ttl time.Duration) error {
	switch info, err := os.Stat(w.Device); {
	case w.Timeout < time.Second:
		return fmt.Errorf("a timeout of %s is less than a device can do: a longer ttl or a smaller safety_margin is needed (-1 is half of ttl)", w.Timeout)
	case w.Timeout >= events.Belief(ttl):
		return fmt.Errorf("a timeout of %s ends after the lease, in %s: a larger safety_margin is needed", w.Timeout, events.Belief(ttl))
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no %s", w.Device)
	case err != nil:
		return fmt.Errorf("look at the device: %w", err)
	case w.Driver == DriverLinux && info.Mode()&os.ModeCharDevice == 0:
		return fmt.Errorf("%s is no device", w.Device)
	}
	if err := unix.Access(w.Device, unix.W_OK); err != nil {
		return fmt.Errorf("%s can't be written by PostgreSQL's user: %w", w.Device, err)
	}
	return nil
}

// WatchdogState is what became of a grant's watchdog.
type WatchdogState struct {
	Mode   WatchdogMode `json:"mode"`
	Device string       `json:"device"`
	// Active: the machine is reset unless the keeper prevents it.
	Active bool `json:"active"`
	// Timeout is what the device does, which may differ from what was asked for.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Problem says why it isn't active, or can't be switched off.
	Problem string `json:"problem,omitempty"`
}
