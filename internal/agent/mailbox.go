package agent

import (
	"fmt"
	"sync"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
)

// maxRequests bounds what operators can queue; facts and outcomes have no bound of
// their own, because actions in flight and sensors are few.
const maxRequests = 100

// mailbox collects events for the loop. Of observations only the latest counts, so
// a newer one replaces an older one that waits; everything else keeps its order
// and is never dropped.
type mailbox struct {
	mu       sync.Mutex
	waiting  []events.Event
	requests int
	oldest   events.Instant // when the mailbox was last empty and something came
	wake     chan struct{}  // holds one token while something waits
}

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

// put adds an event. It never blocks.
func (m *mailbox) put(ev events.Event) {
	m.mu.Lock()
	m.stamp()
	m.add(ev)
	m.mu.Unlock()
	m.signal()
}

// request adds an operator's request, unless too many wait already.
func (m *mailbox) request(ev events.Event) error {
	m.mu.Lock()
	if m.requests >= maxRequests {
		m.mu.Unlock()
		return fmt.Errorf("submit %s: %d requests are waiting already", ev.Kind(), maxRequests)
	}
	m.requests++
	m.stamp()
	m.waiting = append(m.waiting, ev)
	m.mu.Unlock()
	m.signal()
	return nil
}

func (m *mailbox) add(ev events.Event) {
	for i, old := range m.waiting {
		if replaces(ev, old) {
			// The newer observation takes the end of the queue: what waited behind
			// the older one happened before it was made.
			m.waiting = append(append(m.waiting[:i:i], m.waiting[i+1:]...), ev)
			return
		}
	}
	m.waiting = append(m.waiting, ev)
}

// replaces reports whether the newer observation makes the older one worthless.
func replaces(newer, older events.Event) bool {
	switch n := newer.(type) {
	case events.PostgresObserved:
		_, ok := older.(events.PostgresObserved)
		return ok
	case events.ClusterObserved:
		o, ok := older.(events.ClusterObserved)
		return ok && n.Read == 0 && o.Read == 0
	default:
		return false
	}
}

// stamp notes the arrival of what ends an empty time.
func (m *mailbox) stamp() {
	if len(m.waiting) == 0 {
		m.oldest = mono.Now()
	}
}

// arrived is when the first of what waits came.
func (m *mailbox) arrived() events.Instant {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.waiting) == 0 {
		return mono.Now()
	}
	return m.oldest
}

func (m *mailbox) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take empties the mailbox.
func (m *mailbox) take() []events.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.waiting
	m.waiting, m.requests = nil, 0
	return out
}
