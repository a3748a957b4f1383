package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// options are those of a cluster in the test's folder.
func options(t *testing.T) sandbox.Options {
	t.Helper()
	return sandbox.Options{
		Dir: filepath.Join(pgtest.SocketDir(t), "c"),
		Bin: filepath.Dir(pgtest.Binary(t, "regent")), PGBin: pgtest.BinDir(t),
	}
}

// shortKinds are struck once each: together they take about a minute. The others have their turn
// in make soak.
func shortKinds() []string {
	return []string{
		"SIGKILL of the agent", "SIGKILL of the keeper", "SIGKILL of the postmaster", "SIGKILL of the node", "raft leader",
		"clean stop", "freeze of the node",
	}
}

func TestShortSoakKeepsAllPromises(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute: real clusters are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var out bytes.Buffer
	o := SoakOptions{Seed: uint64(time.Now().UnixNano()), Only: shortKinds(), Cluster: options(t), Out: &out}
	o.Strikes = len(o.kinds())
	result, err := Soak(ctx, o)
	t.Logf("%s", out.String())
	if err != nil {
		t.Fatalf("%v\nrun it again with: bin/regent-chaos soak --seed %d --strikes %d --only '%s'", err, o.Seed, o.Strikes, strings.Join(o.Only, ","))
	}
	if len(result.Kinds) != len(o.kinds()) || result.Strikes != o.Strikes {
		t.Errorf("%d kinds were struck in %d strikes, want %d", len(result.Kinds), result.Strikes, len(o.kinds()))
	}
	if len(result.Replays) != 3 {
		t.Errorf("%d journals were replayed, want 3", len(result.Replays))
	}
	var report bytes.Buffer
	result.Markdown(&report, Machine{})
	for _, want := range []string{"0 violations", "| freeze of the node | 1 |", "| agent, RSS |", "| agent, goroutines |"} {
		if !strings.Contains(report.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, report.String())
		}
	}
}

func TestSeedRepeatsTheSchedule(t *testing.T) {
	draw := func(o SoakOptions) (out []string) {
		next := o.schedule()
		for range 40 {
			out = append(out, next()().Name)
		}
		return out
	}
	if a, b := draw(SoakOptions{Seed: 7}), draw(SoakOptions{Seed: 7}); !slices.Equal(a, b) {
		t.Errorf("the same seed gave\n%q\nand\n%q", a, b)
	}
	if slices.Equal(draw(SoakOptions{Seed: 7}), draw(SoakOptions{Seed: 8})) {
		t.Error("two seeds gave the same schedule")
	}
	first := draw(SoakOptions{Seed: 7})[:len(SoakOptions{}.kinds())]
	for _, k := range (SoakOptions{}).kinds() {
		if !slices.Contains(first, k.name) {
			t.Errorf("%q was not struck in the first round", k.name)
		}
	}
}

// freezeKeeper stops a primary's keeper with SIGSTOP, which nothing but a hardware watchdog
// guards against, kills its agent, and thaws all of it after the lease.
func freezeKeeper() Fault {
	return Fault{Name: "freeze of the keeper and SIGKILL of the agent", MayLose: true,
		Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
			s.hit(a, primary)
			keeper, running := primary.KeeperPID()
			if !running {
				return errors.New("no keeper runs")
			}
			if err := unix.Kill(keeper, unix.SIGSTOP); err != nil {
				return err
			}
			primary.PowerOff()
			err := primary.KillAgent()
			for limit := time.Now().Add(30 * time.Second); !a.otherPrimary(primary) && time.Now().Before(limit); {
				pause(ctx, 10*time.Millisecond)
			}
			pause(ctx, time.Second) // two primaries, side by side
			return errors.Join(err, unix.Kill(keeper, unix.SIGCONT), primary.PowerOn())
		}}
}

// otherPrimary reports that a member other than n is seen as primary.
func (a *Arena) otherPrimary(n *sandbox.Node) bool {
	for name, role := range a.Watcher.Roles() {
		if role == history.Primary && name != n.Name() {
			return true
		}
	}
	return false
}

// A watcher that sees nothing wrong without fencing would see nothing wrong at all: with its
// keeper frozen and its agent dead a primary goes on past its lease, so there are two, and the
// whole chain of writer, watcher and judge has to say so. The cluster must heal afterwards.
func TestTwoRealPrimariesAreSeenAndHealed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: real clusters are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	o := options(t)
	c, err := sandbox.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.PowerOn(); err != nil {
		t.Fatal(err)
	}
	a := NewArena(c)
	var trial Trial
	err = a.Run(ctx, func(ctx context.Context) error {
		var err error
		trial, err = a.Try(ctx, freezeKeeper())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(trial.Verdict.Overlaps) == 0 {
		t.Fatalf("without keeper and agent %s must have been a second primary, and nobody saw it:\n%s\n%s",
			trial.Strike.Primary, trial.Verdict, spansOf(a))
	}
	if trial.Verdict.Has(judge.NotWhole) {
		t.Errorf("it did not heal:\n%s", trial.Verdict)
	}
	longest := slices.MaxFunc(trial.Verdict.Overlaps, func(x, y history.Overlap) int { return int(x.Length() - y.Length()) })
	t.Logf("seen: %s", longest)
}

func spansOf(a *Arena) string {
	var b strings.Builder
	for _, s := range a.Watcher.Spans() {
		fmt.Fprintln(&b, s)
	}
	return b.String()
}
