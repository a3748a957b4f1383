package live

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgregent/regent/chaos/judge"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/workload"
)

// witness is a writer on a member's own host. It is cut off with the host, and goes on there: what
// a primary acknowledges that nobody else can reach is seen by it alone.
type witness struct {
	who    string
	table  string
	writer *workload.Writer
	lost   []int64 // rows that went missing in earlier rows, sorted
}

// How often a witness writes. Together they are a part of the load, and not most of it.
const (
	ownEvery  = 20 * time.Millisecond
	anyEvery  = 50 * time.Millisecond
	anyPause  = 100 * time.Millisecond
	tableName = workload.Table + "_%s_%s"
)

// stand puts two writers on every member's host: one knows only the member's own PostgreSQL, the
// other the DSN with all members.
func (l *lab) stand() {
	for _, n := range l.cluster.Nodes() {
		own := workload.WriterConfig{DSN: n.DSN(), Own: true, Every: ownEvery, Pause: anyPause}
		all := workload.WriterConfig{DSN: l.cluster.DSN(), Every: anyEvery, Pause: anyPause}
		l.witness("own", n, own)
		l.witness("any", n, all)
	}
}

func (l *lab) witness(kind string, n *sandbox.Node, cfg workload.WriterConfig) {
	cfg.Table = fmt.Sprintf(tableName, n.Name(), kind)
	cfg.Nodes, cfg.Origin = l.cluster.PortNames(), l.arena.Origin
	if l.site != nil {
		cfg.Dial = l.site.Host(n.Name()).DialContext
	}
	l.witnesses = append(l.witnesses, &witness{
		who: fmt.Sprintf("on the host of %s (%s)", n.Name(), kind), table: cfg.Table, writer: workload.NewWriter(cfg),
	})
}

// testify runs the witnesses until ctx ends.
func (l *lab) testify(ctx context.Context) error {
	var all sync.WaitGroup
	for _, w := range l.witnesses {
		all.Go(func() { _ = w.writer.Run(ctx) }) // it ends with ctx, and tells no error then
	}
	all.Wait()
	return nil
}

// testimonies are what the witnesses know, and what is left of their rows.
func (l *lab) testimonies(ctx context.Context) (out []judge.Testimony, err error) {
	for _, w := range l.witnesses {
		t := judge.Testimony{Who: w.who, Writes: w.writer.Log(), Spans: w.writer.Spans(), LostBefore: w.lost}
		if t.Present, err = workload.Rows(ctx, l.cluster.DSN(), w.table); err != nil {
			return nil, fmt.Errorf("the rows of the writer %s: %w", w.who, err)
		}
		t.Writes.Next = w.writer.Log().Next // what was written meanwhile is no row from nowhere
		out = append(out, t)
	}
	return out, nil
}

// forget notes what a row lost, so that no later one is blamed for it.
func (l *lab) forget(v judge.Verdict) {
	note := func(lost []int64, seq int64) []int64 {
		lost = append(lost, seq)
		slices.Sort(lost)
		return lost
	}
	for _, a := range v.Lost {
		l.lost = note(l.lost, a.Seq)
	}
	for _, w := range l.witnesses {
		for _, a := range v.LostOf[w.who] {
			w.lost = note(w.lost, a.Seq)
		}
	}
}
