package interop

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// In failsafe mode each program vouches for the other: a Patroni goes on as the primary without etcd
// because a Regent accepts, and the other way round.
func TestFailsafeModeInMixedClusters(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("real clusters are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	c, patroni, regent := duo(t, ctx)
	if _, err := c.Patronictl(ctx, patroni, edit("-s", "failsafe_mode=true")...); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AwaitKeys(ctx, has("failsafe", `"n1"`, `"n2"`)); err != nil {
		t.Fatal(err)
	}
	c.goesOnWithoutEtcd(ctx, patroni, regent)
	if _, err := c.Patronictl(ctx, patroni, "switchover", "demo", "--leader", "n1", "--candidate", "n2", "--force"); err != nil {
		t.Fatal(err)
	}
	for now, err := c.AwaitStreaming(ctx); now != regent; now, err = c.AwaitStreaming(ctx) {
		if err != nil || !wait(ctx) {
			t.Fatal(errors.Join(err, ctx.Err()))
		}
	}
	c.goesOnWithoutEtcd(ctx, regent, patroni)
}

// goesOnWithoutEtcd freezes etcd for longer than a ttl: the primary stays one, the other says that
// failsafe mode is at work, and all is well afterwards.
func (c *Cluster) goesOnWithoutEtcd(ctx context.Context, primary, other *sandbox.Node) {
	c.tb.Helper()
	etcd := c.Store.(etcdStore).server
	pid, _ := primary.PostmasterPID()
	from := time.Now()
	if err := etcd.Signal(0, syscall.SIGSTOP); err != nil {
		c.tb.Fatal(err)
	}
	active := false
	for time.Since(from) < c.TTL()+c.TTL()/2 && wait(ctx) {
		samples, err := other.Metrics(ctx)
		for _, s := range samples {
			active = active || err == nil && s.Name == "patroni_failsafe_mode_is_active" && s.Value == 1
		}
	}
	if now, runs := primary.PostmasterPID(); !runs || now != pid {
		c.tb.Errorf("%s (%s) was stopped while etcd was away", primary.Name(), primary.Program())
	}
	if !active {
		c.tb.Errorf("%s (%s) never said that failsafe mode is at work", other.Name(), other.Program())
	}
	if err := etcd.Signal(0, syscall.SIGCONT); err != nil {
		c.tb.Fatal(err)
	}
	_, err := c.AwaitKeys(ctx, has("leader", primary.Name()))
	now, err2 := c.AwaitStreaming(ctx)
	if err = errors.Join(err, err2); err != nil {
		c.tb.Fatal(err)
	}
	if after, _ := primary.PostmasterPID(); now != primary || after != pid {
		c.tb.Errorf("%s (%s) led before, %s leads when etcd is back", primary.Name(), primary.Program(), now.Name())
	}
	c.tb.Logf("%s (%s) went on for %v without etcd", primary.Name(), primary.Program(), time.Since(from).Round(time.Second))
}
