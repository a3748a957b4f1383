package dcs

import (
	"context"
	"errors"
	"time"

	"github.com/pgregent/regent/events"
)

// Store is a small, linearizable key-value store with leases, scoped to one
// cluster: keys are relative to the cluster's base path ("leader", "members/pg01").
//
// Every method obeys its context's deadline and returns within it, give or take
// scheduling. Every error wraps exactly one of the four classes below. A Store is
// safe for concurrent use. It never renews a lease by itself: a hung agent must
// lose its lease (architecture, section 4).
type Store interface {
	// View returns the whole cluster. With Linearizable it reflects every write
	// that completed before the call began; with Local it may be stale, and says
	// how stale in View.Age.
	View(ctx context.Context, c Consistency) (View, error)

	// Watch sends a whole View at once, then one after every change, until ctx
	// ends or the watch breaks; then it closes the channel. A slow reader misses
	// intermediate views, never the latest. Revisions never go backwards. A
	// backend resumes by itself across leader changes and compaction; a gap it
	// can't bridge shows as a fresh whole View.
	Watch(ctx context.Context) (<-chan View, error)

	// Commit applies a transaction: when all its guards hold, all its writes
	// happen at one revision, which is returned; otherwise nothing happens and
	// the error is ErrRefused. A write that names a lease which is gone is
	// refused as well. On ErrUnknown it may have happened, once.
	Commit(ctx context.Context, t Txn) (events.Revision, error)

	// Grant creates a lease under an id of the caller's choosing when the backend
	// allows it (id is otherwise a hint). The lease ends not before TTL after the
	// moment the call began, unless it is renewed or revoked.
	Grant(ctx context.Context, id events.LeaseID, ttl time.Duration) (Lease, error)

	// Renew extends a lease by its TTL from a moment not before the call began.
	// Lease.Keys lists the keys attached to it, read linearizably after the
	// renewal took effect (safety rule S8). ErrRefused: the lease is gone, with
	// all its keys.
	Renew(ctx context.Context, id events.LeaseID) (Lease, error)

	// Revoke ends a lease and deletes the keys attached to it, at once. Revoking
	// a lease that is gone succeeds.
	Revoke(ctx context.Context, id events.LeaseID) error

	// Close frees what the store holds. Leases and keys stay. Calls under way end
	// with ErrUnavailable or ErrUnknown.
	Close() error
}

// Consistency of a View.
type Consistency int

// The two read consistencies.
const (
	// Linearizable reads see every write completed before the read began.
	Linearizable Consistency = iota
	// Local reads may be stale by View.Age or more if that is unknown.
	Local
)

// The four error classes. Every error of a Store wraps one of them.
var (
	// ErrRefused: the store answered "no": a guard failed, or the lease is gone. Nothing changed.
	ErrRefused = errors.New("refused by the store")
	// ErrUnavailable: nothing happened, and the call may be tried again.
	ErrUnavailable = errors.New("store unavailable")
	// ErrUnknown: it may have happened. Read before anything else.
	ErrUnknown = errors.New("outcome unknown")
	// ErrBroken: an operator is needed (wrong secret, corrupt folder, unusable settings).
	ErrBroken = errors.New("store broken")
)

// ClassOf maps a Store's error to the machine's outcome class. An error of no
// known class counts as unknown, which is the safe reading.
func ClassOf(err error) events.Class {
	switch {
	case err == nil:
		return events.Done
	case errors.Is(err, ErrRefused):
		return events.Refused
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrBroken):
		return events.Unavailable
	default:
		return events.Unknown
	}
}

// Lease as the store granted it.
type Lease struct {
	ID  events.LeaseID
	TTL time.Duration // as granted, which may differ from what was asked
	// Keys attached to the lease, sorted. Filled by Renew only.
	Keys []string
}

// KV is one key with its value and versions.
type KV struct {
	Key     string
	Value   []byte
	Lease   events.LeaseID  // empty: permanent
	Created events.Revision // when the key came into being
	Version events.Revision // when it last changed
}

// View is the whole cluster at one revision. KVs are sorted by key.
type View struct {
	Revision events.Revision
	KVs      []KV
	// Age is an upper bound on how long ago the store was known to be in touch
	// with its quorum at this revision. A Local view may be older by as long as the
	// quorum's last word was on its way here, which one side alone can't measure: less than a
	// millisecond as a rule, much more when this machine stood still meanwhile (safety rule
	// S24). Negative: no contact yet, unknown.
	Age time.Duration
	// At is when Age was true, on this machine's clock; whoever keeps a View for a
	// while adds the time since. Zero from a store that doesn't read the clock.
	At events.Instant
}

// Get returns the key's entry.
func (v View) Get(key string) (KV, bool) {
	for _, kv := range v.KVs {
		if kv.Key == key {
			return kv, true
		}
	}
	return KV{}, false
}

// Txn is a guarded write of up to three keys, under up to four guards (safety rules S12, S14).
type Txn struct {
	Guards []Guard
	Writes []Write
}

// Guard is a condition on one key. Exactly one of its conditions is used: the
// first of Absent, Version, Value that is set.
type Guard struct {
	Key     string
	Absent  bool            // the key must not exist
	Version events.Revision // the key must exist with this version
	Value   *string         // the key must exist with this value
	// Lease, when set, must also be the lease the key is attached to.
	Lease events.LeaseID
}

// Write puts or deletes one key. A put attaches the key to Lease, or detaches it
// when Lease is empty. Deleting an absent key is no error; a transaction that does nothing
// else changes nothing, and may return the revision that was already there.
type Write struct {
	Key    string
	Value  []byte
	Lease  events.LeaseID
	Delete bool
}
