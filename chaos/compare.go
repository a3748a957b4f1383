package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/internal/sandbox"
)

// Contestant is a program with its timings.
type Contestant struct {
	Name                        string          `json:"name"`
	Program                     sandbox.Program `json:"program"`
	TTL, LoopWait, RetryTimeout time.Duration
}

// CompareOptions say what to compare.
type CompareOptions struct {
	// Runs is how many trials each fault gets; Only takes those whose names contain it.
	Runs int
	Only string
	// Cluster is the template: its Dir is a folder for the clusters, its Store the section that names the
	// server, and Patroni is where a contestant needs it.
	Cluster     sandbox.Options
	Contestants []Contestant
	// Requests reads how many requests the store has served, by kind; nil: it can't be asked.
	Requests func(context.Context) (map[string]float64, error)
	// Out receives progress.
	Out io.Writer
}

// Cell is what one contestant did under one fault.
type Cell struct {
	Outage []time.Duration `json:"outage_ns"`
	// Lost counts acknowledged rows that are gone, Two is for how long two members were primaries, Whole
	// how long it took until all streamed again: the most of all runs.
	Lost  int           `json:"lost_rows"`
	Two   time.Duration `json:"two_primaries_ns"`
	Whole time.Duration `json:"whole_ns"`
	// Trouble is why the cluster was never whole again, once at least.
	Trouble string `json:"trouble,omitempty"`
}

// Comparison is a fault and what each contestant did, in their order.
type Comparison struct {
	Fault string `json:"fault"`
	Cells []Cell `json:"cells"`
}

// Traffic is what each contestant asked of the store while nothing happened, by kind, a second.
type Traffic map[string][]float64

// compareFaults are done to every contestant.
func compareFaults() []Fault {
	past := func(d time.Duration) func(*Arena) time.Duration {
		return func(a *Arena) time.Duration { return a.Cluster.TTL() + d }
	}
	named := func(name string, f Fault) Fault {
		f.Name, f.MayLose = name, true // what is lost is counted here, not judged
		return f
	}
	return []Fault{
		named("switchover", switchover()),
		named("clean stop of the primary's agent", stopAgent(atPrimary, pastTheLease)),
		named("SIGKILL of the primary's postmaster", killPostmaster(atPrimary)),
		named("SIGKILL of the primary's node", killNode(atPrimary, pastTheLease)),
		named("SIGKILL of the primary's agent, back after ttl + 15 s", agentAway(past(15*time.Second))),
		named("freeze of the primary's node for ttl + 10 s", freezeNode(atPrimary, past(10*time.Second))),
		named("a replica promoted behind its agent's back", promoteBehind()),
	}
}

// agentAway ends the primary's agent by SIGKILL and keeps it down.
func agentAway(down func(*Arena) time.Duration) Fault {
	return Fault{Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		s.hit(a, primary)
		s.Down = down(a)
		primary.PowerOff()
		if err := primary.KillAgent(); err != nil {
			return err
		}
		return powerOnAfter(ctx, primary, s.Down)
	}}
}

// promoteBehind promotes a replica as a person would who knows of no agent.
func promoteBehind() Fault {
	return Fault{Strike: func(ctx context.Context, a *Arena, primary *sandbox.Node, s *Strike) error {
		limit, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		n, err := a.successor(limit, primary)
		if err != nil {
			return err
		}
		s.hit(a, n)
		conn, err := pgx.Connect(limit, n.DSN())
		if err != nil {
			return fmt.Errorf("promote %s: %w", n.Name(), err)
		}
		_, err = conn.Exec(limit, "SELECT pg_promote(wait => false)")
		return errors.Join(err, conn.Close(limit))
	}}
}

// Compare does every fault to every contestant, one after the other, each on clusters of its own.
func Compare(ctx context.Context, o CompareOptions) ([]Comparison, Traffic, error) {
	if err := judge.SelfTest(); err != nil {
		return nil, nil, fmt.Errorf("the judge fails its self-test: %w", err)
	}
	faults := slices.DeleteFunc(compareFaults(), func(f Fault) bool { return !strings.Contains(f.Name, o.Only) })
	out := make([]Comparison, len(faults))
	for i, f := range faults {
		out[i] = Comparison{Fault: f.Name, Cells: make([]Cell, len(o.Contestants))}
	}
	traffic := Traffic{}
	for i, c := range o.Contestants {
		at := 0 // the next trial: fault at/runs
		for number := 0; at < len(faults)*o.Runs; number++ {
			dir := fmt.Sprintf("-c%d-%d", i, number)
			err := o.play(ctx, c, dir, func(ctx context.Context, a *Arena) error {
				if number == 0 {
					if err := o.idle(ctx, a, traffic, i); err != nil {
						return err
					}
				}
				for at < len(faults)*o.Runs {
					f, cell := faults[at/o.Runs], &out[at/o.Runs].Cells[i]
					at++
					if err := o.trial(ctx, c, a, f, cell); err != nil || cell.Trouble != "" {
						return err // the next cluster goes on
					}
				}
				return nil
			})
			if err != nil {
				return out, traffic, fmt.Errorf("%s: %w", c.Name, err)
			}
		}
	}
	return out, traffic, nil
}

// play runs a cluster of the contestant under load until body returns.
func (o CompareOptions) play(ctx context.Context, c Contestant, dir string, body func(context.Context, *Arena) error) (err error) {
	set := o.Cluster
	set.Dir += dir
	set.Scope = "compare" + dir
	set.TTL, set.LoopWait, set.RetryTimeout = c.TTL, c.LoopWait, c.RetryTimeout
	cluster, err := sandbox.New(set)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	for _, n := range cluster.Nodes() {
		n.RunAs(c.Program)
	}
	a := NewArena(cluster)
	if err := cluster.PowerOn(); err != nil {
		return err
	}
	return a.Run(ctx, func(ctx context.Context) error { return body(ctx, a) })
}

// trial strikes once.
func (o CompareOptions) trial(ctx context.Context, c Contestant, a *Arena, f Fault, cell *Cell) error {
	t, err := a.Try(ctx, f)
	if err != nil {
		return err
	}
	cell.Outage = append(cell.Outage, t.Verdict.Outage.Length())
	cell.Lost = max(cell.Lost, len(t.Verdict.Lost)+t.StaleLost)
	cell.Whole = max(cell.Whole, t.Whole)
	two := t.Window
	for _, overlap := range t.Verdict.Overlaps {
		two = max(two, overlap.Length())
	}
	cell.Two = max(cell.Two, two)
	for _, v := range t.Verdict.Violations {
		if v.Kind == judge.NotWhole {
			cell.Trouble = v.Text
		}
	}
	tell(o.Out, "%-28s %-52s outage %8s  lost %4d  two primaries %6s  all stream after %s\n", c.Name, f.Name,
		t.Verdict.Outage.Length().Round(time.Millisecond), len(t.Verdict.Lost)+t.StaleLost, two.Round(time.Millisecond), cell.whole())
	return nil
}

// idle counts what the agents ask of the store when nothing happens.
func (o CompareOptions) idle(ctx context.Context, a *Arena, traffic Traffic, contestant int) error {
	if _, err := a.Settle(ctx); err != nil {
		return err
	}
	if o.Requests == nil || !strings.Contains("idle", o.Only) {
		return nil
	}
	before, err := o.Requests(ctx)
	if err != nil {
		return err
	}
	if !pause(ctx, idleFor) {
		return context.Cause(ctx)
	}
	after, err := o.Requests(ctx)
	if err != nil {
		return err
	}
	for kind := range after {
		if len(traffic[kind]) == 0 {
			traffic[kind] = make([]float64, len(o.Contestants))
		}
		traffic[kind][contestant] = round2((after[kind] - before[kind]) / idleFor.Seconds())
	}
	return nil
}

func (c Cell) whole() string {
	if c.Trouble != "" {
		return "never"
	}
	return fmt.Sprintf("%.1f s", c.Whole.Seconds())
}

// String is a cell of the table: outage p50 (max), and what was bad.
func (c Cell) String() string {
	if len(c.Outage) == 0 {
		return ""
	}
	sorted := slices.Sorted(slices.Values(c.Outage))
	short := func(d time.Duration) string {
		if d < 10*time.Second {
			return fmt.Sprintf("%.2f s", d.Seconds())
		}
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	text := short(sorted[len(sorted)/2])
	if len(sorted) > 1 {
		text += " (" + short(sorted[len(sorted)-1]) + ")"
	}
	text += fmt.Sprintf(" · %d lost · %s · %s", c.Lost, short(c.Two), c.whole())
	return text
}

// ComparisonTable writes the comparison as Markdown.
func ComparisonTable(w io.Writer, contestants []Contestant, rows []Comparison, traffic Traffic) {
	tell(w, "| Fault |")
	for _, c := range contestants {
		tell(w, " %s |", c.Name)
	}
	tell(w, "\n|---|%s\n", strings.Repeat("---|", len(contestants)))
	for _, r := range rows {
		tell(w, "| %s |", r.Fault)
		for _, c := range r.Cells {
			tell(w, " %s |", c)
		}
		tell(w, "\n")
	}
	var kinds []string
	for kind := range traffic {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		tell(w, "| idle: %s a second, three members |", kind)
		for _, v := range traffic[kind] {
			tell(w, " %.2f |", v)
		}
		tell(w, "\n")
	}
}
