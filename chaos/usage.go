package chaos

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// usage is what a node's agent and keeper use.
type usage struct {
	agentRSS, keeperRSS float64 // MB
	agentCPU, keeperCPU time.Duration
}

// usageOf looks at all nodes, in their order.
func usageOf(c *sandbox.Cluster) ([]usage, error) {
	var out []usage
	for _, n := range c.Nodes() {
		agent, ok1 := n.AgentPID()
		keeper, ok2 := n.KeeperPID()
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("look at what %s uses: agent or keeper isn't running", n.Name())
		}
		var u usage
		var err error
		if u.agentRSS, _, u.agentCPU, err = usageOfProcess(agent); err != nil {
			return nil, err
		}
		if u.keeperRSS, _, u.keeperCPU, err = usageOfProcess(keeper); err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

// clockTick is the unit of processor times in /proc, which Linux fixes for user space.
const clockTick = 10 * time.Millisecond

// usageOfProcess reads resident memory in MB (1024 · 1024 bytes), the anonymous part of it, which
// leaves out pages of files that the kernel may drop at any time, and processor time.
func usageOfProcess(pid int) (rss, anonymous float64, cpu time.Duration, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, 0, fmt.Errorf("look at what process %d uses: %w", pid, err)
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		name, kb, _ := strings.Cut(line, ":")
		of := map[string]*float64{"VmRSS": &rss, "RssAnon": &anonymous}[name]
		if of == nil {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(kb, "kB")), 64)
		if err != nil {
			return 0, 0, 0, fmt.Errorf("look at what process %d uses: %w", pid, err)
		}
		*of = value / 1024
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, 0, fmt.Errorf("look at what process %d uses: %w", pid, err)
	}
	// The name in parentheses may hold anything; user and system time are the 12th and 13th
	// fields after it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0, 0, 0, fmt.Errorf("look at what process %d uses: /proc has %d fields", pid, len(fields))
	}
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, 0, fmt.Errorf("look at what process %d uses: %w", pid, err)
		}
		cpu += time.Duration(ticks) * clockTick
	}
	return rss, anonymous, cpu, nil
}
