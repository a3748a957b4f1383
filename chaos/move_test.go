package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// TestAMoveBetweenStoresUnderAWriter moves a real cluster from the embedded store to etcd, to
// Consul and back while it is written to: no second primary, no lost row, and no longer without
// an acknowledged insert than a busy machine explains. On the way to Consul the primary's agent
// is killed in the middle; on the way back a member is away, and comes with its old file.
func TestAMoveBetweenStoresUnderAWriter(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute or two: real clusters are left out of -short")
	}
	etcd := storeServer(t, sandbox.Etcd3Store, etcdtest.Binary(t, etcdtest.V34))
	consul := storeServer(t, sandbox.ConsulStore, consultest.Binary(t))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	o := options(t)
	o.TTL, o.LoopWait, o.RetryTimeout, o.RestartAfter = 5*time.Second, time.Second, time.Second, 100*time.Millisecond
	c, err := sandbox.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, n := range c.Nodes() {
			if t.Failed() {
				t.Logf("log of %s:\n%s", n.Name(), n.Tail(80))
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AwaitStreaming(ctx); err != nil {
		t.Fatal(err)
	}
	a := NewArena(c)
	regent := pgtest.Binary(t, "regent")
	raft := func(n *sandbox.Node) string { return n.RaftSection() }
	at := func(s *sandbox.StoreServer) func(*sandbox.Node) string {
		return func(*sandbox.Node) string { return s.Section() }
	}
	legs := []leg{
		{"raft to etcd3", raft, at(etcd), false, false},
		{"etcd3 to consul, the agent of the primary killed", at(etcd), at(consul), true, false},
		{"consul to raft", at(consul), raft, false, true},
	}
	err = a.Run(ctx, func(ctx context.Context) error {
		for _, l := range legs {
			trial, err := a.Try(ctx, Fault{Name: l.name, MaxOutage: 2 * time.Second, Strike: l.move(t, regent)})
			if err != nil {
				return err
			}
			t.Logf("%s: %.1f s, longest time without an insert %s, lost %d", l.name, trial.Whole.Seconds(), trial.Verdict.Outage.Length(), len(trial.Verdict.Lost))
			if !trial.Verdict.OK() && !trial.Verdict.Inconclusive() {
				t.Errorf("%s: %v", l.name, trial.Verdict.Violations)
			}
			if trial.FailedOver() {
				t.Errorf("%s: the leadership went from %s to %s", l.name, trial.Strike.Primary, trial.Primary)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func storeServer(t *testing.T, kind sandbox.StoreKind, program string) *sandbox.StoreServer {
	t.Helper()
	s, err := sandbox.StartStore(t.Context(), kind, program, filepath.Join(t.TempDir(), string(kind)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// leg is a move from one store to another.
type leg struct {
	name     string
	from, to func(*sandbox.Node) string
	kill     bool // the agent of the primary
	late     bool // a replica
}

func (l leg) move(t *testing.T, regent string) func(context.Context, *Arena, *sandbox.Node, *Strike) error {
	return func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) (failed error) {
		s.Node = primary.Name()
		for _, n := range a.Cluster.Nodes() {
			if err := n.NameStores(l.from(n), l.to(n)); err != nil {
				return err
			}
		}
		file := primary.ConfigFile()
		if out, err := exec.CommandContext(ctx, regent, "reload", "-c", file, "demo", "--force").CombinedOutput(); err != nil {
			return fmt.Errorf("reload: %w: %s", err, out)
		}
		if l.late {
			late, back := awayFrom(a, primary)
			if err := late(ctx); err != nil {
				return err
			}
			defer func() { failed = errors.Join(failed, back(ctx)) }()
		}
		move := func(wait string) (string, error) {
			out, err := exec.CommandContext(ctx, regent, "dcs", "move", "-c", file, "--force", "--wait", wait, "demo").CombinedOutput()
			return string(out), err
		}
		// The reload is obeyed after it was answered: until then the members say what they lack.
		out, err := move("0s")
		for ; err != nil && strings.Contains(out, "nothing was changed"); out, err = move("0s") {
			if !pause(ctx, 100*time.Millisecond) {
				return fmt.Errorf("%w: %s", context.Cause(ctx), out)
			}
		}
		if l.kill {
			if err := primary.KillAgent(); err != nil {
				return err
			}
		}
		began := time.Now()
		out, err = move("60s")
		t.Logf("%s: the command took %.1f s:\n%s", l.name, time.Since(began).Seconds(), out)
		if err != nil {
			return fmt.Errorf("move: %w: %s", err, out)
		}
		for _, n := range a.Cluster.Nodes() { // as an operator is told to
			if l.late && n == replica(a, primary) {
				continue
			}
			if err := n.NameStores(l.to(n), ""); err != nil {
				return err
			}
		}
		return nil
	}
}

func replica(a *Arena, primary *sandbox.Node) *sandbox.Node {
	nodes := a.Cluster.Nodes()
	if last := nodes[len(nodes)-1]; last != primary {
		return last
	}
	return nodes[0]
}

// awayFrom takes a replica away, cleanly, and brings it back: the note in the store that was
// left leads it on.
func awayFrom(a *Arena, primary *sandbox.Node) (away, back func(context.Context) error) {
	n := replica(a, primary)
	away = func(ctx context.Context) error { return n.StopAgent(ctx) }
	back = func(ctx context.Context) error {
		if err := n.PowerOn(); err != nil {
			return err
		}
		for {
			log, err := os.ReadFile(n.LogFile())
			if err != nil {
				return err
			}
			// Once for each move: this one is the third.
			if strings.Count(string(log), "the agent goes on there") >= 3 {
				return nil
			}
			if !pause(ctx, 50*time.Millisecond) {
				return fmt.Errorf("%s was not led on: %w", n.Name(), context.Cause(ctx))
			}
		}
	}
	return away, back
}
