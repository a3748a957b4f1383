package consul

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// View implements dcs.Store.
func (s *Store) View(ctx context.Context, c dcs.Consistency) (dcs.View, error) {
	if c == dcs.Local {
		return s.localView(ctx)
	}
	if err := s.barrier(ctx, "view"); err != nil {
		return dcs.View{}, err
	}
	return s.read(ctx, "view")
}

// barrierKey never exists.
const barrierKey = "regent/barrier"

// barrier returns when an entry of the log that was written after the call began, and changes
// nothing, has been applied by whoever leads. A consistent read alone proves less: heartbeats
// vouch for it, and the answer to one may have been waiting in a buffer while the leader stood
// still (safety rule S24). A majority that writes can't be out of date.
func (s *Store) barrier(ctx context.Context, op string) error {
	if err := s.alive(ctx, op); err != nil {
		return err
	}
	ctx, cancel := s.call(ctx)
	defer cancel()
	nothing := api.TxnOps{{KV: &api.KVTxnOp{Verb: api.KVDelete, Key: s.base + barrierKey}}}
	done, answer, _, err := s.client.Txn().Txn(nothing, s.query(ctx))
	if err != nil {
		return classify(op, reads, err)
	}
	if !done {
		_, err := refusal(answer.Errors, nil)
		return err
	}
	return nil
}

// read is a consistent read of the whole prefix: the leader asks a majority whether it still
// is one before it answers. Its age is counted from before the request.
func (s *Store) read(ctx context.Context, op string) (dcs.View, error) {
	if err := s.alive(ctx, op); err != nil {
		return dcs.View{}, err
	}
	ctx, cancel := s.call(ctx)
	defer cancel()
	sent, floor := s.cfg.Now(), s.seen.floor()
	pairs, meta, err := s.client.KV().List(s.base, s.consistent(ctx))
	if err != nil {
		return dcs.View{}, classify(op, reads, err)
	}
	if err := whole(op, meta); err != nil {
		return dcs.View{}, err
	}
	v := s.viewOf(pairs, max(events.Revision(meta.LastIndex), floor))
	v.At = s.cfg.Now()
	v.Age = v.At.Sub(sent)
	s.seen.note(v.Revision)
	return v, nil
}

// localView reads as the settings say. Only who has asked the others knows how old its
// answer is: a leader that thaws takes its old state for the newest (safety rule S24).
func (s *Store) localView(ctx context.Context) (dcs.View, error) {
	if s.cfg.Consistency != "stale" {
		return s.read(ctx, "local view")
	}
	if err := s.alive(ctx, "local view"); err != nil {
		return dcs.View{}, err
	}
	ctx, cancel := s.call(ctx)
	defer cancel()
	q := s.query(ctx)
	q.AllowStale = true
	pairs, meta, err := s.client.KV().List(s.base, q)
	if err != nil {
		return dcs.View{}, classify("local view", reads, err)
	}
	if err := whole("local view", meta); err != nil {
		return dcs.View{}, err
	}
	v := s.viewOf(pairs, events.Revision(meta.LastIndex))
	v.At, v.Age = s.cfg.Now(), -1
	return v, nil
}

// whole refuses an answer from which the token's rights have taken keys: what looks like a
// cluster that nobody has made yet may be one that this member may not see.
func whole(op string, meta *api.QueryMeta) error {
	if meta.ResultsFilteredByACLs {
		return book.On(fmt.Errorf("%s: %w: the token may not read all keys of the cluster", op, dcs.ErrBroken))
	}
	return nil
}

// viewOf translates what a read of the whole prefix returned.
func (s *Store) viewOf(pairs api.KVPairs, rev events.Revision) dcs.View {
	v := dcs.View{Revision: rev, KVs: make([]dcs.KV, 0, len(pairs))}
	for _, p := range pairs {
		key := strings.TrimPrefix(p.Key, s.base)
		if key == "" || strings.HasSuffix(key, "/") {
			continue // a folder, as Consul's web page makes them
		}
		v.KVs = append(v.KVs, dcs.KV{
			Key: key, Value: p.Value, Lease: events.LeaseID(p.Session),
			Created: events.Revision(p.CreateIndex), Version: events.Revision(p.ModifyIndex),
		})
	}
	sort.Slice(v.KVs, func(i, j int) bool { return v.KVs[i].Key < v.KVs[j].Key })
	return v
}

const (
	// watchFor is how long a blocking query waits for a change. A follower whose leader is
	// gone may not notice before that, so it bounds how long a watch can be deaf.
	watchFor = 5 * time.Second
	// watchGrace is what servers add to it (a sixteenth, at random) and the way back.
	watchGrace = 3 * time.Second
	// Pauses after a watch's failed request: doubled from the first to the last.
	firstPause, lastPause = 10 * time.Millisecond, time.Second
)

// Watch implements dcs.Store: blocking queries on the whole prefix, each consistent unless
// the settings say stale, so that each view is as fresh as the change that woke it.
func (s *Store) Watch(ctx context.Context) (<-chan dcs.View, error) {
	if err := s.alive(ctx, "watch"); err != nil {
		return nil, err
	}
	out := make(chan dcs.View)
	w := &watch{store: s, news: make(chan dcs.View, 1)}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	started := s.run.Start(func() {
		defer close(out)
		defer cancel()
		defer stop()
		w.feed(ctx, out)
	})
	if !started {
		cancel()
		return nil, s.alive(s.life, "watch")
	}
	return out, nil
}

// watch is one caller's Watch.
type watch struct {
	store *Store
	// news holds the newest view that the caller hasn't taken yet.
	news chan dcs.View
}

// feed asks in the background and hands over what is newest, until ctx ends.
func (w *watch) feed(ctx context.Context, out chan<- dcs.View) {
	asking := make(chan struct{})
	go func() {
		defer close(asking)
		w.ask(ctx)
	}()
	defer func() { <-asking }()
	for {
		select {
		case <-ctx.Done():
			return
		case v := <-w.news:
			for sent := false; !sent; {
				select {
				case <-ctx.Done():
					return
				case v = <-w.news: // a newer one, before anybody took this
				case out <- v:
					sent = true
				}
			}
		}
	}
}

// ask repeats blocking queries. What a broken one missed is in the next one's answer, which
// is whole.
func (w *watch) ask(ctx context.Context) {
	var (
		index uint64
		last  events.Revision
		pause = firstPause
	)
	for ctx.Err() == nil {
		v, raw, err := w.once(ctx, index)
		if err != nil {
			if ctx.Err() == nil {
				w.store.cfg.Log.Debug("the watch is interrupted", "err", err)
			}
			rest(ctx, pause)
			pause, index = min(2*pause, lastPause), 0
			continue
		}
		pause = firstPause
		if raw == index {
			continue // nothing has happened for as long as the query waits
		}
		// An index that went back: the servers have forgotten deleted keys, or were restored.
		// The next query then begins from this answer, as a first one would.
		index = raw
		if v.Revision >= last {
			last = v.Revision
			w.offer(v)
		}
	}
}

// once makes one query, which answers at once when index is zero or past.
func (w *watch) once(ctx context.Context, index uint64) (dcs.View, uint64, error) {
	s := w.store
	ctx, cancel := s.callFor(ctx, watchFor+watchFor/16+watchGrace)
	defer cancel()
	stale := s.cfg.Consistency == "stale"
	q := s.query(ctx)
	q.RequireConsistent, q.AllowStale, q.WaitIndex, q.WaitTime = !stale, stale, index, watchFor
	sent, floor := s.cfg.Now(), s.seen.floor()
	pairs, meta, err := s.client.KV().List(s.base, q)
	if err != nil {
		return dcs.View{}, 0, classify("watch", reads, err)
	}
	if err := whole("watch", meta); err != nil {
		return dcs.View{}, 0, err
	}
	v := dcs.View{}
	switch {
	case stale:
		v = s.viewOf(pairs, events.Revision(meta.LastIndex))
		v.At, v.Age = s.cfg.Now(), -1
	default:
		v = s.viewOf(pairs, max(events.Revision(meta.LastIndex), floor))
		// A change wakes the server, which asks the others before it answers; so the answer
		// was true when it left. One that came at once may be as old as the question.
		if v.At = s.cfg.Now(); index == 0 || meta.LastIndex <= index {
			v.Age = v.At.Sub(sent)
		}
		s.seen.note(v.Revision)
	}
	// Never zero, which would mean a query that doesn't wait.
	return v, max(meta.LastIndex, 1), nil
}

// offer leaves v for the caller, in the place of what it hasn't taken. There is one offerer.
func (w *watch) offer(v dcs.View) {
	select {
	case <-w.news:
	default:
	}
	w.news <- v
}

// rest waits for d or for the end of ctx.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
