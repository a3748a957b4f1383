package main

import (
	"context"
	"time"

	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// strays are the PostgreSQL processes that stand in the data directory while the
// keeper guards no server: another one's server, or what outlived a keeper and
// its postmaster that were killed together (safety rule S1).
type strays struct {
	// postmaster has children there; it can be adopted. 0: none.
	postmaster int
	// alone have neither parent nor child there. Each is an orphaned backend, or a
	// postmaster that has forked nothing yet.
	alone []process
	// unseen: the processes could not be listed, so anything may be there.
	unseen error
}

func (s strays) pids() []int {
	var pids []int
	for _, p := range s.alone {
		pids = append(pids, p.pid)
	}
	return pids
}

func (s strays) any() bool { return s.postmaster != 0 || len(s.alone) > 0 || s.unseen != nil }

// findStrays looks for them. It blocks on nothing: see readProcesses.
//
// A server's processes make sessions of their own. One that didn't and has no
// family there is a tool, PostgreSQL in single-user mode, which is the business of
// whoever runs it: it serves nobody, and its own lock keeps servers out.
func findStrays(dir string) strays {
	procs, err := readProcesses()
	if err != nil {
		return strays{unseen: err}
	}
	standing := map[int]bool{}
	for _, p := range procs {
		if p.state != 'Z' && standsIn(p.pid, dir) {
			standing[p.pid] = true
		}
	}
	parents := map[int]bool{}
	for _, p := range procs {
		if standing[p.pid] && standing[p.ppid] {
			parents[p.ppid] = true
		}
	}
	var s strays
	for _, p := range procs {
		switch {
		case !standing[p.pid] || standing[p.ppid]:
		case parents[p.pid]:
			s.postmaster = p.pid
		case p.session == p.pid:
			s.alone = append(s.alone, p)
		}
	}
	return s
}

// lookAround finds strays when no server is in the keeper's charge, and has the
// killer judge them. Called without mu.
func (g *guard) lookAround() strays {
	g.mu.Lock()
	guarding := g.phase != down
	g.mu.Unlock()
	if guarding {
		return strays{}
	}
	s := findStrays(g.dataDir)
	if s.any() {
		g.wakeKiller()
	}
	return s
}

// admit makes a status tell of strays. Called with mu held.
func (g *guard) admit(st *keeper.Status, s strays) {
	if g.phase == down && s.any() {
		st.Alive, st.Foreign = true, s.postmaster
	}
}

// clearStrays begins to clear out orphaned backends, and reports whether it did.
// They are killed, not adopted: no postmaster leads them to an orderly end, and
// nothing but the keeper would ever fence them. A server that somebody else runs is
// left to adoption (S5). Called by the killer.
func (g *guard) clearStrays(ctx context.Context) bool {
	s := g.lookAround()
	if s.unseen != nil {
		g.log.Error("look for processes in the data directory", "err", s.unseen)
	}
	if s.postmaster != 0 || len(s.alone) == 0 {
		return false
	}
	var pids []int
	for _, p := range s.alone {
		// Without a title it is a postmaster that has only begun, or a backend that has
		// just been forked; the next look tells.
		if name, ok := g.titleWithin(ctx, p.pid, time.Second); !ok || titled(name) {
			pids = append(pids, p.pid)
		}
	}
	if len(pids) == 0 {
		return false
	}
	file, err := readPIDFile(g.dataDir)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase != down || g.closed {
		return false
	}
	g.log.Warn("processes of a server without postmaster are being killed", "pids", pids, "pid_file_err", err)
	g.phase, g.orphaned = ending, true
	g.exit = keeper.Exit{PID: file.pid, At: mono.Now(), Code: -1}
	exit := g.exit
	g.emit(keeper.Event{Kind: keeper.PostmasterExited, At: exit.At, Exit: &exit, Note: "found without a postmaster"})
	return true
}

// unproven reports whether something may be alive that an earlier keeper guarded: a
// server that this one started itself was started when nothing was, and an adopted
// one is judged when it gets a grant or a waiver.
func (g *guard) unproven() bool {
	s := g.lookAround()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.phase == down {
		return s.any()
	}
	return g.orphaned || g.pidfd >= 0 && g.armed == nil && g.waived == nil
}

// titleWithin is title with a bound; false when it can't be read in time. The
// killer's end waits for the reading, which lasts as long as the process hangs.
func (g *guard) titleWithin(ctx context.Context, pid int, limit time.Duration) (string, bool) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer := make(chan string, 1)
	g.reads.Go(func() { answer <- title(pid) })
	select {
	case name := <-answer:
		return name, true
	case <-ctx.Done():
		return "", false
	}
}
