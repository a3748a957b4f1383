package dcstest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// liar is a store that does otherwise where a function is set.
type liar struct {
	dcs.Store
	view   func(ctx context.Context, c dcs.Consistency) (dcs.View, error)
	watch  func(ctx context.Context) (<-chan dcs.View, error)
	commit func(ctx context.Context, t dcs.Txn) (events.Revision, error)
	grant  func(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error)
	renew  func(ctx context.Context, id events.LeaseID) (dcs.Lease, error)
	revoke func(ctx context.Context, id events.LeaseID) error
	close  func() error
}

func (l *liar) View(ctx context.Context, c dcs.Consistency) (dcs.View, error) {
	if l.view != nil {
		return l.view(ctx, c)
	}
	return l.Store.View(ctx, c)
}

func (l *liar) Watch(ctx context.Context) (<-chan dcs.View, error) {
	if l.watch != nil {
		return l.watch(ctx)
	}
	return l.Store.Watch(ctx)
}

func (l *liar) Commit(ctx context.Context, t dcs.Txn) (events.Revision, error) {
	if l.commit != nil {
		return l.commit(ctx, t)
	}
	return l.Store.Commit(ctx, t)
}

func (l *liar) Grant(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
	if l.grant != nil {
		return l.grant(ctx, id, ttl)
	}
	return l.Store.Grant(ctx, id, ttl)
}

func (l *liar) Renew(ctx context.Context, id events.LeaseID) (dcs.Lease, error) {
	if l.renew != nil {
		return l.renew(ctx, id)
	}
	return l.Store.Renew(ctx, id)
}

func (l *liar) Revoke(ctx context.Context, id events.LeaseID) error {
	if l.revoke != nil {
		return l.revoke(ctx, id)
	}
	return l.Store.Revoke(ctx, id)
}

func (l *liar) Close() error {
	if l.close != nil {
		return l.close()
	}
	return l.Store.Close()
}

// passing returns a watch that hands on what change makes of each view, in order; views for
// which it says false are left out.
func (l *liar) passing(change func(dcs.View) (dcs.View, bool)) func(context.Context) (<-chan dcs.View, error) {
	return func(ctx context.Context) (<-chan dcs.View, error) {
		in, err := l.Store.Watch(ctx)
		if err != nil {
			return nil, err
		}
		out := make(chan dcs.View)
		go func() { // ends with the watch, which ends with ctx or the store
			defer close(out)
			for v := range in {
				v, ok := change(v)
				if !ok {
					continue
				}
				select {
				case out <- v:
				case <-ctx.Done():
				}
			}
		}()
		return out, nil
	}
}

// meddler inflicts faults, and does something else besides.
type meddler struct {
	Faults
	inflict func(k Kind, target int) (heal func() error, err error)
}

func (m meddler) Inflict(k Kind, target int) (func() error, error) { return m.inflict(k, target) }

// compacting pretends that the model has a past to forget.
type compacting struct{ Faults }

func (c compacting) Lacks(k Kind) string {
	if k == Compact {
		return ""
	}
	return c.Faults.Lacks(k)
}

func (c compacting) Inflict(k Kind, target int) (func() error, error) {
	if k == Compact {
		return func() error { return nil }, nil
	}
	return c.Faults.Inflict(k, target)
}

// complaints is a T for properties that are expected to fail.
type complaints struct {
	t    *testing.T
	mu   sync.Mutex // guards said
	said []string
}

func (c *complaints) Helper() {}

func (c *complaints) Errorf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said = append(c.said, fmt.Sprintf(format, args...))
}

func (c *complaints) Error(args ...any) { c.Errorf("%s", fmt.Sprint(args...)) }

func (c *complaints) Fatalf(format string, args ...any) {
	c.Errorf(format, args...)
	runtime.Goexit()
}

func (c *complaints) Fatal(args ...any) { c.Fatalf("%s", fmt.Sprint(args...)) }

func (c *complaints) Logf(string, ...any) {}

func (c *complaints) Failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.said) > 0
}

// everything there is to show, including what the model itself can't be asked.
func everything() []property {
	return slices.Concat(sentences(), []property{{name: scopeName, run: (*suite).elsewhere}}, afflictions())
}

// caughtBy runs a property on a store that lies and returns what it complains of.
func caughtBy(t *testing.T, name string, tell lie) []string {
	i := slices.IndexFunc(everything(), func(p property) bool { return p.name == name })
	if i < 0 {
		t.Errorf("there is no property %q", name)
		return nil
	}
	env := newModel(t)
	env.Patience, env.Storm = time.Second, 2*time.Second
	env.Faults = compacting{env.Faults}
	env.Elsewhere = func() (dcs.Store, error) { return newModel(t).Stores[0], nil }
	for i, store := range env.Stores {
		l := &liar{Store: store}
		tell.tell(l, &env)
		env.Stores[i] = l
	}
	open := env.Open
	env.Open = func() (dcs.Store, error) {
		store, err := open()
		l := &liar{Store: store}
		tell.tell(l, &env)
		return l, err
	}
	c := &complaints{t: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		examine(t.Context(), c, everything()[i], env)
	}()
	<-done
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said
}

// Each lie that a store could tell is caught by the properties that it breaks.
func TestEveryLieIsCaught(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8) // they wait more than they work
	for _, lie := range lies() {
		for _, name := range lie.breaks {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				began := time.Now()
				// A busy machine can keep a property from asking at the moment that matters.
				said := caughtBy(t, name, lie)
				for tries := 1; len(said) == 0 && tries < 5; tries++ {
					said = caughtBy(t, name, lie)
				}
				took := time.Since(began).Round(time.Millisecond)
				if len(said) == 0 {
					t.Errorf("%s: %q has nothing against it (%v)", lie.name, name, took)
					return
				}
				t.Logf("%s: %s (%v): %s", lie.name, name, took, strings.SplitN(said[0], "\n", 2)[0])
			})
		}
	}
	wg.Wait()
}

// A property that no lie breaks could as well be missing.
func TestEveryPropertyCatchesALie(t *testing.T) {
	for _, p := range everything() {
		if !slices.ContainsFunc(lies(), func(l lie) bool { return slices.Contains(l.breaks, p.name) }) {
			t.Errorf("no lie breaks %q", p.name)
		}
	}
}

// The same properties have nothing against a store that doesn't lie, under the same
// conditions.
func TestTheTruthIsNotCaught(t *testing.T) {
	for _, name := range []string{scopeName, "fault: a watch resumes across compaction"} {
		if said := caughtBy(t, name, lie{tell: func(*liar, *Env) {}}); len(said) > 0 {
			t.Errorf("%s: %q", name, said)
		}
	}
}
