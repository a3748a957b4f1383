package kv

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// Version of the commands that this machine understands. A command of another
// version is answered with Broken by every node alike and changes nothing but the
// clock's term, so that a mixed cluster can't fall apart over it.
const Version = 1

// Op is what a command does.
type Op string

// The operations.
const (
	// OpGrant creates Lease with TTL. Repeating it under the same ID refreshes it.
	OpGrant Op = "grant"
	// OpRenew gives Lease its full TTL again, from the clock's present.
	OpRenew Op = "renew"
	// OpRevoke ends Lease and deletes its keys.
	OpRevoke Op = "revoke"
	// OpTxn does Writes when all Guards hold.
	OpTxn Op = "txn"
	// OpTick only moves the clock, so that leases end when nobody writes.
	OpTick Op = "tick"
	// OpRead returns the whole content.
	OpRead Op = "read"
)

// Command is one entry of the log. Its proposer fills the operation; the raft
// leader that appends it fills Term and Stamp, no one else.
type Command struct {
	V  int `json:"v"`
	Op Op  `json:"op"`
	// Term that Stamp belongs to: nanoseconds since that term's leader took its origin.
	Term  uint64 `json:"term,omitempty"`
	Stamp int64  `json:"stamp,omitempty"`
	// Between, of a tick: nanoseconds from when the leader of Term had last applied an
	// entry to its origin.
	Between int64 `json:"between,omitempty"`
	// ID names one attempt of a caller, so that a retried grant isn't refused for
	// finding the lease that its first try created.
	ID     string         `json:"id,omitempty"`
	Lease  events.LeaseID `json:"lease,omitempty"`
	TTL    time.Duration  `json:"ttl,omitempty"`
	Guards []Guard        `json:"guards,omitempty"`
	Writes []Write        `json:"writes,omitempty"`
}

// Guard is dcs.Guard as the log keeps it: a value need not be UTF-8, so it is bytes.
type Guard struct {
	Key     string          `json:"k"`
	Absent  bool            `json:"absent,omitempty"`
	Version events.Revision `json:"ver,omitempty"`
	Value   *[]byte         `json:"val,omitempty"`
	Lease   events.LeaseID  `json:"lease,omitempty"`
}

// Write is dcs.Write as the log keeps it.
type Write struct {
	Key    string         `json:"k"`
	Value  []byte         `json:"val,omitempty"`
	Lease  events.LeaseID `json:"lease,omitempty"`
	Delete bool           `json:"del,omitempty"`
}

// TxnCommand makes a command of a transaction.
func TxnCommand(t dcs.Txn) Command {
	c := Command{V: Version, Op: OpTxn}
	for _, g := range t.Guards {
		guard := Guard{Key: g.Key, Absent: g.Absent, Version: g.Version, Lease: g.Lease}
		if g.Value != nil {
			want := []byte(*g.Value)
			guard.Value = &want
		}
		c.Guards = append(c.Guards, guard)
	}
	for _, w := range t.Writes {
		c.Writes = append(c.Writes, Write(w))
	}
	return c
}

func (c Command) txn() dcs.Txn {
	var t dcs.Txn
	for _, g := range c.Guards {
		guard := dcs.Guard{Key: g.Key, Absent: g.Absent, Version: g.Version, Lease: g.Lease}
		if g.Value != nil {
			want := string(*g.Value)
			guard.Value = &want
		}
		t.Guards = append(t.Guards, guard)
	}
	for _, w := range c.Writes {
		t.Writes = append(t.Writes, dcs.Write(w))
	}
	return t
}

// Repeatable reports whether applying the command twice is as good as once, so
// that a proposer may try again when it doesn't know what became of the first try.
func (c Command) Repeatable() bool { return c.Op != OpTxn }

// Encode gives the command's bytes in the log.
func (c Command) Encode() ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode %s command: %w", c.Op, err)
	}
	return b, nil
}

// Class is how applying a command ended.
type Class string

// The classes of results.
const (
	// OK: it took effect.
	OK Class = "ok"
	// Refused: a guard failed, or the lease is gone. Nothing changed.
	Refused Class = "refused"
	// Broken: no node of this version can apply it. Nothing changed.
	Broken Class = "broken"
)

// Result of a command, the same on every node.
type Result struct {
	Class Class  `json:"class"`
	Why   string `json:"why,omitempty"`
	// Revision after the command; of a transaction, the revision of its writes.
	Revision events.Revision `json:"rev,omitempty"`
	// TTL and Keys of the lease, for grant and renew.
	TTL  time.Duration `json:"ttl,omitempty"`
	Keys []string      `json:"keys,omitempty"`
	// Content is set by OpRead: every key, sorted.
	Content []dcs.KV `json:"content,omitempty"`
}
