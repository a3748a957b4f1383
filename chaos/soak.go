package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/internal/sandbox"
)

// SoakOptions say how long to go on. The first limit that is reached ends the soak; at least
// one must be set.
type SoakOptions struct {
	// Strikes is how many; zero: no limit.
	Strikes int
	// For is how long; zero: no limit.
	For time.Duration
	// Seed chooses the strikes. The same seed strikes in the same order, with the same lengths
	// and the same choice between the primary and a node by number; what the cluster makes of it
	// is not repeatable.
	Seed uint64
	// Only are the kinds of strikes that are wanted, by parts of their names; none: all.
	Only []string
	// Cluster is where it happens, Store a word for its store.
	Cluster sandbox.Options
	Store   string
	// Out receives a line for each strike, and the summary.
	Out io.Writer
}

// ErrViolation is wrapped by a soak's error when the judge found one, or a budget was exceeded.
// The cluster's folder was kept then.
var ErrViolation = errors.New("a promise was broken")

// ErrInterrupted is wrapped by the error of a soak whose context ended before its limits did. What
// was seen until then is in its result.
var ErrInterrupted = errors.New("interrupted")

// Soak strikes at random, one strike at a time, each followed by a trial, until its limits or
// the first violation. Then it stops the agents and replays their journals. The result is valid
// whatever the error is.
func Soak(ctx context.Context, o SoakOptions) (result SoakResult, err error) {
	result = SoakResult{Seed: o.Seed, Began: time.Now(), Store: o.Store, Mode: "asynchronous"}
	if o.Cluster.Sync {
		result.Mode = "synchronous"
	}
	if err := judge.SelfTest(); err != nil {
		return result, fmt.Errorf("the judge fails its self-test: %w", err)
	}
	if len(o.kinds()) == 0 {
		return result, fmt.Errorf("no kind of strike is named like %q", o.Only)
	}
	c, err := sandbox.New(o.Cluster)
	if err != nil {
		return result, err
	}
	defer func() {
		if errors.Is(err, ErrViolation) {
			c.KeepFolder()
			tell(o.Out, "%s\nThe cluster's folder is kept: %s\n", err, c.Dir())
		}
		err = errors.Join(err, c.Close())
	}()
	result.TTL = c.TTL()
	tell(o.Out, "seed %d, ttl %s, folder %s\n", o.Seed, c.TTL(), c.Dir())
	a := NewArena(c)
	if err := c.PowerOn(); err != nil {
		return result, err
	}
	err = a.Run(ctx, func(ctx context.Context) error { return o.soak(ctx, a, &result) })
	return result, err
}

// soak strikes, sums up, and replays the journals.
func (o SoakOptions) soak(ctx context.Context, a *Arena, result *SoakResult) error {
	err := o.strikes(ctx, a, result)
	result.Took, result.Acked = time.Since(result.Began), a.Writer.Acked()
	if err == nil {
		if result.Replays, err = a.Replays(ctx); err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", ErrViolation, err)
		}
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w after %d strikes: %w", ErrInterrupted, result.Strikes, context.Cause(ctx))
	}
	for _, u := range result.Usage {
		switch {
		case err != nil || u.OK():
		case u.Samples == 0:
			err = fmt.Errorf("%w: %s was never measured (last trouble: %v)", ErrViolation, u.Name, result.unmeasured)
		default:
			err = fmt.Errorf("%w: %s: at most %s, grew from %s to %s; the budget is %s, and %s of growth", ErrViolation, u.Name,
				figure(u.Peak, u.Unit), figure(u.First, u.Unit), figure(u.Last, u.Unit), figure(u.Most, u.Unit), figure(u.Growth, u.Unit))
		}
	}
	if err != nil {
		result.Trouble = err.Error()
	}
	result.Text(o.Out)
	return err
}

// maxUncounted is how many trials may go uncounted because the machine was too busy to watch.
const maxUncounted = 20

// strikes makes the trials.
func (o SoakOptions) strikes(ctx context.Context, a *Arena, result *SoakResult) error {
	var grown growth
	defer func() { result.Usage, result.unmeasured = grown.usages(), grown.trouble }()
	schedule := o.schedule()
	strike := schedule()
	for counted := 0; (o.Strikes == 0 || counted < o.Strikes) && (o.For == 0 || time.Since(result.Began) < o.For); {
		t, err := a.Try(ctx, strike())
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%w: the cluster is not usable", ErrViolation), err)
		}
		tell(o.Out, "%4d  %s  %s\n", counted+1, clock(time.Since(result.Began)), describe(t))
		for _, d := range t.Verdict.Doubts {
			tell(o.Out, "      too close to tell: %s\n", d)
		}
		switch {
		case t.Verdict.OK():
			counted++
			result.add(t)
			strike = schedule()
		case t.Verdict.Inconclusive():
			tell(o.Out, "      doesn't count: %s\n", t.Verdict)
			if result.Uncounted++; result.Uncounted > maxUncounted {
				return fmt.Errorf("watch the cluster: this machine is too busy: %s", t.Verdict)
			}
		default:
			return fmt.Errorf("%w:\n%s", ErrViolation, t.Verdict)
		}
		grown.sample(ctx, a.Cluster)
	}
	return nil
}

// kind of a strike, and how to make one from random numbers of its own.
type kind struct {
	name string
	make func(rng *rand.Rand) Fault
}

// raftLeadersAgent is struck where the store is in the agents.
const raftLeadersAgent = "SIGKILL of the raft leader's agent"

// kinds are all that are wanted.
func (o SoakOptions) kinds() []kind {
	all := []kind{
		{"SIGKILL of the agent", func(r *rand.Rand) Fault { return killAgent("SIGKILL of the agent", atRandom(r)) }},
		{"SIGKILL of the keeper", func(r *rand.Rand) Fault { return killKeeper(atRandom(r)) }},
		{"SIGKILL of the postmaster", func(r *rand.Rand) Fault { return killPostmaster(atRandom(r)) }},
		{"SIGKILL of the node", func(r *rand.Rand) Fault { return killNode(atRandom(r), within(r, 200*time.Millisecond, 4)) }},
		{raftLeadersAgent, func(*rand.Rand) Fault { return killAgent(raftLeadersAgent, atRaftLeader) }},
		{"SIGKILL of the node right after a switchover", func(r *rand.Rand) Fault { return killNewPrimary(within(r, 200*time.Millisecond, 4)) }},
		{"clean stop of the agent", func(r *rand.Rand) Fault { return stopAgent(atRandom(r), within(r, 200*time.Millisecond, 4)) }},
		{"switchover", switchoverTo},
		{"freeze of the agent", func(r *rand.Rand) Fault {
			return freeze(sandbox.Agent, atRandom(r), within(r, 300*time.Millisecond, 3))
		}},
		{"freeze of the keeper", func(r *rand.Rand) Fault {
			return freeze(sandbox.Keeper, atRandom(r), within(r, 300*time.Millisecond, 3))
		}},
		{"freeze of the postmaster", func(r *rand.Rand) Fault {
			return freeze(sandbox.Postmaster, atRandom(r), within(r, 300*time.Millisecond, 3))
		}},
		{"freeze of the node", func(r *rand.Rand) Fault { return freezeNode(atRandom(r), within(r, 300*time.Millisecond, 3)) }},
		{"restart of PostgreSQL", func(r *rand.Rand) Fault { return restartPostgres(atRandom(r)) }},
		{"change of /config", changeConfig},
		{"SIGKILL of the agent in pause", func(r *rand.Rand) Fault { return pauseAndKill(atRandom(r)) }},
	}
	return slices.DeleteFunc(all, func(k kind) bool {
		if o.Cluster.Store != "" && k.name == raftLeadersAgent {
			return true
		}
		return len(o.Only) > 0 && !slices.ContainsFunc(o.Only, func(part string) bool { return strings.Contains(k.name, part) })
	})
}

// within draws a length between least and so many leases, once.
func within(rng *rand.Rand, least time.Duration, leases float64) func(*Arena) time.Duration {
	share := rng.Float64()
	return func(a *Arena) time.Duration {
		// Long leases are outlived by some strikes; the others needn't make a soak long.
		longest := min(time.Duration(leases*float64(a.Cluster.TTL())), a.Cluster.TTL()+4*time.Second)
		return least + time.Duration(share*float64(longest-least))
	}
}

// schedule returns the strikes, one after the other: every kind once in random order, and so on.
// Each strike draws from numbers of its own, so that it is the same whatever the ones before it
// drew, and may be made again: one that nobody could vouch for is.
func (o SoakOptions) schedule() func() func() Fault {
	order := rand.New(rand.NewPCG(o.Seed, 0))
	var deck []kind
	number := uint64(0)
	return func() func() Fault {
		if len(deck) == 0 {
			deck = o.kinds()
			order.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		next := deck[0]
		deck = deck[1:]
		number++
		own := number
		return func() Fault { return next.make(rand.New(rand.NewPCG(o.Seed, own))) }
	}
}

func describe(t Trial) string {
	text := fmt.Sprintf("%-62s outage %6s  lost %d  healthy within %s",
		t.Strike, t.Verdict.Outage.Length().Round(time.Millisecond), len(t.Verdict.Lost), t.Healed.Round(100*time.Millisecond))
	if t.Window > 0 {
		text += fmt.Sprintf("  thawed, it was a primary for %s more", t.Window.Round(100*time.Microsecond))
	}
	if t.Strike.Stale != nil && t.FailedOver() {
		text += fmt.Sprintf("  (it acknowledged %d rows to a client that had stayed, %d are lost)", t.StaleAcked, t.StaleLost)
	}
	if t.FailedOver() {
		text += "  → " + t.Primary
	}
	return text
}

func clock(d time.Duration) string {
	d = d.Round(time.Second)
	return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// tell prints to whoever watches; that nobody may be there any more is no reason to stop.
func tell(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
