package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// benchStart measures the way from empty folders.
func (o BenchOptions) benchStart(ctx context.Context) ([]Line, error) {
	first := Line{Name: "empty folders → primary takes writes", Goal: "≤ 4 s", Limit: 4000, Unit: "ms"}
	all := Line{Name: "empty folders → three members stream", Goal: "≤ 10 s", Limit: 10000, Unit: "ms"}
	if !o.wanted(first.Name) && !o.wanted(all.Name) {
		return nil, nil
	}
	first.busy()
	for i := range o.Runs {
		primary, streaming, err := o.oneStart(ctx, fmt.Sprintf("e%d", i))
		if err != nil {
			return []Line{first, all}, fmt.Errorf("measure the start, run %d: %w", i+1, err)
		}
		first.add(millis(primary))
		all.add(millis(streaming))
		o.say("empty folders", i+1, "primary %s, streaming %s", primary.Round(time.Millisecond), streaming.Round(time.Millisecond))
	}
	first.busy()
	all.Load = first.Load
	return []Line{first, all}, nil
}

func (o BenchOptions) oneStart(ctx context.Context, folder string) (primary, streaming time.Duration, err error) {
	c, err := sandbox.New(o.options(folder, 0))
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	began := time.Now()
	if err := c.PowerOn(); err != nil {
		return 0, 0, err
	}
	if _, err := c.AwaitPrimary(ctx); err != nil {
		return 0, 0, err
	}
	primary = time.Since(began)
	if _, err := c.AwaitStreaming(ctx); err != nil {
		return 0, 0, err
	}
	return primary, time.Since(began), nil
}

// idleFor is how long the idle cluster is measured.
const idleFor = 30 * time.Second

// idleSample is what one node had used and asked when it was looked at.
type idleSample struct {
	usage
	reads, renewals, commits float64 // round trips to the store so far
}

// idleLines are what is measured of an idle cluster; value compares two samples of a node.
func idleLines() []struct {
	Line
	value func(before, after idleSample) float64
} {
	type l = struct {
		Line
		value func(before, after idleSample) float64
	}
	perSecond := func(n float64) float64 { return round2(n / idleFor.Seconds()) }
	return []l{
		{Line{Name: "agent, RSS", Goal: "≤ 40 MB", Limit: 40, Unit: "MB", Further: "≤ 30 MB", FurtherLimit: 30},
			func(_, b idleSample) float64 { return round2(b.agentRSS) }},
		{Line{Name: "keeper, RSS", Goal: "≤ 6 MB", Limit: 6, Unit: "MB"},
			func(_, b idleSample) float64 { return round2(b.keeperRSS) }},
		{Line{Name: "agent and keeper, idle CPU of one core", Goal: "≤ 1 %", Limit: 1, Unit: "%"},
			func(a, b idleSample) float64 {
				return round2(100 * float64(b.agentCPU-a.agentCPU+b.keeperCPU-a.keeperCPU) / float64(idleFor))
			}},
		// Half of what one request in the whole time would be: none is allowed.
		{Line{Name: "store polling when idle", Goal: "0", Limit: 0.5 / idleFor.Seconds(), Unit: "reads/s"},
			func(a, b idleSample) float64 { return perSecond(b.reads - a.reads) }},
		{Line{Name: "store writes when idle, beside renewals", Goal: "(what changed)", Unit: "writes/s"},
			func(a, b idleSample) float64 { return perSecond(b.commits - a.commits) }},
		{Line{Name: "lease renewals when idle", Goal: "(what the lease needs)", Unit: "writes/s"},
			func(a, b idleSample) float64 { return perSecond(b.renewals - a.renewals) }},
	}
}

// raftGrowth is what the log of raft grows by beyond the requests of the agents.
const raftGrowth = "raft log growth when idle, beside requests"

// benchIdle measures what agents and keepers use, and ask of the store, when nothing happens.
func (o BenchOptions) benchIdle(ctx context.Context) (lines []Line, err error) {
	measures := idleLines()
	wanted := o.wanted(raftGrowth)
	for _, m := range measures {
		wanted = wanted || o.wanted(m.Name)
	}
	if !wanted {
		return nil, nil
	}
	c, err := sandbox.New(o.options("idle", 0))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	settle, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := c.PowerOn(); err != nil {
		return nil, err
	}
	if _, err := c.AwaitStreaming(settle); err != nil {
		return nil, err
	}
	// What is published of the start, and what raft and the servers tidy up after it.
	if !pause(ctx, 10*time.Second) {
		return nil, context.Cause(ctx)
	}
	raft := Line{Name: raftGrowth, Goal: "(raft's own)", Unit: "entries/s"}
	raft.busy()
	before, entries, err := idleSamples(ctx, c)
	if err != nil {
		return nil, err
	}
	if !pause(ctx, idleFor) {
		return nil, context.Cause(ctx)
	}
	after, entriesAfter, err := idleSamples(ctx, c)
	if err != nil {
		return nil, err
	}
	raft.busy()
	asked := 0.0
	for i := range after {
		asked += after[i].renewals - before[i].renewals + after[i].commits - before[i].commits
	}
	raft.add(round2((entriesAfter - entries - asked) / idleFor.Seconds()))
	raft.Notes = append(raft.Notes, fmt.Sprintf("the log grew by %.0f entries, and %.0f renewals and writes were asked for, in %s",
		entriesAfter-entries, asked, idleFor))
	for _, m := range measures {
		m.Load, m.Notes = raft.Load, []string{"one value a node"}
		for i := range after {
			m.add(m.value(before[i], after[i]))
		}
		lines = append(lines, m.Line)
		o.say("idle", 1, "%s: %s (most)", m.Name, figure(m.Max, m.Unit))
	}
	return append(lines, raft), nil
}

// idleSamples looks at all nodes in their order, and at how many entries raft has applied.
func idleSamples(ctx context.Context, c *sandbox.Cluster) (out []idleSample, entries float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	used, err := usageOf(c)
	if err != nil {
		return nil, 0, err
	}
	for i, n := range c.Nodes() {
		s := idleSample{usage: used[i]}
		metrics, err := n.Metrics(ctx)
		if err != nil {
			return nil, 0, err
		}
		known := false
		for _, m := range metrics {
			if m.Name != "regent_store_round_trip_seconds_count" {
				continue
			}
			known = true
			switch {
			case slices.Contains(m.Labels, "op=renew"):
				s.renewals += m.Value
			case slices.Contains(m.Labels, "op=view"):
				s.reads += m.Value
			default:
				s.commits += m.Value
			}
		}
		if !known {
			return nil, 0, fmt.Errorf("look at the round trips of %s: its metrics don't count them", n.Name())
		}
		out = append(out, s)
	}
	statuses, err := c.RaftStatus(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, s := range statuses {
		entries = max(entries, float64(s.Applied))
	}
	return out, entries, nil
}
