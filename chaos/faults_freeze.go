package chaos

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
	"github.com/pgregent/regent/internal/sandbox/workload"
)

// freeze lets a part of a node stand still for some time, and go on as if nothing had been.
func freeze(part sandbox.Part, where target, length func(a *Arena) time.Duration) Fault {
	return Fault{Name: "freeze of the " + string(part), Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		n, err := where(ctx, a, primary)
		if err != nil {
			return err
		}
		s.hit(a, n)
		s.Down = length(a)
		s.Watch += s.Down
		frozen, err := n.Freeze(part)
		if err != nil {
			return err
		}
		defer frozen.Thaw()
		// A server whose postmaster doesn't answer can only be stopped the hard way, and then
		// nothing waits until the replicas have all of its WAL.
		s.MayLose = n == primary && part == sandbox.Postmaster
		if !pause(ctx, s.Down) {
			return fmt.Errorf("wait to thaw the %s of %s: %w", part, n.Name(), context.Cause(ctx))
		}
		return nil
	}}
}

// pressAfterThaw is for how long the stale client presses a thawed primary at most. A primary
// that was replaced refuses it within the first hundredths of a second.
const pressAfterThaw = 500 * time.Millisecond

// freezeNode suspends a whole node, as a hypervisor or a laptop's lid does. A client that was
// connected when it fell asleep is still there when it wakes up, and writes on at once: that
// measures for how long a primary that was replaced in its sleep takes writes.
func freezeNode(where target, length func(a *Arena) time.Duration) Fault {
	return Fault{Name: "freeze of the node", Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		n, err := where(ctx, a, primary)
		if err != nil {
			return err
		}
		var stale *workload.Stale
		if n == primary {
			if stale, err = workload.OpenStale(ctx, a.Origin, n.Name(), n.DSN()); err != nil {
				return err
			}
			defer stale.Close()
			s.Stale = stale
		}
		s.hit(a, n)
		s.Down, s.MayLose = length(a), n == primary
		s.Watch += s.Down
		return sleepAndPress(ctx, a, n, s)
	}}
}

// sleepAndPress freezes the node for s.Down and thaws it under the pressure of s.Stale.
func sleepAndPress(ctx context.Context, a *Arena, n *sandbox.Node, s *Strike) error {
	frozen, err := n.Freeze(sandbox.Whole)
	if err != nil {
		return err
	}
	asleep := history.Freeze{Node: n.Name(), From: a.now()}
	var press sync.WaitGroup
	defer press.Wait()
	limit, cancel := context.WithTimeout(ctx, s.Down+pressAfterThaw)
	defer cancel()
	if s.Stale != nil {
		press.Go(func() { s.Stale.Press(limit) })
	}
	slept := pause(ctx, s.Down)
	asleep.To = a.now()
	frozen.Thaw()
	s.Freezes = append(s.Freezes, asleep)
	if !slept {
		return fmt.Errorf("wait to thaw %s: %w", n.Name(), context.Cause(ctx))
	}
	return nil
}
