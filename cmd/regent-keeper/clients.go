package main

import (
	"fmt"
	"os"
	"time"

	"github.com/pgregent/regent/events"
)

// clients is the answer to "which client backends remain?".
type clients struct {
	pids    []int
	unknown string // why it could not be told; counts as "some remain"
}

func (c clients) any() bool { return len(c.pids) > 0 || c.unknown != "" }

func (c clients) String() string {
	if c.unknown != "" {
		return c.unknown
	}
	return fmt.Sprintf("client backends remain: %v", c.pids)
}

// scanPatience is how much longer than its settling time a scan may take.
const scanPatience = 25 * time.Millisecond

// clientsRemain looks which client backends are there and still there after
// settling. It answers within that time plus scanPatience, whatever hangs: reading
// a title can block for ever on a process that hangs with its memory locked, and
// then the answer is that clients remain.
func (g *guard) clientsRemain(settling time.Duration) clients {
	answer := make(chan clients, 1)
	g.scans.Add(1)
	go func() {
		defer g.scans.Done()
		answer <- g.settledClients(settling)
	}()
	limit := time.NewTimer(settling + scanPatience)
	defer limit.Stop()
	select {
	case c := <-answer:
		return c
	case <-limit.C:
		return clients{unknown: "the processes can't be read in time"}
	}
}

// settledClients looks again until settling has passed or nobody is left.
func (g *guard) settledClients(settling time.Duration) clients {
	const again = 2 * time.Millisecond
	seen, err := g.clientBackends()
	if err != nil {
		return clients{unknown: err.Error()}
	}
	tick := time.NewTicker(again)
	defer tick.Stop()
	for began := time.Now(); len(seen) > 0 && time.Since(began) < settling; {
		<-tick.C
		now, err := g.clientBackends()
		if err != nil {
			return clients{unknown: err.Error()}
		}
		for pid, started := range seen {
			if now[pid] != started {
				delete(seen, pid)
			}
		}
	}
	var c clients
	for pid := range seen {
		c.pids = append(c.pids, pid)
	}
	return c
}

// clientBackends lists the processes that may acknowledge a client's commit, with
// their start times.
func (g *guard) clientBackends() (map[int]events.Instant, error) {
	members, err := g.members()
	if err != nil {
		return nil, err
	}
	found := map[int]events.Instant{}
	for _, p := range members {
		// Another program (an archive command, COPY TO PROGRAM) commits nothing. A
		// process without a program is past its life in user space, or is hidden
		// from us; only the former vanishes while settling.
		if exe := link(p.pid, "exe"); exe != "" && !isPostgres(exe) {
			continue
		}
		if !servesNoClient(title(p.pid)) {
			found[p.pid] = p.started
		}
	}
	return found, nil
}

// members lists the living processes of the server but the postmaster: its
// descendants; of an own server everything below the keeper, which as subreaper
// inherits the postmaster's orphans; and whatever PostgreSQL process stands in the
// data directory (S1).
func (g *guard) members() ([]process, error) {
	procs, err := readProcesses()
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	postmaster := g.pid
	g.mu.Unlock()
	roots := []int{os.Getpid()}
	if postmaster != 0 {
		roots = append(roots, postmaster)
	}
	picked := map[int]bool{}
	var members []process
	pick := func(p process) {
		if p.state != 'Z' && p.pid != postmaster && !picked[p.pid] {
			picked[p.pid] = true
			members = append(members, p)
		}
	}
	for _, p := range descendants(procs, roots...) {
		pick(p)
	}
	for _, p := range procs {
		if !picked[p.pid] && p.state != 'Z' && standsIn(p.pid, g.dataDir) {
			pick(p)
		}
	}
	return members, nil
}
