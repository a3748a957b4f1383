package metrics

import (
	"cmp"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
)

// Meter holds one agent's counters. It is safe for concurrent use and never blocks for
// longer than a page takes to print.
type Meter struct {
	version string
	journal *journal.Journal

	mu        sync.Mutex // guards all below
	decisions *distribution
	trips     map[trip]*distribution
	outage    outage
}

// New returns a meter of an agent of that version, which writes that journal; nil
// leaves the journal's figures out.
func New(version string, j *journal.Journal) *Meter {
	return &Meter{version: version, journal: j, decisions: newDistribution(decisionBounds()), trips: map[trip]*distribution{}}
}

func decisionBounds() []time.Duration {
	return []time.Duration{
		50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond,
		2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 250 * time.Millisecond, time.Second,
	}
}

func tripBounds() []time.Duration {
	return []time.Duration{
		500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
		25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, time.Second, 5 * time.Second,
	}
}

// Stepped takes in what the loop came to, and how long after the fact had arrived.
func (m *Meter) Stepped(s *fsm.State, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.decisions.add(took)
	m.outage.see(s)
}

func (m *Meter) tripped(t trip, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.trips[t]
	if d == nil {
		d = newDistribution(tripBounds())
		m.trips[t] = d
	}
	d.add(took)
}

// Write adds Regent's own metrics to a page, for an agent in state s at now.
func (m *Meter) Write(p *Page, s *fsm.State, now events.Instant) {
	p.Family(Gauge, "regent_info", "Version of the agent, and the phase that its machine is in.")
	p.Sample("regent_info", "1", Label{"version", m.version}, Label{"phase", string(s.Phase)})
	var left time.Duration
	if s.Leads(now) {
		left = s.BeliefEnd().Sub(now)
	}
	p.Add(Gauge, "regent_belief_left_seconds",
		"How much longer this member may lead without another renewal of its lease, 0 if it doesn't lead.", Seconds(left))
	m.writeJournal(p, s)
	p.Add(Counter, "regent_defects_total", "Transitions that the machine refused; anything but 0 is a defect worth a report.", Whole(uint64(s.Defects)))
	p.Add(Gauge, "regent_goroutines", "Goroutines of the agent.", Whole(uint64(runtime.NumGoroutine())))

	m.mu.Lock()
	defer m.mu.Unlock()
	p.Add(Gauge, "regent_last_failover_outage_seconds",
		"Time without a primary at its last change, as this member saw it, 0 if it has seen none since it started.", Seconds(m.outage.last))
	p.Add(Counter, "regent_primary_changes_total", "Changes of primary that this member saw since it started.", Whole(m.outage.changes))
	const decisions = "regent_decision_seconds"
	p.Family(histogram, decisions, "Time from a fact's arrival until it was journaled, decided upon and acted upon.")
	m.decisions.write(p, decisions)
	m.writeTrips(p)
}

func (m *Meter) writeJournal(p *Page, s *fsm.State) {
	p.Add(Gauge, "regent_journal_degraded", "Value is 1 if the journal can't be written, 0 otherwise.", Flag(s.Journal != ""))
	if m.journal == nil {
		return
	}
	st := m.journal.Stats()
	p.Add(Gauge, "regent_journal_bytes", "Size of the journal on disk.", Whole(uint64(max(st.Bytes, 0))))
	p.Add(Counter, "regent_journal_records_total", "Number of the journal's last record.", Whole(st.Records))
	p.Add(Gauge, "regent_journal_epoch", "Epoch of the journal; one more after each gap in it.", Whole(st.Epoch))
}

func (m *Meter) writeTrips(p *Page) {
	if len(m.trips) == 0 {
		return
	}
	const name = "regent_store_round_trip_seconds"
	p.Family(histogram, name, "Calls to the store by operation and by how they ended (done, refused, unavailable, unknown).")
	for _, t := range slices.SortedFunc(maps.Keys(m.trips), func(a, b trip) int {
		return cmp.Or(cmp.Compare(a.op, b.op), cmp.Compare(a.class, b.class))
	}) {
		m.trips[t].write(p, name, Label{"op", t.op}, Label{"class", string(t.class)})
	}
}
