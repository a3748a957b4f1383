package interop

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// A Regent neither takes over nor starts in a cluster whose Patronis keep a promise that it can't:
// it stands aside while that is in force, and an agent that comes then says why it doesn't, and
// touches nothing.
func TestPromiseThatOnlyPatroniKeeps(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("real clusters are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c, patroni, regent := duo(t, ctx)
	set := func(value string, wanted func(map[string]string) error) {
		t.Helper()
		_, err := c.Patronictl(ctx, patroni, edit("-s", "slots"+value)...)
		if err == nil {
			_, err = c.AwaitKeys(ctx, wanted)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	set(".keep.type=physical", has("members/n2", `"nofailover":true`, `"nosync":true`))
	out, err := c.Patronictl(ctx, patroni, "switchover", "demo", "--leader", "n1", "--candidate", "n2", "--force")
	if leader, _ := c.AwaitPrimary(ctx); leader != patroni {
		t.Errorf("%s leads after a switchover to a member that stands aside: %v %s", leader.Name(), err, out)
	}
	set("=null", hasNot("members/n2", "nofailover"))

	if _, err := c.Patronictl(ctx, patroni, "pause", "demo", "--wait"); err != nil {
		t.Fatal(err)
	}
	pid, _ := patroni.PostmasterPID()
	if err := patroni.StopAgent(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Patronictl(ctx, regent, edit("-s", "slots.keep.type=physical")...); err != nil {
		t.Fatal(err)
	}
	patroni.RunAs(r)
	if err := patroni.PowerOn(); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(patroni.Tail(1000), "slots is not implemented") {
		if !wait(ctx) {
			t.Fatal("the agent doesn't say why it doesn't start")
		}
	}
	if now, ok := patroni.PostmasterPID(); !ok || now != pid {
		t.Error(fmt.Errorf("postmaster %d became %d by an agent that doesn't start", pid, now))
	}
}

// duo is a cluster on etcd of a Patroni, which leads, and a Regent, which streams from it.
func duo(t *testing.T, ctx context.Context) (c *Cluster, patroni, regent *sandbox.Node) {
	t.Helper()
	c = Start(t, Options{Store: "etcd3", Members: []sandbox.Program{p, r}})
	patroni, regent = c.Nodes()[0], c.Nodes()[1]
	if err := patroni.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AwaitPrimary(ctx); err != nil {
		t.Fatal(err)
	}
	if err := regent.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AwaitStreaming(ctx); err != nil {
		t.Fatal(err)
	}
	return c, patroni, regent
}
