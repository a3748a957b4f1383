package events

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// NodeName is a member's name, unique within its cluster ("name" in the
// configuration). It is also the member's application_name in PostgreSQL.
type NodeName string

// SystemID is PostgreSQL's database system identifier as decimal digits. Two
// data directories with the same one descend from the same initdb.
type SystemID string

// Valid reports whether s is a system identifier as the store's initialize key
// holds it: at least ten characters, digits only.
func (s SystemID) Valid() bool {
	if len(s) < 10 {
		return false
	}
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return true
}

// LSN is a byte position in the write-ahead log. In JSON it is the decimal
// integer that Patroni's store keys use; for people it prints as PostgreSQL's X/Y.
type LSN uint64

// String prints the LSN as PostgreSQL does (two hexadecimal halves).
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads PostgreSQL's X/Y form.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("parse LSN %q: no slash", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: %w", s, err)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

// Timeline is a PostgreSQL timeline id. Zero means unknown.
type Timeline uint32

// Revision is a store revision: it grows with every change of the store, and a
// key's revision changes exactly when the key does. Zero means "absent".
type Revision uint64

// LeaseID names a lease (etcd lease, Consul session, lease of the embedded
// store). Opaque to everyone but its store. Empty means "no lease".
type LeaseID string

// Instant is a point on this machine's CLOCK_BOOTTIME, in nanoseconds (safety
// rule S9). Instants of different boots don't compare. Zero means "never".
type Instant int64

// Add returns i shifted by d.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Before reports whether i lies before j.
func (i Instant) Before(j Instant) bool { return i < j }

// Class is how a call that left the process ended. The machine branches on the
// class, never on an error's text.
type Class string

// The four classes of outcomes.
const (
	// Done: it took effect.
	Done Class = "done"
	// Refused: the other side answered "no" (lost compare-and-swap, illegal now). Nothing changed.
	Refused Class = "refused"
	// Unavailable: it did not take effect and may be tried again.
	Unavailable Class = "unavailable"
	// Unknown: it may have taken effect. Observe before anything else.
	Unknown Class = "unknown"
)
