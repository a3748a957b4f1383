package dcs

import (
	"fmt"
	"strings"
)

// MaxTxnKeys bounds the writes of one transaction, MaxTxnGuards its guards. Taking the
// leader key needs four of these (safety rules S12 and S14); every backend can do that at once.
const (
	MaxTxnKeys   = 3
	MaxTxnGuards = 4
)

// Validate refuses what no backend could carry out: no write, more than
// MaxTxnKeys writes, more than MaxTxnGuards guards, two writes of one key, a guard without a condition,
// a malformed key. Its error is ErrBroken, because only a change of the program helps.
func (t Txn) Validate() error {
	if len(t.Writes) == 0 || len(t.Writes) > MaxTxnKeys || len(t.Guards) > MaxTxnGuards {
		return fmt.Errorf("transaction of %d writes under %d guards: %w (1 to %d writes, up to %d guards)",
			len(t.Writes), len(t.Guards), ErrBroken, MaxTxnKeys, MaxTxnGuards)
	}
	for i, w := range t.Writes {
		if !validKey(w.Key) {
			return fmt.Errorf("write of key %q: %w: not a key", w.Key, ErrBroken)
		}
		for _, other := range t.Writes[:i] {
			if other.Key == w.Key {
				return fmt.Errorf("transaction: %w: key %q is written twice", ErrBroken, w.Key)
			}
		}
	}
	for _, g := range t.Guards {
		if !validKey(g.Key) {
			return fmt.Errorf("guard on key %q: %w: not a key", g.Key, ErrBroken)
		}
		if !g.Absent && g.Version == 0 && g.Value == nil && g.Lease == "" {
			return fmt.Errorf("guard on key %q: %w: no condition", g.Key, ErrBroken)
		}
		if g.Absent && g.Lease != "" {
			return fmt.Errorf("guard on key %q: %w: an absent key has no lease", g.Key, ErrBroken)
		}
	}
	return nil
}

func validKey(key string) bool {
	return key != "" && !strings.HasPrefix(key, "/") && !strings.HasSuffix(key, "/") &&
		!strings.Contains(key, "//")
}

// Holds reports whether the guard holds, given its key's entry (found says
// whether there is one). Backends that evaluate guards themselves share it.
func (g Guard) Holds(kv KV, found bool) bool {
	switch {
	case g.Absent:
		return !found
	case !found:
		return false
	case g.Version != 0 && kv.Version != g.Version:
		return false
	case g.Version == 0 && g.Value != nil && string(kv.Value) != *g.Value:
		return false
	default:
		return g.Lease == "" || kv.Lease == g.Lease
	}
}

// ValueIs is a guard: the key exists with this value.
func ValueIs(key, value string) Guard { return Guard{Key: key, Value: &value} }

// Put is a write of a permanent key.
func Put(key string, value []byte) Write { return Write{Key: key, Value: value} }

// ClaimInitialize is the transaction that starts a bootstrap: it succeeds for one
// member only, and records which one, so that others can clear the claim when that
// member is gone for good (safety rule S17).
func ClaimInitialize(by string) Txn {
	return Txn{
		Guards: []Guard{{Key: KeyInitialize, Absent: true}},
		Writes: []Write{
			Put(KeyInitialize, nil),
			Put(KeyBootstrap, object().with("by", ofString(by)).bytes()),
		},
	}
}
