package live

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/replay"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/workload"
)

// Outcome is how a row ended.
type Outcome string

// The outcomes. All but the first are failures.
const (
	Kept   Outcome = "kept"
	Broken Outcome = "broken"
	NotRun Outcome = "not run"
)

// Result is what came of a row on a store. Times are in nanoseconds in JSON.
type Result struct {
	Row     string            `json:"row"`
	Script  string            `json:"script"`
	Store   sandbox.StoreKind `json:"store"`
	Program sandbox.Program   `json:"program"`
	Fencing string            `json:"fencing"`
	TTL     time.Duration     `json:"ttl"`
	Outcome Outcome           `json:"outcome"`
	// Why are the violations, or why it couldn't run.
	Why []string `json:"why,omitempty"`

	// Outage is from the last acknowledged insert to the next, Two the time with two primaries,
	// Streaming the time until all members streamed for good. They are valid unless it wasn't run.
	Outage    time.Duration `json:"outage"`
	Lost      int           `json:"lost"`
	Failed    int           `json:"failed_writes"`
	Two       time.Duration `json:"two_primaries"`
	Streaming time.Duration `json:"streaming_again"`
	// Window is for how long a thawed primary went on, at most.
	Window time.Duration `json:"thaw_window,omitempty"`
	// Lists were judged, by so many questions; only in synchronous mode.
	Lists     int `json:"lists,omitempty"`
	Questions int `json:"questions,omitempty"`
	// Rate is how often per second each member was looked at, at least.
	Rate float64 `json:"looks_per_second"`
	// Decisions are how many were recomputed from the journals.
	Decisions int           `json:"decisions_replayed"`
	Tries     int           `json:"tries"`
	Took      time.Duration `json:"took"`
	Folder    string        `json:"folder,omitempty"` // what was kept
}

func (l *lab) result(s *Script) Result {
	return Result{Row: s.Row, Script: s.Name, Store: l.key.store, Program: l.key.program, Fencing: s.Fencing, TTL: l.opt.TTL, Outcome: NotRun}
}

// maxTries is how often a row is replayed that this machine was too busy to watch.
const maxTries = 3

// row replays a script until somebody can vouch for what came of it.
func (l *lab) row(ctx context.Context, s *Script) Result {
	began := time.Now()
	for try := 1; ; try++ {
		result, blind := l.try(ctx, s)
		result.Tries, result.Took = try, time.Since(began)
		if !blind || try == maxTries {
			return result
		}
	}
}

// try replays it once. blind: nothing was found, and the watcher looked too seldom to vouch for that.
func (l *lab) try(ctx context.Context, s *Script) (_ Result, blind bool) {
	result := l.result(s)
	for _, need := range s.needs() {
		if err := l.lacks(need); err != nil {
			result.Why = []string{err.Error()}
			return result, false
		}
	}
	r := newRun(l, s)
	if err := r.settle(ctx); err != nil {
		result.Why = []string{fmt.Sprintf("before it began: %v", err)}
		return result, false
	}
	r.play(ctx)
	if ctx.Err() != nil {
		result.Why = []string{fmt.Sprintf("interrupted: %v", context.Cause(ctx))}
		return result, false
	}
	e := r.evidence(ctx)
	result.Decisions = r.journals(&e)
	v := judge.Judge(e)
	l.forget(v)
	result.take(v, e)
	if v.Inconclusive() {
		result.Outcome = NotRun
	}
	if v.OK() || v.Inconclusive() {
		if err := r.takeBack(ctx); err != nil {
			result.Outcome, result.Why = Broken, []string{fmt.Sprintf("taking its settings back: %v", err)}
			return result, false
		}
	}
	return result, v.Inconclusive()
}

func (res *Result) take(v judge.Verdict, e judge.Evidence) {
	res.Outcome = Kept
	if !v.OK() {
		res.Outcome = Broken
	}
	for _, x := range v.Violations {
		res.Why = append(res.Why, x.String())
	}
	res.Outage, res.Lost, res.Failed, res.Two = v.Outage.Length(), len(v.Lost), e.FailedWrites, v.Two
	res.Streaming, res.Rate, res.Lists, res.Questions = e.Streaming, v.Rate, v.Lists, v.Questions
	for _, w := range v.Windows {
		res.Window = max(res.Window, w.Length)
	}
}

// takeBack removes the settings that the script had.
func (r *run) takeBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	var errs []error
	for _, setting := range r.script.Settings {
		name, _, _ := strings.Cut(setting, "=")
		errs = append(errs, r.set(ctx, name+"=null"))
	}
	return errors.Join(errs...)
}

// evidence is what was seen.
func (r *run) evidence(ctx context.Context) judge.Evidence {
	a := r.lab.arena
	e := judge.Evidence{
		Fault: "row " + r.script.Row, From: r.from, To: r.now(), Freezes: r.freezes,
		WatcherSpans: a.Watcher.Spans(), WriterSpans: a.Writer.Spans(), Writes: a.Writer.Log(),
		LostBefore: r.lab.lost, MinRate: minRate, MayLose: r.mayLose && !r.script.Synchronous(),
		MayBeTwo: r.mayBeTwo, Bounds: r.bounds, Broken: r.broken, Noticed: map[string]time.Duration{},
	}
	if since := time.Duration(r.streamed.Load()); since > 0 {
		e.Streaming = since - r.from
	} else {
		e.Trouble = "not all members stream"
	}
	for _, n := range r.lab.cluster.Nodes() {
		e.Members = append(e.Members, n.Name())
	}
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	var err error
	if e.Present, err = workload.Rows(ctx, r.lab.cluster.DSN(), workload.Table); err != nil {
		e.Unread = true
		e.Broken = append(e.Broken, err.Error())
	}
	if e.Others, err = r.lab.testimonies(ctx); err != nil {
		e.Broken = append(e.Broken, err.Error())
	}
	if r.lists != nil {
		if e.Lists, err = r.lists.All(ctx); err != nil {
			e.Broken = append(e.Broken, err.Error())
		}
	}
	// What was written while the rows were read is no row from nowhere.
	e.Writes.Next = a.Writer.Log().Next
	e.FailedWrites = len(a.Writer.Log().Unknown) - r.unknown
	return e
}

// journals replays what the members wrote down, checks what must hold at each of their steps
// since the story began, and takes from them who reigned and when an end was noticed. It returns
// how many decisions were recomputed.
func (r *run) journals(e *judge.Evidence) (decisions int) {
	if r.lab.key.program == sandbox.Patroni {
		return 0 // it has none
	}
	for _, n := range r.lab.cluster.Nodes() {
		reigns := map[uint32]bool{}
		report, err := replay.CheckEach(n.JournalDir(), replay.AnyProgram, func(before, after fsm.State, d fsm.Decision) {
			if after.Wall < r.began.UnixNano() {
				return
			}
			for _, bad := range fsm.Violations(before, after, d) {
				e.Broken = append(e.Broken, fmt.Sprintf("the journal of %s, record %d: %s", n.Name(), d.Seq, bad))
			}
			if pg := after.Postgres; pg.Known && pg.State.Ready && !pg.State.InRecovery && pg.State.Timeline > 0 {
				reigns[uint32(pg.State.Timeline)] = true
			}
		})
		switch {
		case err != nil:
			e.Broken = append(e.Broken, fmt.Sprintf("replay the journal of %s: %v", n.Name(), err))
		case report.Compared == 0:
			e.Broken = append(e.Broken, fmt.Sprintf("replay the journal of %s: it holds no decision to compare", n.Name()))
		}
		decisions += report.Compared
		for timeline := range reigns {
			e.Reigns = append(e.Reigns, judge.Reign{Node: n.Name(), Timeline: timeline})
		}
		if at, was := r.downAt[n.Name()]; was {
			if noticed, ok := firstDown(n.JournalDir(), at); ok {
				e.Noticed[n.Name()] = noticed
			}
		}
	}
	return decisions
}

// beforeTheEnd is how much sooner than the harness an agent may see the end of a server.
const beforeTheEnd = time.Second

// firstDown is how long after a server's end its agent journaled that.
func firstDown(dir string, end time.Time) (time.Duration, bool) {
	for entry, err := range journal.Read(dir) {
		if err != nil || entry.Kind != "PostgresDown" {
			continue
		}
		if at := time.Unix(0, entry.Wall); at.After(end.Add(-beforeTheEnd)) {
			return max(0, at.Sub(end)), true
		}
	}
	return 0, false
}
