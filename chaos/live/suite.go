package live

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/pgregent/regent/chaos"
	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/internal/sandbox"
)

// Options say which rows are replayed, and where.
type Options struct {
	// Dir is the folder in which clusters get theirs; its path must be short.
	Dir string
	// Bin holds regent and regent-keeper, PGBin PostgreSQL's programs.
	Bin, PGBin string
	// Programs are the stores' servers, by kind.
	Programs map[sandbox.StoreKind]string
	// Row, Fencing and Stores choose; empty: all.
	Row, Fencing string
	Stores       []sandbox.StoreKind
	// Rotate replays each row on one store only, chosen by Rotation and the row's place: all rows
	// and all stores are touched, and the next rotation touches other pairs.
	Rotate   bool
	Rotation int
	// Pace is which timings the clusters have. Beside Patroni each row is replayed on etcd by Regent
	// and by Patroni, whose program that is.
	Pace    Pace
	Patroni string
	// Earlier is a report whose kept rows are taken over: only the others are replayed.
	Earlier *Report
	// Budget is for all of it; rows that it leaves no time for fail. Zero: no limit.
	Budget time.Duration
	// Keep leaves the folder of every cluster; otherwise only that of one with a broken row.
	Keep bool
	// Out receives a line for each row.
	Out io.Writer
}

// Report is what came of all rows.
type Report struct {
	Began   time.Time     `json:"began"`
	Took    time.Duration `json:"took"`
	Machine chaos.Machine `json:"machine"`
	Rotated bool          `json:"one_store_a_row"`
	Pace    Pace          `json:"pace,omitempty"`
	// Again are how many of the rows were replayed after an earlier run in which they failed.
	Again   int      `json:"again,omitempty"`
	Results []Result `json:"results"`
}

// Failed are the results that aren't kept.
func (r Report) Failed() []Result {
	return slices.DeleteFunc(slices.Clone(r.Results), func(x Result) bool { return x.Outcome == Kept })
}

// pair is a row on a store.
type pair struct {
	script *Script
	key    labKey
}

// share is how often a store's turn comes when each row has one store: the slower the leases, the
// seldomer.
var share = []sandbox.StoreKind{
	sandbox.RaftStore, sandbox.Etcd3Store, sandbox.RaftStore, sandbox.RaftStore, sandbox.Etcd3Store, sandbox.RaftStore, sandbox.RaftStore,
	sandbox.Etcd3Store, sandbox.RaftStore, sandbox.RaftStore, sandbox.Etcd3Store, sandbox.RaftStore, sandbox.ConsulStore,
}

// plan lists the pairs, those that can share a cluster beside each other.
func (o Options) plan(scripts []*Script) []pair {
	out := o.chosen(scripts)
	if o.Pace == Beside {
		out = o.both(scripts)
	}
	order := func(p pair) int { // the cluster that most rows can have comes first
		at := 8 * slices.Index(sandbox.StoreKinds(), p.key.store)
		if p.key.program == sandbox.Patroni {
			at += 8 * len(sandbox.StoreKinds())
		}
		if p.key.fencing != "keeper" {
			at++
		}
		if p.key.servers > 1 {
			at += 2
		}
		if p.key.disks {
			at += 4
		}
		return at
	}
	slices.SortStableFunc(out, func(a, b pair) int { return order(a) - order(b) })
	return out
}

// chosen lists the rows with their stores.
func (o Options) chosen(scripts []*Script) []pair {
	var out []pair
	for i, s := range scripts {
		if o.Row != "" && o.Row != s.Row && o.Row != s.Name || o.Fencing != "" && o.Fencing != s.Fencing {
			continue
		}
		stores := s.Stores
		if o.Rotate {
			turn := share[(i+o.Rotation)%len(share)]
			if !slices.Contains(stores, turn) {
				turn = stores[(i+o.Rotation)%len(stores)]
			}
			stores = []sandbox.StoreKind{turn}
		}
		for _, k := range stores {
			if len(o.Stores) == 0 || slices.Contains(o.Stores, k) {
				out = append(out, pair{s, s.labOn(k)})
			}
		}
	}
	return out
}

// Run replays the rows. The report holds one result for every row that was chosen, whatever came;
// the error is about the judge, the scripts and the choice, not about the rows.
func Run(ctx context.Context, o Options) (Report, error) {
	report := Report{Began: time.Now(), Rotated: o.Rotate, Pace: o.Pace}
	if err := judge.SelfTest(); err != nil {
		return report, fmt.Errorf("the judge fails its self-test: %w", err)
	}
	scripts, err := Scripts()
	if err != nil {
		return report, err
	}
	pairs := o.plan(scripts)
	if len(pairs) == 0 {
		return report, fmt.Errorf("no script is chosen by row %q, fencing %q and stores %v", o.Row, o.Fencing, o.Stores)
	}
	w := walker{o: o}
	for _, p := range pairs {
		if kept, ok := o.kept(p); ok {
			report.Results = append(report.Results, kept)
			continue
		}
		if o.Earlier != nil {
			report.Again++
		}
		result := w.replay(ctx, p, report.Began)
		report.Results = append(report.Results, result)
		result.line(o.Out)
	}
	err = w.leave(o.Keep)
	report.Took = time.Since(report.Began)
	return report, err
}

// kept is what an earlier run kept of a row.
func (o Options) kept(p pair) (Result, bool) {
	if o.Earlier == nil {
		return Result{}, false
	}
	i := slices.IndexFunc(o.Earlier.Results, func(x Result) bool {
		return x.Script == p.script.Name && x.Store == p.key.store && x.Program == p.key.program && x.Outcome == Kept
	})
	if i < 0 {
		return Result{}, false
	}
	return o.Earlier.Results[i], true
}

// walker goes from row to row, and from cluster to cluster where it must.
type walker struct {
	o    Options
	lab  *lab
	dir  string
	labs int
}

func (w *walker) replay(ctx context.Context, p pair, began time.Time) Result {
	none := (&lab{key: p.key}).result(p.script)
	none.TTL, _, _ = w.o.Pace.Timings(p.key.store)
	if ctx.Err() != nil {
		none.Why = []string{fmt.Sprintf("interrupted: %v", context.Cause(ctx))}
		return none
	}
	if w.o.Budget > 0 && time.Since(began) > w.o.Budget {
		none.Why = []string{fmt.Sprintf("there was no time left of %s", w.o.Budget)}
		return none
	}
	if err := w.enter(ctx, p.key); err != nil {
		none.Why = []string{fmt.Sprintf("make a cluster on %s: %v", p.key.store, err), fmt.Sprint(w.leave(w.o.Keep))}
		return none
	}
	result := w.lab.row(ctx, p.script)
	if result.Outcome == Kept && !w.o.Keep {
		return result
	}
	// Nobody knows what a broken row left: the next one gets another cluster. One that merely lacked
	// something has touched nothing.
	if result.Outcome == Broken || result.Tries > 1 {
		result.Folder = w.dir
		if err := w.leave(true); err != nil {
			result.Why = append(result.Why, err.Error())
		}
	}
	return result
}

// enter makes sure that there is a cluster for the rows of that key.
func (w *walker) enter(ctx context.Context, key labKey) (err error) {
	if w.lab != nil && w.lab.key == key {
		return nil
	}
	if err := w.leave(w.o.Keep); err != nil {
		return err
	}
	w.labs++
	w.dir = filepath.Join(w.o.Dir, fmt.Sprintf("l%d", w.labs))
	w.lab, err = newLab(ctx, key, w.o, w.dir)
	return err
}

// leave ends the cluster that there is, and keeps its folder if that is wanted.
func (w *walker) leave(keep bool) error {
	if w.lab == nil {
		return nil
	}
	err := w.lab.close(keep)
	w.lab = nil
	return err
}
