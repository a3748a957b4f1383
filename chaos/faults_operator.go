package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// orderTimeout bounds what an operator asks for.
const orderTimeout = 30 * time.Second

// switchoverTo hands the leadership to any other member.
func switchoverTo(rng *rand.Rand) Fault {
	f := switchover()
	f.Strike = func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		var others []*sandbox.Node
		for _, n := range a.Cluster.Nodes() {
			if n != primary {
				others = append(others, n)
			}
		}
		s.hit(a, primary)
		s.Watch = 2 * time.Second
		limit, cancel := context.WithTimeout(ctx, orderTimeout)
		defer cancel()
		next := others[rng.IntN(len(others))]
		if a.Cluster.Synchronous() {
			var err error
			if next, err = a.Cluster.AwaitSyncStandby(limit); err != nil {
				return err
			}
		}
		_, err := primary.Switchover(limit, primary.Name(), next.Name())
		return err
	}
	return f
}

// restartPostgres restarts a member's PostgreSQL through its agent.
func restartPostgres(where target) Fault {
	return Fault{Name: "restart of PostgreSQL", Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		n, err := where(ctx, a, primary)
		if err != nil {
			return err
		}
		s.hit(a, n)
		s.Watch = 2 * time.Second
		limit, cancel := context.WithTimeout(ctx, orderTimeout)
		defer cancel()
		return n.RestartPostgres(limit)
	}}
}

// changeConfig changes a parameter in /config at any member; all must run with it then.
func changeConfig(rng *rand.Rand) Fault {
	return Fault{Name: "change of /config", Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		nodes := a.Cluster.Nodes()
		n := nodes[rng.IntN(len(nodes))]
		// PostgreSQL shows 1024 kB as 1 MB: an odd number comes back as it was sent.
		want := fmt.Sprintf("%dkB", 2*rng.IntN(4096)+4097)
		s.hit(a, n)
		s.Watch = time.Second
		limit, cancel := context.WithTimeout(ctx, orderTimeout)
		defer cancel()
		if err := n.PatchConfig(limit, fmt.Sprintf(`{"postgresql":{"parameters":{"work_mem":%q}}}`, want)); err != nil {
			return err
		}
		for _, n := range nodes {
			if err := n.AwaitSetting(limit, "work_mem", want); err != nil {
				return err
			}
		}
		return nil
	}}
}

// pauseAndKill puts the cluster into pause, kills an agent in it, and resumes when the lease
// would be long gone: in pause nobody fails over, and what is up stays up.
func pauseAndKill(where target) Fault {
	return Fault{Name: "SIGKILL of the agent in pause", Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		n, err := where(ctx, a, primary)
		if err != nil {
			return err
		}
		s.hit(a, n)
		limit, cancel := context.WithTimeout(ctx, orderTimeout)
		defer cancel()
		if err := setPause(limit, a, true); err != nil {
			return err
		}
		n.PowerOff()
		killed := n.KillAgent()
		if killed == nil && !pause(ctx, a.Cluster.TTL()+time.Second) {
			killed = context.Cause(ctx)
		}
		if now, err := a.Cluster.Primary(limit); killed == nil && (err != nil || now != primary) {
			killed = fmt.Errorf("in pause %s must stay primary, and the agents decided otherwise", primary.Name())
		}
		s.Watch = a.now() - s.from + a.Cluster.TTL() + time.Second
		if err := n.PowerOn(); err != nil {
			return err
		}
		if killed != nil {
			return killed
		}
		return setPause(limit, a, false)
	}}
}

// setPause puts the cluster into pause, or out of it, and returns when every running agent knows.
func setPause(ctx context.Context, a *Arena, on bool) error {
	var err error
	asked := false
	for _, n := range a.Cluster.Nodes() {
		if _, running := n.AgentPID(); !running || asked {
			continue
		}
		patch := `{"pause":null}`
		if on {
			patch = `{"pause":true}`
		}
		if err = n.PatchConfig(ctx, patch); err == nil {
			asked = true
		}
	}
	if !asked {
		return fmt.Errorf("set pause to %v: %w", on, err)
	}
	for _, n := range a.Cluster.Nodes() {
		if err := n.AwaitPause(ctx, on); err != nil {
			return err
		}
	}
	return nil
}
