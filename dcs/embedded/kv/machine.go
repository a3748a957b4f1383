package kv

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// Bounds that keep the clock's arithmetic far from overflow.
const (
	maxTTL   = 365 * 24 * time.Hour
	maxStamp = int64(1) << 61
)

// Machine is the replicated state. It is not safe for concurrent use; whoever
// applies the log owns it.
type Machine struct {
	term     uint64
	clock    int64 // nanoseconds in term
	revision events.Revision
	leases   map[events.LeaseID]lease
	keys     map[string]dcs.KV
}

// lease ends when the clock reaches deadline.
type lease struct {
	TTL      time.Duration `json:"ttl"`
	Deadline int64         `json:"deadline"`
	// Term in which the deadline was last set, or brought up to its clock.
	Term uint64 `json:"term,omitempty"`
	// GrantID is the ID of the command that created it.
	GrantID string `json:"grant_id,omitempty"`
}

// New returns the empty machine.
func New() *Machine {
	return &Machine{leases: map[events.LeaseID]lease{}, keys: map[string]dcs.KV{}}
}

// Apply carries out the command in data, which is a log entry of the given term.
// It never panics and never fails: what can't be carried out is a result.
func (m *Machine) Apply(term uint64, data []byte) Result {
	m.rebase(term)
	var c Command
	if err := json.Unmarshal(data, &c); err != nil {
		return Result{Class: Broken, Why: "the command can't be read", Revision: m.revision}
	}
	if c.V != Version {
		return Result{
			Class: Broken, Revision: m.revision,
			Why: fmt.Sprintf("command version %d; this node knows version %d: upgrade all nodes", c.V, Version),
		}
	}
	if c.Term == term {
		m.advance(c)
	}
	return m.apply(c)
}

// advance moves the clock to a stamp of the entry's own term. A tick also says how
// long the time between the terms was, which counts once against every lease that
// hasn't been renewed since: what such a lease had left, it had left before that time.
func (m *Machine) advance(c Command) {
	if c.Op == OpTick && c.Between > 0 && c.Between < maxStamp {
		for id, l := range m.leases {
			if l.Term < m.term {
				l.Deadline, l.Term = l.Deadline-c.Between, m.term
				m.leases[id] = l
			}
		}
	}
	if c.Stamp > m.clock && c.Stamp < maxStamp {
		m.clock = c.Stamp
	}
	m.expire()
}

// rebase starts a new term's clock. Deadlines keep what remained of them; the time
// between the last stamp and the new origin is a gift to the holders until a tick
// of the new leader takes it back.
func (m *Machine) rebase(term uint64) {
	if term <= m.term {
		return
	}
	for id, l := range m.leases {
		l.Deadline -= m.clock
		m.leases[id] = l
	}
	m.term, m.clock = term, 0
}

// expire ends every lease whose deadline was reached. Their keys vanish at one
// revision: a holder's member key and leader key go in the same instant.
func (m *Machine) expire() {
	ended := map[events.LeaseID]bool{}
	for id, l := range m.leases {
		if l.Deadline <= m.clock {
			ended[id] = true
		}
	}
	m.end(ended)
}

func (m *Machine) end(leases map[events.LeaseID]bool) {
	if len(leases) == 0 {
		return
	}
	maps.DeleteFunc(m.leases, func(id events.LeaseID, _ lease) bool { return leases[id] })
	before := len(m.keys)
	maps.DeleteFunc(m.keys, func(_ string, kv dcs.KV) bool { return leases[kv.Lease] })
	if len(m.keys) != before {
		m.revision++
	}
}

func (m *Machine) apply(c Command) Result {
	switch c.Op {
	case OpGrant:
		return m.grant(c)
	case OpRenew:
		return m.renew(c.Lease)
	case OpRevoke:
		m.end(map[events.LeaseID]bool{c.Lease: c.Lease != ""})
		return Result{Class: OK, Revision: m.revision}
	case OpTxn:
		return m.txn(c.txn())
	case OpTick:
		return Result{Class: OK, Revision: m.revision}
	case OpRead:
		return Result{Class: OK, Revision: m.revision, Content: m.Content()}
	default:
		return Result{Class: Broken, Why: fmt.Sprintf("unknown operation %q", c.Op), Revision: m.revision}
	}
}

func (m *Machine) grant(c Command) Result {
	if c.Lease == "" || c.TTL <= 0 || c.TTL > maxTTL {
		return Result{Class: Broken, Why: "a lease needs an id and a time to live of at most a year", Revision: m.revision}
	}
	if old, ok := m.leases[c.Lease]; ok && (c.ID == "" || old.GrantID != c.ID) {
		return m.refuse("lease %s exists", c.Lease)
	}
	m.leases[c.Lease] = lease{TTL: c.TTL, GrantID: c.ID}
	return m.renew(c.Lease)
}

func (m *Machine) renew(id events.LeaseID) Result {
	l, ok := m.leases[id]
	if !ok {
		return m.refuse("lease %s is gone", id)
	}
	// The clock is at or past the command's own stamp, so the new deadline is never
	// short of stamp + TTL, and never before an earlier one.
	l.Deadline, l.Term = m.clock+int64(l.TTL), m.term
	m.leases[id] = l
	var keys []string
	for key, kv := range m.keys {
		if kv.Lease == id {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	return Result{Class: OK, Revision: m.revision, TTL: l.TTL, Keys: keys}
}

func (m *Machine) txn(t dcs.Txn) Result {
	if err := t.Validate(); err != nil {
		return Result{Class: Broken, Why: err.Error(), Revision: m.revision}
	}
	for _, g := range t.Guards {
		if kv, ok := m.keys[g.Key]; !g.Holds(kv, ok) {
			return m.refuse("the guard on %s failed", g.Key)
		}
	}
	for _, w := range t.Writes {
		if _, ok := m.leases[w.Lease]; w.Lease != "" && !w.Delete && !ok {
			return m.refuse("lease %s is gone", w.Lease)
		}
	}
	m.revision++
	for _, w := range t.Writes {
		if w.Delete {
			delete(m.keys, w.Key)
			continue
		}
		created := m.revision
		if old, ok := m.keys[w.Key]; ok {
			created = old.Created
		}
		m.keys[w.Key] = dcs.KV{
			Key: w.Key, Value: slices.Clone(w.Value), Lease: w.Lease, Created: created, Version: m.revision,
		}
	}
	return Result{Class: OK, Revision: m.revision}
}

func (m *Machine) refuse(format string, args ...any) Result {
	return Result{Class: Refused, Why: fmt.Sprintf(format, args...), Revision: m.revision}
}

// Content returns every key, sorted. Values are shared and must not be changed;
// the machine never changes one in place either.
func (m *Machine) Content() []dcs.KV {
	out := slices.Collect(maps.Values(m.keys))
	slices.SortFunc(out, func(a, b dcs.KV) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return out
}

// Revision of the content.
func (m *Machine) Revision() events.Revision { return m.revision }

// Value of a key; ok is false when there is none.
func (m *Machine) Value(key string) (v string, ok bool) {
	kv, ok := m.keys[key]
	return string(kv.Value), ok
}

// NextDeadline is the term clock's reading at which the next lease ends, and the
// term it is a reading of. ok is false when there is no lease.
func (m *Machine) NextDeadline() (term uint64, at time.Duration, ok bool) {
	for _, l := range m.leases {
		if d := time.Duration(l.Deadline); !ok || d < at {
			at, ok = d, true
		}
	}
	return m.term, at, ok
}
