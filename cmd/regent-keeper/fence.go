package main

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// fence is one fencing under way: SIGINT at D−B, SIGQUIT at D−B/2 and the
// kill-tree at D−B/4 as long as client backends remain (S2). It isn't cancelled;
// it ends with the server.
type fence struct {
	begun    events.Instant
	deadline events.Instant // D
	budget   time.Duration  // B
	stage    stage
	// urgent: client backends outlived a stage, so nobody is given more time.
	urgent bool
	// last is who did.
	last clients
	// nobody was left at the last look, so the next may take twice its time.
	nobody bool
	// clear: past D−B/4 nobody was left. No session can begin any more, so the
	// watch that follows may take its time to read, on a starved machine.
	clear bool
}

type stage int

const (
	askedFast      stage = iota // SIGINT was sent
	askedImmediate              // SIGQUIT was sent, or there was nobody left to send it for
	watching                    // past D−B/4: no client backend may be seen any more
)

// How a fence that has nothing left to kill watches the server finish its shutdown
// checkpoint and its archiving, which may outlive D.
const (
	watchClose    = 20 * time.Millisecond // until a second after D
	watchWide     = time.Second
	watchPatience = time.Second
)

// settle is how long a process must be seen to count as a client backend: one that
// is on its way out is none. A scan may take scanPatience longer, or a sixteenth of
// the budget.
const (
	settle       = 10 * time.Millisecond
	scanPatience = 25 * time.Millisecond
)

func (f *fence) quitAt() events.Instant { return f.deadline.Add(-f.budget / 2) }
func (f *fence) killAt() events.Instant { return f.deadline.Add(-f.budget / 4) }

// beginFenceIfDue begins fencing when the armed deadline says so, whoever asks
// first: the timer, or a command that came in its place. Called with mu held.
func (g *guard) beginFenceIfDue(now events.Instant) {
	if g.armed == nil || g.fence != nil || now.Before(fenceBegin(*g.armed)) {
		return
	}
	g.beginFence(now, g.armed.Deadline, g.armed.Budget, "the deadline came and was not extended")
}

// beginFence begins fencing. Called with mu held.
func (g *guard) beginFence(now, deadline events.Instant, budget time.Duration, why string) {
	f := &fence{begun: now, deadline: deadline, budget: budget}
	g.fence = f
	late := !now.Before(f.killAt())
	if late {
		// This process was frozen or starved past the graceful stages (S24): it strikes first and
		// tells afterwards.
		f.stage = watching
		g.kill()
	}
	g.log.Warn("fence begun", "pid", g.pid, "why", why, "until_deadline", deadline.Sub(now))
	g.emit(keeper.Event{Kind: keeper.FenceBegun, At: now, Note: why})
	if late {
		g.escalate("kill", "the fence came too late for anything milder")
		return
	}
	g.signal(syscall.SIGINT)
	g.setTimer(f.quitAt())
}

// commandFence begins fencing now, on command; the armed deadline still bounds it.
func (g *guard) commandFence(within time.Duration) error {
	if within <= 0 {
		return refuse("a fence needs a positive time, not %s", within)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := mono.Now()
	g.beginFenceIfDue(now)
	if g.phase == down {
		return nil
	}
	deadline := now.Add(within)
	if g.fence != nil {
		// It only ever gets sooner.
		if deadline.Before(g.fence.deadline) {
			g.fence.deadline, g.fence.budget = deadline, min(g.fence.budget, within)
			g.setTimer(now)
		}
		return nil
	}
	if g.armed != nil && g.armed.Deadline.Before(deadline) {
		deadline = g.armed.Deadline
	}
	g.beginFence(now, deadline, deadline.Sub(now), "commanded")
	return nil
}

// runFence is the fence's goroutine: it wakes with the timer, ends when it is closed.
func (g *guard) runFence() {
	for g.timer.wait() == nil {
		g.fenceStep(mono.Now())
	}
	g.scans.Wait()
}

// fenceStep does what is due and sets the timer for what comes next.
func (g *guard) fenceStep(now events.Instant) {
	g.mu.Lock()
	g.beginFenceIfDue(now)
	f, skip := g.fence, g.fence == nil || g.killing || g.phase != running
	var due stage
	settling, patience := settle, scanPatience
	var last clients
	if !skip {
		last = f.last
		due, patience = f.stage, max(scanPatience, f.budget/16)
		if f.urgent {
			settling = 0
		}
		switch {
		case f.clear:
			patience = watchPatience
		case f.nobody:
			patience *= 2
		}
		switch {
		case due == askedFast && now.Before(f.quitAt()):
			g.setTimer(f.quitAt())
			skip = true
		case due == askedImmediate && now.Before(f.killAt()):
			g.setTimer(f.killAt())
			skip = true
		}
		if !now.Before(f.killAt()) {
			due = watching // a starved keeper skips stages, it doesn't add them up
		}
	}
	g.mu.Unlock()
	if skip {
		return // the killer ends what is ending, and it needs no timer
	}
	// If one of those that outlived the stage before is there, that is enough to know.
	remain := last.outlived()
	if !remain.any() {
		remain = g.clientsRemain(f.begun, settling, settling+patience)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fence != f || g.phase != running {
		return
	}
	g.fenceVerdict(f, due, remain)
}

// fenceVerdict escalates as far as the clients that remain ask for. Called with mu
// held.
func (g *guard) fenceVerdict(f *fence, due stage, remain clients) {
	if remain.any() {
		f.urgent, f.last = true, remain
		if due == askedFast {
			g.escalate("immediate", remain.String())
			g.signal(syscall.SIGQUIT)
		} else {
			g.kill()
			// The killer makes its own list; those that are known need not wait.
			for pid := range remain.seen {
				_ = unix.Kill(pid, unix.SIGKILL) // the killer reports what can't be killed
			}
			g.escalate("kill", remain.String())
			return
		}
	}
	now := mono.Now()
	f.nobody, f.clear = true, due == watching
	g.dog.noClients()
	switch {
	case due == askedFast:
		f.stage = askedImmediate
		g.setTimer(f.killAt())
	case now.Before(f.deadline.Add(time.Second)):
		f.stage = watching
		g.setTimer(now.Add(watchClose))
	default:
		f.stage = watching
		g.setTimer(now.Add(watchWide))
	}
}

// escalate reports the next stage. Called with mu held.
func (g *guard) escalate(to, why string) {
	g.log.Warn("fence escalated", "pid", g.pid, "to", to, "why", why)
	g.emit(keeper.Event{Kind: keeper.FenceEscalated, At: mono.Now(), Note: to + ": " + why})
}
