package kv

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// snapshot is the machine as JSON: keys sorted, integers only, so that equal
// machines give equal bytes.
type snapshot struct {
	V        int                      `json:"v"`
	Term     uint64                   `json:"term"`
	Clock    int64                    `json:"clock"`
	Revision events.Revision          `json:"revision"`
	Leases   map[events.LeaseID]lease `json:"leases"`
	Keys     []entry                  `json:"keys"`
}

type entry struct {
	Key     string          `json:"key"`
	Value   []byte          `json:"value"`
	Lease   events.LeaseID  `json:"lease,omitempty"`
	Created events.Revision `json:"created"`
	Version events.Revision `json:"version"`
}

// Snapshot encodes the machine, leases and clock included.
func (m *Machine) Snapshot() ([]byte, error) {
	s := snapshot{V: Version, Term: m.term, Clock: m.clock, Revision: m.revision, Leases: m.leases}
	for _, kv := range m.Content() {
		s.Keys = append(s.Keys, entry(kv))
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	return b, nil
}

// Restore replaces the machine by what Snapshot wrote. On an error it is unchanged.
func (m *Machine) Restore(data []byte) error {
	var s snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("decode snapshot: %w", err)
	}
	if s.V != Version {
		return fmt.Errorf("decode snapshot: version %d; this node knows version %d", s.V, Version)
	}
	next := New()
	next.term, next.clock, next.revision = s.Term, s.Clock, s.Revision
	for id, l := range s.Leases {
		next.leases[id] = l
	}
	for _, e := range s.Keys {
		next.keys[e.Key] = dcs.KV(e)
	}
	*m = *next
	return nil
}

// Clone copies the machine, so that a snapshot can be written while it moves on.
func (m *Machine) Clone() *Machine {
	next := New()
	next.term, next.clock, next.revision = m.term, m.clock, m.revision
	for id, l := range m.leases {
		next.leases[id] = l
	}
	for key, kv := range m.keys {
		kv.Value = slices.Clone(kv.Value)
		next.keys[key] = kv
	}
	return next
}
