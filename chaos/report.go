package chaos

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Machine is where something was measured.
type Machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	MemoryMB int    `json:"memory_mb"`
	Kernel   string `json:"kernel"`
	Postgres string `json:"postgres"`
	Go       string `json:"go"`
	Regent   string `json:"regent"`
	Load     string `json:"load_average"`
}

// ThisMachine describes the running one. What can't be read is left empty.
func ThisMachine(postgres, regent string) Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Postgres: postgres, Regent: regent}
	m.CPU = procValue("/proc/cpuinfo", "model name")
	if kb, err := strconv.Atoi(strings.TrimSuffix(procValue("/proc/meminfo", "MemTotal"), " kB")); err == nil {
		m.MemoryMB = kb / 1024
	}
	m.Kernel = firstFields("/proc/sys/kernel/osrelease", 1)
	m.Load = firstFields("/proc/loadavg", 3)
	return m
}

func procValue(file, key string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.SplitSeq(string(content), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstFields(file string, n int) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(content))
	return strings.Join(fields[:min(n, len(fields))], " ")
}

// Report is a bench as it is written down.
type Report struct {
	Machine Machine       `json:"machine"`
	Runs    int           `json:"runs"`
	TTL     time.Duration `json:"ttl"`
	Lines   []Line        `json:"lines"`
}

// Markdown writes the report as docs/performance.md.
func (r Report) Markdown(w io.Writer) {
	m := r.Machine
	tell(w, `# Performance

Measured by `+"`make bench`"+`, which rewrites this file. Nothing here is pinned by a test: a figure depends on the
machine, and a test that fails on a busy one teaches nobody anything.

* Machine: %s, %d cores, %d MB; Linux %s; load average at the start %s.
* PostgreSQL: %s, durability at its defaults, 32 MB of shared buffers, loopback; %s; Regent %s.
* Cluster: three nodes on this one machine, embedded store; ttl %s, loop_wait 1 s, retry_timeout 1 s where a line says
  nothing else (ttl 30: loop_wait 10 s, retry_timeout 10 s).
* Outage: the longest time between two acknowledged inserts of a client that writes every 5 ms to whichever of the three
  hosts takes writes. Loss: rows that were acknowledged and are gone when the cluster is whole again. Every member's role is
  asked 200 times a second meanwhile, which costs time on a small machine.
* p50 is the upper median of the runs. Load is the machine's load average over a minute when the line was measured, without
  load of others about 2: a figure with much more was disturbed.
* Floor: what bare PostgreSQL takes for the same on this machine in this run, without an agent: two servers under the same
  writer and watcher, driven by somebody who knows beforehand what is going to happen. Nothing can be faster.

| What | Goal | p50 | max | | Floor, p50 | × | Further goal | | Runs | Lost rows | Load |
|---|---|---|---|---|---|---|---|---|---|---|---|
`, m.CPU, m.Cores, m.MemoryMB, m.Kernel, m.Load, m.Postgres, m.Go, m.Regent, r.TTL)
	for _, l := range r.Lines {
		floor, times, further := l.furtherColumns()
		tell(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %d | %d | %.1f |\n", l.Name, l.Goal, figure(l.P50, l.Unit), figure(l.Max, l.Unit),
			l.mark(), floor, times, l.Further, further, len(l.Values), l.Lost, l.Load)
	}
	tell(w, "\nNotes:\n\n")
	for _, l := range r.Lines {
		for _, n := range l.Notes {
			tell(w, "* %s: %s.\n", l.Name, n)
		}
		for _, b := range l.Broken {
			tell(w, "* %s: %s.\n", l.Name, b)
		}
	}
}

// mark says whether the goal was met.
func (l Line) mark() string {
	switch {
	case len(l.Broken) > 0:
		return "**promise broken**"
	case !l.Met():
		return "**missed**"
	case strings.HasPrefix(l.Goal, "("):
		return "" // it isn't a goal
	default:
		return "met"
	}
}

// furtherColumns are the floor, how often it fits in, and whether the further goal was met.
func (l Line) furtherColumns() (floor, times, further string) {
	if l.Floor > 0 {
		floor, times = figure(l.Floor, l.Unit), fmt.Sprintf("%.1f", l.P50/l.Floor)
	}
	if l.FurtherLimit > 0 {
		further = map[bool]string{true: "met", false: "**missed**"}[l.MetFurther()]
	}
	return floor, times, further
}

// Text writes the lines for a terminal.
func (r Report) Text(w io.Writer) {
	tell(w, "\n%-52s %-34s %14s %14s %10s %5s %5s %5s %5s\n", "", "goal", "p50", "max", "floor", "×", "runs", "lost", "load")
	for _, l := range r.Lines {
		mark := ""
		floor, times, _ := l.furtherColumns()
		switch {
		case !l.Met():
			mark = "  MISSED"
		case !l.MetFurther():
			mark = "  MISSED " + l.Further
		}
		tell(w, "%-52s %-34s %14s %14s %10s %5s %5d %5d %5.1f%s\n", l.Name, l.Goal, figure(l.P50, l.Unit), figure(l.Max, l.Unit),
			floor, times, len(l.Values), l.Lost, l.Load, mark)
	}
}

func figure(v float64, unit string) string {
	switch {
	case unit == "ms" && v >= 10_000:
		return fmt.Sprintf("%.1f s", v/1000)
	case unit == "ms":
		return fmt.Sprintf("%.0f ms", v)
	case unit == "MB":
		return fmt.Sprintf("%.1f MB", v)
	case unit == "":
		return fmt.Sprintf("%.0f", v)
	default:
		return fmt.Sprintf("%.2f %s", v, unit)
	}
}
