// Package mono is the only reader of the machine's monotonic clock. It reads
// CLOCK_BOOTTIME, because Go's own monotonic clock stands still while a machine
// is suspended, and a suspended primary must not wake up believing that it still
// leads (safety rule S9).
package mono

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/events"
)

// Now returns the time since boot, suspend included.
func Now() events.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// The clock exists on every Linux since 2.6.39; without it no lease can be believed.
		panic("read CLOCK_BOOTTIME: " + err.Error())
	}
	return events.Instant(ts.Nano())
}

// BootID returns the kernel's identifier of this boot. Instants may be compared
// only between readings that carry the same one.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
