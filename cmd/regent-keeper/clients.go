package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/pgregent/regent/events"
)

// clients is the answer to "which client backends remain?".
type clients struct {
	seen    map[int]events.Instant // their starts by pid
	unknown string                 // why it could not be told; counts as "some remain"
}

func (c clients) any() bool { return len(c.seen) > 0 || c.unknown != "" }

// outlived picks those that are alive still. It reads a line per process and no
// title, so it is quick on a starved machine.
func (c clients) outlived() clients {
	left := clients{seen: map[int]events.Instant{}}
	for pid, started := range c.seen {
		if p, ok := readProcess(pid); ok && p.state != 'Z' && p.started == started {
			left.seen[pid] = started
		}
	}
	return left
}

func (c clients) String() string {
	if c.unknown != "" {
		return c.unknown
	}
	return fmt.Sprintf("client backends remain: %v", slices.Sorted(maps.Keys(c.seen)))
}

// clientsRemain looks which client backends are there and still there after
// settling. It answers within limit, whatever hangs: reading a title can block for
// ever on a process that hangs with its memory locked, and then the answer is that
// clients remain. begun is when the fence asked the postmaster to stop.
func (g *guard) clientsRemain(begun events.Instant, settling, limit time.Duration) clients {
	answer := make(chan clients, 1)
	g.scans.Add(1)
	go func() {
		defer g.scans.Done()
		answer <- g.settledClients(begun, settling)
	}()
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case c := <-answer:
		return c
	case <-late.C:
		return clients{unknown: "the processes can't be read in time"}
	}
}

// settledClients looks again until settling has passed or nobody is left.
func (g *guard) settledClients(begun events.Instant, settling time.Duration) clients {
	const again = 2 * time.Millisecond
	seen, err := g.clientBackends(begun)
	if err != nil {
		return clients{unknown: err.Error()}
	}
	tick := time.NewTicker(again)
	defer tick.Stop()
	for began := time.Now(); len(seen) > 0 && time.Since(began) < settling; {
		<-tick.C
		now, err := g.clientBackends(begun)
		if err != nil {
			return clients{unknown: err.Error()}
		}
		for pid, started := range seen {
			if now[pid] != started {
				delete(seen, pid)
			}
		}
	}
	return clients{seen: seen}
}

// turnedAwayAfter is how long after the postmaster was asked to stop a process must
// have been forked to be surely one that only turns a connection away.
const turnedAwayAfter = 20 * time.Millisecond

// clientBackends lists the processes that may acknowledge a client's commit, with
// their start times.
func (g *guard) clientBackends(begun events.Instant) (map[int]events.Instant, error) {
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
		name := title(p.pid)
		// A postmaster that shuts down forks one process per connection attempt,
		// only to say so. It ends without ever getting a title; a session gets its
		// title before it is authenticated. Clients that keep knocking must not
		// turn every shutdown checkpoint into a crash.
		if !titled(name) && !p.started.Before(begun.Add(turnedAwayAfter)) {
			continue
		}
		if !servesNoClient(name) {
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
