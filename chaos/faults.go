package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
	"github.com/pgregent/regent/internal/sandbox/workload"
)

// Fault is something that can be done to a cluster.
type Fault struct {
	Name string
	// Prepare brings the cluster into the state that the fault needs, and returns its
	// primary. It may be nil.
	Prepare func(ctx context.Context, a *Arena, primary *sandbox.Node) (*sandbox.Node, error)
	// Strike does it, fills in what it did, and returns at once or when it was done.
	Strike func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error
	// MayLose: asynchronous replication may lose rows whatever is done. Faults for which it
	// depends on where they hit say so in the Strike.
	MayLose bool
	// MaxOutage judges the outage; zero: it is only measured.
	MaxOutage time.Duration
}

// Strike is a fault as it happened.
type Strike struct {
	Fault string
	// Primary was the primary before, Node is what was hit.
	Primary, Node string
	// MayLose: see Fault.
	MayLose bool
	// Down is for how long the hit was kept from coming back.
	Down time.Duration
	// Watch is for how long consequences are waited for at least.
	Watch time.Duration
	// Freezes are the times in which a whole node stood still, Stale is the client that stayed
	// with it, if any.
	Freezes []history.Freeze
	Stale   *workload.Stale

	from time.Duration // when it began
}

// String is for reports.
func (s Strike) String() string {
	role := "replica"
	if s.Node == s.Primary {
		role = "primary"
	}
	text := fmt.Sprintf("%s at %s (%s)", s.Fault, s.Node, role)
	if s.Down > 0 {
		text += fmt.Sprintf(", down for %s", s.Down.Round(10*time.Millisecond))
	}
	return text
}

// hit notes where a fault struck. Every consequence that waits for the lease shows within
// its length and a second.
func (s *Strike) hit(a *Arena, n *sandbox.Node) {
	s.Node = n.Name()
	s.Watch = max(s.Watch, a.Cluster.TTL()+time.Second)
}

// target picks the node to hit.
type target func(ctx context.Context, a *Arena, primary *sandbox.Node) (*sandbox.Node, error)

func atPrimary(_ context.Context, _ *Arena, primary *sandbox.Node) (*sandbox.Node, error) {
	return primary, nil
}

func atRaftLeader(ctx context.Context, a *Arena, _ *sandbox.Node) (*sandbox.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		// While raft elects, nobody leads it.
		n, err := a.Cluster.RaftLeader(ctx)
		if err == nil || !pause(ctx, 50*time.Millisecond) {
			return n, err
		}
	}
}

// atRandom hits the primary half of the time: that is where it hurts.
func atRandom(rng *rand.Rand) target {
	return func(_ context.Context, a *Arena, primary *sandbox.Node) (*sandbox.Node, error) {
		nodes := a.Cluster.Nodes()
		if rng.IntN(2) == 0 {
			return primary, nil
		}
		return nodes[rng.IntN(len(nodes))], nil
	}
}

// killAgent ends an agent by SIGKILL; its supervisor starts it again.
func killAgent(name string, where target) Fault {
	return Fault{Name: name, Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		n, err := where(ctx, a, primary)
		if err != nil {
			return err
		}
		s.hit(a, n)
		return n.KillAgent()
	}}
}

// killAgentForGood ends an agent by SIGKILL and keeps it down until the lease is long gone,
// so that the keeper has to stop the server and another member takes over.
func killAgentForGood(where target) Fault {
	return Fault{Name: "SIGKILL of the agent", Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		n, err := where(ctx, a, primary)
		if err != nil {
			return err
		}
		s.hit(a, n)
		s.Down = a.Cluster.TTL() + 2*time.Second
		n.PowerOff()
		if err := n.KillAgent(); err != nil {
			return err
		}
		return powerOnAfter(ctx, n, s.Down)
	}}
}

func killKeeper(where target) Fault {
	return Fault{Name: "SIGKILL of the keeper", Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		n, err := where(ctx, a, primary)
		if err != nil {
			return err
		}
		s.hit(a, n)
		return n.KillKeeper()
	}}
}

func killPostmaster(where target) Fault {
	return Fault{Name: "SIGKILL of the postmaster", Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		n, err := where(ctx, a, primary)
		if err != nil {
			return err
		}
		s.hit(a, n)
		return n.KillPostmaster()
	}}
}

// killNode is a power cut of a whole node, which comes back after down.
func killNode(where target, down func(a *Arena) time.Duration) Fault {
	return Fault{Name: "SIGKILL of the node", Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		n, err := where(ctx, a, primary)
		if err != nil {
			return err
		}
		s.hit(a, n)
		s.Down = down(a)
		s.MayLose = n == primary
		if err := n.KillNode(); err != nil {
			return err
		}
		return powerOnAfter(ctx, n, s.Down)
	}}
}

// stopAgent is an operator's clean stop, and a start after down.
func stopAgent(where target, down func(a *Arena) time.Duration) Fault {
	return Fault{Name: "clean stop of the agent", Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		n, err := where(ctx, a, primary)
		if err != nil {
			return err
		}
		s.hit(a, n)
		s.Down = down(a)
		limit, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := n.StopAgent(limit); err != nil {
			return err
		}
		return powerOnAfter(ctx, n, s.Down)
	}}
}

// switchover hands the leadership to the first other member.
func switchover() Fault {
	return Fault{Name: "switchover", Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		s.hit(a, primary)
		s.Watch = 2 * time.Second
		limit, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		next, err := a.successor(limit, primary)
		if err == nil {
			_, err = primary.Switchover(limit, primary.Name(), next.Name())
		}
		return err
	}}
}

// killNewPrimary hands the leadership over and cuts the power of whoever got it, before anybody
// else need have heard of its timeline.
func killNewPrimary(down func(a *Arena) time.Duration) Fault {
	return Fault{Name: "SIGKILL of the node right after a switchover", Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		limit, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		n, err := a.successor(limit, primary)
		if err != nil {
			return err
		}
		if _, err := primary.Switchover(limit, primary.Name(), n.Name()); err != nil {
			return err
		}
		s.hit(a, n)
		s.Primary, s.Down, s.MayLose = n.Name(), down(a), true
		s.Watch += s.Down
		if err := n.KillNode(); err != nil {
			return err
		}
		return powerOnAfter(ctx, n, s.Down)
	}}
}

// successor is a member that the leadership may be handed to: any other one, and in
// synchronous mode the synchronous standby.
func (a *Arena) successor(ctx context.Context, primary *sandbox.Node) (*sandbox.Node, error) {
	if a.Cluster.Synchronous() {
		return a.Cluster.AwaitSyncStandby(ctx)
	}
	for _, n := range a.Cluster.Nodes() {
		if n != primary {
			return n, nil
		}
	}
	return primary, nil
}

// powerOnAfter waits and switches the node on again.
func powerOnAfter(ctx context.Context, n *sandbox.Node, d time.Duration) error {
	if !pause(ctx, d) {
		return fmt.Errorf("wait to switch %s on: %w", n.Name(), context.Cause(ctx))
	}
	return n.PowerOn()
}

// pastTheLease keeps a node down until another one must have taken over.
func pastTheLease(a *Arena) time.Duration { return a.Cluster.TTL() + 2*time.Second }

// togetherWithRaftLeader moves the leadership to the raft leader's node, and returns that node
// while it is both: the store moves raft away from the holder's node only some seconds later
// (safety rule S18), so the strike has to follow at once.
func togetherWithRaftLeader(ctx context.Context, a *Arena, primary *sandbox.Node) (*sandbox.Node, error) {
	const tries = 8
	for range tries {
		leader, err := atRaftLeader(ctx, a, primary)
		if err != nil {
			return nil, err
		}
		if leader != primary {
			if _, err := primary.Switchover(ctx, primary.Name(), leader.Name()); err != nil {
				return nil, err
			}
		}
		now, err := a.Cluster.AwaitPrimary(ctx)
		if err != nil {
			return nil, err
		}
		if leader, err = atRaftLeader(ctx, a, now); err != nil {
			return nil, err
		}
		if leader == now {
			return now, nil
		}
		if primary, err = a.Settle(ctx); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("bring primary and raft leader together: not in %d tries", tries)
}
