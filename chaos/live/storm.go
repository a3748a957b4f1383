package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/internal/sandbox"
)

// StormOptions say how long a storm goes on, and where. The first limit that is reached ends it.
type StormOptions struct {
	// Options name programs and folders; what chooses rows isn't looked at.
	Options
	Store sandbox.StoreKind
	// Sync: synchronous mode, in which nothing acknowledged may be lost, whatever comes.
	Sync bool
	// Seed decides the faults. Gust is the first one's number, Gusts how many there are, For how
	// long they may begin; zero: no limit.
	Seed        uint64
	Gust, Gusts uint64
	For         time.Duration
}

// StormResult is what came of a storm, gust by gust.
type StormResult struct {
	Seed    uint64            `json:"seed"`
	Store   sandbox.StoreKind `json:"store"`
	Sync    bool              `json:"synchronous"`
	TTL     time.Duration     `json:"ttl"`
	Began   time.Time         `json:"began"`
	Took    time.Duration     `json:"took"`
	Results []Result          `json:"gusts"`
	// Script is that of the gust that broke a promise; empty: none did.
	Script string `json:"script,omitempty"`
}

// maxUnwatched is how many gusts may go uncounted because the machine was too busy to watch them.
const maxUnwatched = 5

// Storm plays random scripts of the same vocabulary, one after the other on one cluster, until
// its limits or the first broken promise. The result is valid whatever the error is, and the
// error is not about broken promises: they are in the result.
func Storm(ctx context.Context, o StormOptions) (result StormResult, err error) {
	result = StormResult{Seed: o.Seed, Store: o.Store, Sync: o.Sync, Began: time.Now()}
	if err := judge.SelfTest(); err != nil {
		return result, fmt.Errorf("the judge fails its self-test: %w", err)
	}
	result.TTL, _, _ = o.Pace.Timings(o.Store)
	w := walker{o: o.Options}
	defer func() {
		err = errors.Join(err, w.leave(o.Keep))
		result.Took = time.Since(result.Began)
	}()
	key := labKey{store: o.Store, program: sandbox.Regent, fencing: "keeper"}
	if o.Store != sandbox.RaftStore {
		key.servers = 3
	}
	if err := w.enter(ctx, key); err != nil {
		return result, err
	}
	o.lacking(w.lab)
	unwatched := 0
	for n := max(o.Gust, 1); ; n++ {
		if done := n - max(o.Gust, 1); o.Gusts > 0 && done >= o.Gusts || o.For > 0 && time.Since(result.Began) >= o.For {
			return result, nil
		}
		if err := w.enter(ctx, key); err != nil {
			return result, err
		}
		text := gust(o.Seed, n, o.Store, o.Sync, w.lab.lacks)
		script, err := Parse(fmt.Sprintf("gust-%d", n), text)
		if err != nil {
			return result, fmt.Errorf("a gust is no script: %w", err)
		}
		r := w.replay(ctx, pair{script, key}, result.Began)
		if ctx.Err() != nil {
			return result, fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
		r.line(o.Out)
		for _, s := range script.Steps {
			if s.Kind == Do {
				tell(o.Out, "         %s\n", s.Text)
			}
		}
		result.Results = append(result.Results, r)
		switch r.Outcome {
		case Broken:
			result.Script = text
			return result, keepScript(r.Folder, text)
		case NotRun:
			if unwatched++; unwatched > maxUnwatched {
				return result, fmt.Errorf("this machine is too busy to watch: %v", r.Why)
			}
		}
	}
}

// lacking says which faults this storm is without.
func (o StormOptions) lacking(l *lab) {
	if err := l.lacks(Cables); err != nil {
		tell(o.Out, "no cables are cut in this storm: %v\n", err)
	}
}

func keepScript(dir, text string) error {
	if dir == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, "gust.txt"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("keep the gust's script: %w", err)
	}
	return nil
}

// Text is the summary.
func (r StormResult) Text(w io.Writer) {
	kept := slices.DeleteFunc(slices.Clone(r.Results), func(x Result) bool { return x.Outcome != Kept })
	if len(kept) == 0 {
		tell(w, "\nno gust was judged in %s\n", short(r.Took))
		return
	}
	var outages []time.Duration
	var streaming, window time.Duration
	lost, decisions := 0, 0
	for _, x := range kept {
		outages = append(outages, x.Outage)
		streaming, window, lost, decisions = max(streaming, x.Streaming), max(window, x.Window), lost+x.Lost, decisions+x.Decisions
	}
	slices.Sort(outages)
	mode := "asynchronous"
	if r.Sync {
		mode = "synchronous"
	}
	tell(w, "\n%d gusts in %s on %s, ttl %s, %s, seed %d: %d kept, %d not watched well enough, %d broken\n", len(r.Results), short(r.Took), r.Store,
		r.TTL, mode, r.Seed, len(kept), having(r.Results, NotRun), having(r.Results, Broken))
	tell(w, "outage p50 %s, max %s; all streamed after %s at the latest; %d acknowledged rows lost; a thawed primary went on for %s at most\n",
		short(outages[len(outages)/2]), short(outages[len(outages)-1]), short(streaming), lost, short(window))
	if r.Script != "" {
		tell(w, "\nThe broken gust:\n\n%s\n", r.Script)
	}
}

func having(results []Result, o Outcome) (n int) {
	for _, r := range results {
		if r.Outcome == o {
			n++
		}
	}
	return n
}
