package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/internal/sandbox"
)

// BenchOptions say what to measure.
type BenchOptions struct {
	// Runs is how many trials each line gets; lines that take long get fewer.
	Runs int
	// Only measures the lines whose names contain it; empty: all.
	Only string
	// Cluster is the template: its Dir is a folder for the bench's clusters, its timings are
	// those of the lines that name none.
	Cluster sandbox.Options
	// Out receives progress.
	Out io.Writer
}

// Line is one goal and what was measured.
type Line struct {
	Name string `json:"name"`
	// Goal is the goal in words, Limit in milliseconds (or MB, or percent: see Unit); zero: none.
	Goal  string  `json:"goal"`
	Limit float64 `json:"limit,omitempty"`
	Unit  string  `json:"unit"`
	// Values of all runs, in their order.
	Values []float64 `json:"values"`
	P50    float64   `json:"p50"`
	Max    float64   `json:"max"`
	// Lost counts lost acknowledged rows of all runs; Notes say what else there is to know.
	Lost  int      `json:"lost_rows"`
	Notes []string `json:"notes,omitempty"`
	// Broken are the judge's violations.
	Broken []string `json:"violations,omitempty"`

	// FloorLine names the line with what bare PostgreSQL takes for the same, Floor is its median.
	FloorLine string  `json:"floor_line,omitempty"`
	Floor     float64 `json:"floor_p50,omitempty"`
	// Further is a sharper goal in words, FurtherLimit in the line's unit. With a FloorLine it is
	// twice the floor.
	Further      string  `json:"further_goal,omitempty"`
	FurtherLimit float64 `json:"further_limit,omitempty"`
	// Load is the machine's load average over a minute, the higher one of when the line began and
	// when it ended. Beyond the number of cores the figures say more about the machine than about
	// anything else.
	Load float64 `json:"load_average"`
}

// busy notes the load, at the begin and at the end of a line.
func (l *Line) busy() {
	if load, err := strconv.ParseFloat(firstFields("/proc/loadavg", 1), 64); err == nil {
		l.Load = max(l.Load, load)
	}
}

// MetFurther reports that the median is within the further goal.
func (l Line) MetFurther() bool {
	return l.Met() && (l.FurtherLimit == 0 || l.P50 <= l.FurtherLimit)
}

// timesFloor is how many floors the further goals allow.
const timesFloor = 2

// compare looks the floors up.
func compare(lines []Line) {
	for i := range lines {
		l := &lines[i]
		if l.FloorLine == "" {
			continue
		}
		at := slices.IndexFunc(lines, func(f Line) bool { return f.Name == l.FloorLine && len(f.Values) > 0 })
		if at >= 0 {
			l.Floor = lines[at].P50
			l.Further, l.FurtherLimit = fmt.Sprintf("≤ %d× floor", timesFloor), timesFloor*l.Floor
		}
	}
}

// Met reports that the median is within the goal and no promise was broken.
func (l Line) Met() bool {
	return len(l.Broken) == 0 && len(l.Values) > 0 && (l.Limit == 0 || l.P50 <= l.Limit)
}

func (l *Line) add(value float64) {
	l.Values = append(l.Values, value)
	sorted := slices.Sorted(slices.Values(l.Values))
	// The upper middle: with an even number of runs the worse of the two is told.
	l.P50, l.Max = sorted[len(sorted)/2], sorted[len(sorted)-1]
}

// section is a group of lines that share a cluster.
type section struct {
	ttl   time.Duration // zero: the template's
	lines []benchLine
}

type benchLine struct {
	name, goal string
	limit      time.Duration
	fault      Fault
	runs       func(runs int) int
	floor      string
}

func few(int) int       { return 2 }
func most(runs int) int { return runs }

// benchSections are the speed goals.
func benchSections(ttl time.Duration) []section {
	long := 30 * time.Second
	return []section{
		{lines: []benchLine{
			{"switchover", "≤ 300 ms", 300 * time.Millisecond, switchover(), most, floorSwitchover},
			{"postmaster SIGKILL, agent alive, idle database", "≤ 1 s", time.Second, killPostmaster(atPrimary), most, floorCrash},
			{"clean agent stop at the primary", "≤ 500 ms", 500 * time.Millisecond, stopAgent(atPrimary, pastTheLease), most, floorStop},
			{"node SIGKILL", "≤ ttl + 1 s", ttl + time.Second, killNode(atPrimary, pastTheLease), most, ""},
			{"node SIGKILL, raft leader and primary on it", "≤ ttl + 1 s", ttl + time.Second, together(killNode(atPrimary, pastTheLease)), most, ""},
			{"agent SIGKILL at the primary, agent stays away", "0 rows lost, never two writable", 0, killAgentForGood(atPrimary), most, ""},
			{"agent SIGKILL at the primary, restarted after 1 s", "0 rows lost, never two writable", 0, killAgent("SIGKILL of the agent", atPrimary), most, ""},
		}},
		{ttl: long, lines: []benchLine{
			{"clean agent stop at the primary, ttl 30", "≤ 500 ms", 500 * time.Millisecond, stopAgent(atPrimary, briefly), few, floorStop},
			{"node SIGKILL, ttl 30", "≤ 31 s", 31 * time.Second, killNode(atPrimary, pastTheLease), few, ""},
		}},
	}
}

func briefly(*Arena) time.Duration { return 2 * time.Second }

func together(f Fault) Fault {
	f.Prepare = togetherWithRaftLeader
	return f
}

// Bench measures every line. Broken promises are in the lines; the error says that a line
// could not be measured.
func Bench(ctx context.Context, o BenchOptions) ([]Line, error) {
	if err := judge.SelfTest(); err != nil {
		return nil, fmt.Errorf("the judge fails its self-test: %w", err)
	}
	parts := []func(context.Context) ([]Line, error){o.benchFloor, o.benchStart, o.benchIdle}
	for i, s := range benchSections(o.Cluster.TTL) {
		parts = append(parts, func(ctx context.Context) ([]Line, error) { return o.benchSection(ctx, fmt.Sprintf("s%d", i), s) })
	}
	var out []Line
	for _, part := range parts {
		lines, err := part(ctx)
		out = append(out, lines...)
		if err != nil {
			return out, err
		}
	}
	compare(out)
	return out, nil
}

// say tells of one run, and how busy the machine is.
func (o BenchOptions) say(name string, run int, format string, args ...any) {
	tell(o.Out, "%-52s run %d: %s; load %s\n", name, run, fmt.Sprintf(format, args...), firstFields("/proc/loadavg", 1))
}

func (o BenchOptions) wanted(name string) bool { return strings.Contains(name, o.Only) }

// options are the template's, in a folder of their own.
func (o BenchOptions) options(folder string, ttl time.Duration) sandbox.Options {
	c := o.Cluster
	c.Dir += "-" + folder
	if ttl != 0 {
		c.TTL, c.LoopWait, c.RetryTimeout = ttl, 10*time.Second, 10*time.Second
	}
	return c
}

// benchSection makes the trials of one cluster.
func (o BenchOptions) benchSection(ctx context.Context, folder string, s section) (lines []Line, err error) {
	s.lines = slices.DeleteFunc(s.lines, func(l benchLine) bool { return !o.wanted(l.name) })
	if len(s.lines) == 0 {
		return nil, nil
	}
	c, err := sandbox.New(o.options(folder, s.ttl))
	if err != nil {
		return nil, err
	}
	defer func() {
		if slices.ContainsFunc(lines, func(l Line) bool { return len(l.Broken) > 0 }) {
			c.KeepFolder()
			tell(o.Out, "The cluster's folder is kept: %s\n", c.Dir())
		}
		err = errors.Join(err, c.Close())
	}()
	a := NewArena(c)
	if err := c.PowerOn(); err != nil {
		return nil, err
	}
	err = a.Run(ctx, func(ctx context.Context) error {
		for _, l := range s.lines {
			line, err := o.trials(ctx, a, l)
			lines = append(lines, line)
			if err != nil || len(line.Broken) > 0 {
				return err
			}
		}
		return nil
	})
	return lines, err
}

func (o BenchOptions) trials(ctx context.Context, a *Arena, l benchLine) (line Line, err error) {
	line = Line{Name: l.name, Goal: l.goal, Limit: millis(l.limit), Unit: "ms", FloorLine: l.floor}
	line.busy()
	defer line.busy()
	var replay int64
	for i := range l.runs(o.Runs) {
		if wal, err := walToReplay(ctx, a.Cluster); err == nil {
			replay = max(replay, wal)
		}
		t, err := a.Try(ctx, l.fault)
		if err != nil {
			return line, fmt.Errorf("measure %q, run %d: %w", l.name, i+1, err)
		}
		line.add(millis(t.Verdict.Outage.Length()))
		line.Lost += len(t.Verdict.Lost)
		for _, v := range t.Verdict.Violations {
			if v.Kind == judge.Blind {
				line.Notes = append(line.Notes, fmt.Sprintf("run %d: the machine was too busy to vouch for it (%s)", i+1, v))
				continue
			}
			line.Broken = append(line.Broken, v.String())
		}
		o.say(l.name, i+1, "outage %s, lost %d, whole after %s",
			t.Verdict.Outage.Length().Round(time.Millisecond), len(t.Verdict.Lost), t.Whole.Round(100*time.Millisecond))
		if !t.Verdict.OK() {
			tell(o.Out, "%s\n", t.Verdict)
		}
		if len(line.Broken) > 0 {
			break
		}
	}
	line.Notes = append(line.Notes, fmt.Sprintf("at most %d KB of WAL since the last checkpoint's redo", replay/1024))
	return line, nil
}

// walToReplay is how much the primary would have to replay if it crashed now.
func walToReplay(ctx context.Context, c *sandbox.Cluster) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.DSN())
	if err != nil {
		return 0, fmt.Errorf("ask for the WAL to replay: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // read only: nothing to lose
	var bytes int64
	err = conn.QueryRow(ctx, `SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn)::bigint FROM pg_control_checkpoint()`).Scan(&bytes)
	if err != nil {
		return 0, fmt.Errorf("ask for the WAL to replay: %w", err)
	}
	return bytes, nil
}

func millis(d time.Duration) float64 { return round2(float64(d) / float64(time.Millisecond)) }

func round2(f float64) float64 { return math.Round(f*100) / 100 }
