package chaos

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// SoakResult is what a soak saw until it ended.
type SoakResult struct {
	// Store and Mode are words for where and how the cluster ran.
	Store, Mode string
	Seed        uint64
	TTL         time.Duration
	Began       time.Time
	Took        time.Duration
	// Strikes that count, and those that don't because the machine was too busy to watch.
	Strikes, Uncounted int
	Failovers          int
	// Acked rows of the writer, Lost those of them that are gone, each where it may be.
	Acked, Lost int
	// Lists that were judged in synchronous mode, by so many questions about them.
	Lists, Questions int
	// Longest outage, and the longest time until the cluster was whole after a fault was over.
	Longest, SlowestHeal time.Duration
	// Rate is the least looks per second at any member in any trial.
	Rate float64
	// Kinds of strikes in the order in which they first came.
	Kinds []KindResult
	// Thawed counts the frozen primaries that woke up beside another one, Window is the longest
	// time for which one of them was still seen as a primary; see Trial for the rest.
	Thawed                int
	Window                time.Duration
	StaleAcked, StaleLost int
	Usage                 []Usage
	unmeasured            error // why the latest look at the usage failed
	// Replays is a sentence for each journal.
	Replays []string
	// Trouble is why it ended early; empty when it ran to its end.
	Trouble string
}

// KindResult is what came of one kind of strike.
type KindResult struct {
	Name      string
	Strikes   int
	Failovers int
	Outages   []time.Duration
	Heal      time.Duration // the longest
	Lost      int
}

func (r *SoakResult) add(t Trial) {
	i := slices.IndexFunc(r.Kinds, func(k KindResult) bool { return k.Name == t.Strike.Fault })
	if i < 0 {
		i = len(r.Kinds)
		r.Kinds = append(r.Kinds, KindResult{Name: t.Strike.Fault})
	}
	k := &r.Kinds[i]
	outage := t.Verdict.Outage.Length()
	r.Strikes++
	k.Strikes++
	if t.FailedOver() {
		r.Failovers++
		k.Failovers++
	}
	k.Lost += len(t.Verdict.Lost)
	r.Lost += len(t.Verdict.Lost)
	r.Lists += t.Verdict.Lists
	r.Questions += t.Verdict.Questions
	k.Outages = append(k.Outages, outage)
	k.Heal, r.SlowestHeal, r.Longest = max(k.Heal, t.Healed), max(r.SlowestHeal, t.Healed), max(r.Longest, outage)
	if r.Strikes == 1 || t.Verdict.Rate < r.Rate {
		r.Rate = t.Verdict.Rate
	}
	if len(t.Strike.Freezes) > 0 && t.Strike.Node == t.Strike.Primary && t.FailedOver() {
		r.Thawed++
		r.Window = max(r.Window, t.Window)
		r.StaleAcked += t.StaleAcked
		r.StaleLost += t.StaleLost
	}
}

// verdict is the sentence about the promises, of what was counted.
func (r SoakResult) verdict() string {
	if r.Trouble != "" {
		return "ended early: " + r.Trouble
	}
	return "0 violations"
}

// Text writes the summary for a terminal.
func (r SoakResult) Text(w io.Writer) {
	if r.Strikes == 0 {
		tell(w, "\nno strike was judged in %s\n%s\n", clock(r.Took), r.verdict())
		return
	}
	tell(w, "\n%d strikes in %s, %d fail-overs", r.Strikes, clock(r.Took), r.Failovers)
	if r.Uncounted > 0 {
		tell(w, ", %d more that don't count", r.Uncounted)
	}
	tell(w, "\n%d rows acknowledged, %d lost", r.Acked, r.Lost)
	if r.Lost > 0 {
		tell(w, ", all where a primary was cut off at once (replication is asynchronous)")
	}
	if r.Lists > 0 {
		tell(w, "\n%s", r.order())
	}
	tell(w, "\nlongest outage %s; healthy again %s after a fault at the latest; each member was looked at ≥ %.0f times a second\n",
		r.Longest.Round(time.Millisecond), r.SlowestHeal.Round(100*time.Millisecond), r.Rate)
	if r.Thawed > 0 {
		tell(w, "%s\n", r.windows())
	}
	for _, u := range r.Usage {
		if u.Samples == 0 {
			tell(w, "%-24s never measured\n", u.Name)
			continue
		}
		mark := ""
		if !u.OK() {
			mark = "  OVER BUDGET"
		}
		tell(w, "%-24s at most %s, from %s to %s%s\n", u.Name, figure(u.Peak, u.Unit), figure(u.First, u.Unit), figure(u.Last, u.Unit), mark)
	}
	for _, line := range r.Replays {
		tell(w, "journal of %s\n", line)
	}
	tell(w, "%s\n", r.verdict())
}

// order is the sentence about lists, of those that were judged without a violation.
func (r SoakResult) order() string {
	return fmt.Sprintf("%d appends to and reads of %d lists, at primaries and replicas, have an order that explains every answer", r.Questions, r.Lists)
}

func (r SoakResult) windows() string {
	return fmt.Sprintf("%d frozen primaries were thawed beside their successor and were primaries for %s more at most; "+
		"clients that had stayed with them got %d rows acknowledged then, %d of which are gone",
		r.Thawed, r.Window.Round(100*time.Microsecond), r.StaleAcked, r.StaleLost)
}

// Markdown writes the figures for docs/robustness.md.
func (r SoakResult) Markdown(w io.Writer, m Machine) {
	tell(w, `Measured by `+"`make soak`"+` on %s.

* Machine: %s, %d cores, %d MB; Linux %s; load average at the start %s.
* %s, durability at its defaults; %s; Regent %s.
* Three nodes on this one machine, %s, ttl %s; %s replication; seed %d
  (%s strikes in the same order).
* A client inserts a row every 5 ms; every member's role is asked 200 times a second. Then each strike is judged.

`, r.Began.UTC().Format("2006-01-02"), m.CPU, m.Cores, m.MemoryMB, m.Kernel, m.Load, m.Postgres, m.Go, m.Regent, r.Store, r.TTL, r.Mode, r.Seed,
		fmt.Sprintf("`regent-chaos soak --seed %d`", r.Seed))
	tell(w, "**%d strikes in %s, %d fail-overs: %s.** %d rows acknowledged, %d lost", r.Strikes, clock(r.Took), r.Failovers, r.verdict(), r.Acked, r.Lost)
	if r.Lost > 0 {
		tell(w, " where a primary was cut off at once, which asynchronous replication allows")
	}
	if r.Lists > 0 {
		tell(w, ".\n%s", r.order())
	}
	tell(w, ".\nHealthy again %s after a fault was over at the latest (30 s are allowed; consequences are waited for during the lease and a\n"+
		"second, so that no figure of it is less). Longest outage %s.\n",
		r.SlowestHeal.Round(100*time.Millisecond), r.Longest.Round(time.Millisecond))
	if r.Thawed > 0 {
		tell(w, "The window that a thaw opens: %s.\n", r.windows())
	} else {
		tell(w, "No frozen primary was thawed beside a successor.\n")
	}
	tell(w, "\n| Strike | Times | Fail-overs | Outage p50 | max | Healthy after, max | Lost rows |\n|---|---|---|---|---|---|---|\n")
	for _, k := range r.Kinds {
		sorted := slices.Sorted(slices.Values(k.Outages))
		tell(w, "| %s | %d | %d | %s | %s | %s | %d |\n", k.Name, k.Strikes, k.Failovers, figure(millis(sorted[len(sorted)/2]), "ms"),
			figure(millis(sorted[len(sorted)-1]), "ms"), k.Heal.Round(100*time.Millisecond), k.Lost)
	}
	tell(w, "\n| One node uses | Budget | Peak | First quarter | Last quarter | Growth allowed | |\n|---|---|---|---|---|---|---|\n")
	for _, u := range r.Usage {
		mark := "kept"
		if !u.OK() {
			mark = "**exceeded**"
		}
		tell(w, "| %s | %s | %s | %s | %s | %s | %s |\n", u.Name, figure(u.Most, u.Unit), figure(u.Peak, u.Unit),
			figure(u.First, u.Unit), figure(u.Last, u.Unit), figure(u.Growth, u.Unit), mark)
	}
	if len(r.Usage) > 0 {
		tell(w, "\n%d samples, each the node that used most; quarters by their medians.\n", r.Usage[0].Samples)
	}
	tell(w, "\nJournals, replayed at the end:\n\n")
	for _, line := range r.Replays {
		tell(w, "* %s.\n", line)
	}
}
