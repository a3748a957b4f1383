package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// budget is how much of something a node may use.
type budget struct {
	name, unit string
	// most is the most at any time, growth the most between the first and the last quarter of a
	// soak, compared by their medians: an agent that was just started uses less than one that
	// has settled, and faults start them all the time.
	most, growth float64
}

// budgets of one node under load. The agent's RSS counts pages of raft's log, which is mapped, so that
// its anonymous memory is what a leak would show in. Folders have bounds of their own, which are above the growth
// that is allowed here: a soak writes less than they hold.
func budgets() []budget {
	return []budget{
		{"agent, RSS", "MB", 64, 16},
		{"agent, anonymous memory", "MB", 40, 10},
		{"agent, descriptors", "", 160, 24},
		{"agent, threads", "", 40, 12},
		{"agent, goroutines", "", 250, 40},
		{"keeper, RSS", "MB", 12, 2},
		{"keeper, descriptors", "", 64, 8},
		{"keeper, threads", "", 24, 6},
		{"journal folder", "MB", 66, 66},
		{"raft folder", "MB", 64, 32},
	}
}

// sampleEvery is the least time between two samples.
const sampleEvery = 10 * time.Second

// growth is what the nodes used, over a soak. The value at a time is that of the node that used
// most.
type growth struct {
	last   time.Time
	series map[string][]float64
	// trouble is why the latest look failed.
	trouble error
}

// sample looks, unless it did so a moment ago. Agents that are just being restarted are missed.
func (g *growth) sample(ctx context.Context, c *sandbox.Cluster) {
	if time.Since(g.last) < sampleEvery {
		return
	}
	g.last = time.Now()
	most := map[string]float64{}
	for _, n := range c.Nodes() {
		values, err := usageOfNode(ctx, n)
		if g.trouble = err; err != nil {
			return // half a sample would be compared with whole ones
		}
		for name, v := range values {
			most[name] = max(most[name], v)
		}
	}
	if g.series == nil {
		g.series = map[string][]float64{}
	}
	for name, v := range most {
		g.series[name] = append(g.series[name], v)
	}
}

// Usage is one budget and what was used of it.
type Usage struct {
	Name, Unit      string
	Most, Growth    float64 // the budget
	Peak            float64
	First, Last     float64 // medians of the first and the last quarter
	Samples         int
	Exceeded, Grown bool
}

// OK reports that the budget was kept. One that was never measured wasn't.
func (u Usage) OK() bool { return u.Samples > 0 && !u.Exceeded && !u.Grown }

// fewestSamples is how many samples growth is judged from at least: each quarter needs some.
const fewestSamples = 16

// usages judges the samples.
func (g *growth) usages() []Usage {
	var out []Usage
	for _, b := range budgets() {
		s := g.series[b.name]
		if len(s) == 0 {
			out = append(out, Usage{Name: b.name, Unit: b.unit, Most: b.most, Growth: b.growth})
			continue
		}
		quarter := max(1, len(s)/4)
		u := Usage{
			Name: b.name, Unit: b.unit, Most: b.most, Growth: b.growth, Samples: len(s),
			Peak: slices.Max(s), First: median(s[:quarter]), Last: median(s[len(s)-quarter:]),
		}
		u.Exceeded = u.Peak > b.most
		u.Grown = len(s) >= fewestSamples && u.Last-u.First > b.growth
		out = append(out, u)
	}
	return out
}

func median(s []float64) float64 {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[len(sorted)/2]
}

// usageOfNode measures what the budgets name.
func usageOfNode(ctx context.Context, n *sandbox.Node) (map[string]float64, error) {
	out := map[string]float64{}
	for who, of := range map[string]func() (int, bool){"agent": n.AgentPID, "keeper": n.KeeperPID} {
		pid, running := of()
		if !running {
			return nil, fmt.Errorf("look at what %s uses: its %s isn't running", n.Name(), who)
		}
		rss, anonymous, _, err := usageOfProcess(pid)
		if err != nil {
			return nil, err
		}
		out[who+", RSS"], out[who+", anonymous memory"] = rss, anonymous
		for what, folder := range map[string]string{"descriptors": "fd", "threads": "task"} {
			entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", pid, folder))
			if err != nil {
				return nil, fmt.Errorf("look at what %s uses: %w", n.Name(), err)
			}
			out[who+", "+what] = float64(len(entries))
		}
	}
	limit, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	samples, err := n.Metrics(limit)
	if err != nil {
		return nil, err
	}
	for _, s := range samples {
		if s.Name == "regent_goroutines" {
			out["agent, goroutines"] = s.Value
		}
	}
	for what, dir := range map[string]string{"journal folder": n.JournalDir(), "raft folder": n.RaftDir()} {
		bytes, err := sizeOf(dir)
		if err != nil {
			return nil, err
		}
		out[what] = float64(bytes) / (1 << 20)
	}
	return out, nil
}

// sizeOf adds up the files below dir. Files that go away meanwhile don't count.
func sizeOf(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err == nil {
			bytes += info.Size()
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure the folder %s: %w", dir, err)
	}
	return bytes, nil
}
