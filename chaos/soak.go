package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/internal/sandbox"
)

// SoakOptions say how long to go on. The first limit that is reached ends the soak; at least
// one must be set.
type SoakOptions struct {
	// Kills is how many strikes; zero: no limit.
	Kills int
	// For is how long; zero: no limit.
	For time.Duration
	// Seed chooses the strikes. The same seed strikes in the same order; what the cluster
	// makes of it is not repeatable.
	Seed uint64
	// Cluster is where it happens.
	Cluster sandbox.Options
	// Out receives a line for each strike.
	Out io.Writer
}

// ErrViolation is wrapped by a soak's error when the judge found one. The cluster's folder was
// kept then.
var ErrViolation = errors.New("a promise was broken")

// Soak strikes at random, one strike at a time, each followed by a trial, until its limits or
// the first violation. Then it stops the agents and replays their journals.
func Soak(ctx context.Context, o SoakOptions) (err error) {
	if err := judge.SelfTest(); err != nil {
		return fmt.Errorf("the judge fails its self-test: %w", err)
	}
	c, err := sandbox.New(o.Cluster)
	if err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, ErrViolation) {
			c.KeepFolder()
			tell(o.Out, "%s\nThe cluster's folder is kept: %s\n", err, c.Dir())
		}
		err = errors.Join(err, c.Close())
	}()
	tell(o.Out, "seed %d, ttl %s, folder %s\n", o.Seed, c.TTL(), c.Dir())
	a := NewArena(c)
	if err := c.PowerOn(); err != nil {
		return err
	}
	return a.Run(ctx, func(ctx context.Context) error { return o.strikes(ctx, a) })
}

// maxUncounted is how many trials may go uncounted because the machine was too busy to watch.
const maxUncounted = 20

// strikes makes the trials and the replays.
func (o SoakOptions) strikes(ctx context.Context, a *Arena) error {
	rng := rand.New(rand.NewPCG(o.Seed, 1))
	began := time.Now()
	sum := summary{began: began}
	var deck []Fault
	for i := 1; (o.Kills == 0 || i <= o.Kills) && (o.For == 0 || time.Since(began) < o.For); i++ {
		if len(deck) == 0 {
			deck = soakFaults(rng)
		}
		t, err := a.Try(ctx, deck[0])
		deck = deck[1:]
		if ctx.Err() != nil {
			return fmt.Errorf("soak: %w", context.Cause(ctx))
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%w: the cluster is not usable", ErrViolation), err)
		}
		tell(o.Out, "%4d  %s  %s\n", i, clock(time.Since(began)), describe(t))
		for _, d := range t.Verdict.Doubts {
			tell(o.Out, "      too close to tell: %s\n", d)
		}
		switch {
		case t.Verdict.OK():
			sum.add(t)
		case t.Verdict.Inconclusive():
			tell(o.Out, "      doesn't count: %s\n", t.Verdict)
			i--
			if sum.uncounted++; sum.uncounted > maxUncounted {
				return fmt.Errorf("watch the cluster: this machine is too busy: %s", t.Verdict)
			}
		default:
			return fmt.Errorf("%w:\n%s", ErrViolation, t.Verdict)
		}
	}
	sum.print(o.Out, a)
	replays, err := a.Replays(ctx)
	for _, line := range replays {
		tell(o.Out, "journal of %s\n", line)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrViolation, err)
	}
	return nil
}

// soakFaults returns every kind once, in random order.
func soakFaults(rng *rand.Rand) []Fault {
	briefly := func(*Arena) time.Duration { return time.Duration(200+rng.IntN(4000)) * time.Millisecond }
	deck := []Fault{
		killAgent("SIGKILL of the agent", atRandom(rng)),
		killKeeper(atRandom(rng)),
		killPostmaster(atRandom(rng)),
		killNode(atRandom(rng), briefly),
		killAgent("SIGKILL of the raft leader's agent", atRaftLeader),
		killNewPrimary(briefly),
		stopAgent(atRandom(rng), briefly),
	}
	rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	return deck
}

func describe(t Trial) string {
	text := fmt.Sprintf("%-62s outage %6s  lost %d  whole after %s",
		t.Strike, t.Verdict.Outage.Length().Round(time.Millisecond), len(t.Verdict.Lost), t.Whole.Round(100*time.Millisecond))
	if t.FailedOver() {
		text += "  → " + t.Primary
	}
	return text
}

// summary is what a soak ends with.
type summary struct {
	began     time.Time
	kills     int
	uncounted int
	failovers int
	lost      int
	longest   time.Duration
	slowest   float64
}

func (s *summary) add(t Trial) {
	s.kills++
	if t.FailedOver() {
		s.failovers++
	}
	s.lost += len(t.Verdict.Lost)
	s.longest = max(s.longest, t.Verdict.Outage.Length())
	if s.kills == 1 || t.Verdict.Rate < s.slowest {
		s.slowest = t.Verdict.Rate
	}
}

func (s *summary) print(w io.Writer, a *Arena) {
	tell(w, "%d strikes in %s, %d fail-overs", s.kills, clock(time.Since(s.began)), s.failovers)
	if s.uncounted > 0 {
		tell(w, ", %d more that don't count", s.uncounted)
	}
	tell(w, "\n%d rows acknowledged, %d lost", a.Writer.Acked(), s.lost)
	if s.lost > 0 {
		tell(w, ", all where a primary's whole node was killed")
	}
	tell(w, "; longest outage %s\nnever two primaries; each member was looked at ≥ %.0f times a second\n",
		s.longest.Round(time.Millisecond), s.slowest)
}

func clock(d time.Duration) string {
	d = d.Round(time.Second)
	return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// tell prints to whoever watches; that nobody may be there any more is no reason to stop.
func tell(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
