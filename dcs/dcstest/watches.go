package dcstest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// change is a write of which the revision is known.
type change struct {
	rev   events.Revision
	value string // "-": deleted
}

// diary is what was written under a few keys.
type diary struct {
	mu      sync.Mutex // guards the rest
	changes map[string][]change
	// vague keys had a write of unknown outcome.
	vague map[string]bool
	last  events.Revision
}

func (d *diary) note(key, value string, rev events.Revision, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dcs.ClassOf(err) == events.Unknown {
		d.vague[key] = true
	}
	if err == nil {
		d.changes[key] = append(d.changes[key], change{rev, value})
		d.last = max(d.last, rev)
	}
}

// contradicts says how a view differs from what was written up to its revision.
func (d *diary) contradicts(v dcs.View) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, changes := range d.changes {
		due := change{value: "-"}
		for _, c := range changes {
			if c.rev > due.rev && c.rev <= v.Revision {
				due = c
			}
		}
		kv, _ := v.Get(key)
		if kv.Version > v.Revision {
			return fmt.Errorf("a view of revision %d holds %s of revision %d", v.Revision, key, kv.Version)
		}
		if got := valueIn(v, key); got != due.value && !d.vague[key] {
			return fmt.Errorf("a view of revision %d holds %s = %s, but at %d it became %s", v.Revision, key, got, due.rev, due.value)
		}
	}
	return nil
}

// consistentCuts: three writers put and delete, everyone watches, and each view that
// anyone gets holds of each key what was written last up to the view's revision: no
// change left out, none from later, however the view came about.
func (s *suite) consistentCuts() {
	d := &diary{changes: map[string][]change{}, vague: map[string]bool{}}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var watchers, writers sync.WaitGroup
	seen := make([][]dcs.View, len(s.Stores))
	for i, store := range s.Stores {
		w := s.watch(ctx, store)
		watchers.Go(func() {
			for v := range w {
				seen[i] = append(seen[i], v)
			}
		})
	}
	for w := range 3 {
		writers.Go(func() {
			key := s.key(strconv.Itoa(w))
			for n := range 40 {
				write, value := dcs.Put(key, []byte(strconv.Itoa(n))), strconv.Itoa(n)
				if n%5 == 4 {
					write, value = dcs.Write{Key: key, Delete: true}, "-"
				}
				rev, err := s.store(w+n).Commit(s.ctx, dcs.Txn{Writes: []dcs.Write{write}})
				d.note(key, value, rev, err)
				s.wait(time.Millisecond)
			}
		})
	}
	writers.Wait()
	fresh := s.watch(ctx, s.store(0))
	s.await(fresh, "the last revision", func(v dcs.View) bool { return v.Revision >= d.last })
	cancel()
	s.ends(fresh, "its context ended")
	watchers.Wait()
	views := 0
	for i := range s.Stores {
		v := s.view(s.store(i))
		for _, v := range append(seen[i], v) {
			views++
			if err := d.contradicts(v); err != nil {
				s.Errorf("client %d: %v", i, err)
				break
			}
		}
	}
	if views < 2*len(s.Stores) || len(d.changes) < 3 {
		s.Errorf("only %d views of %d keys", views, len(d.changes))
	}
	s.note = fmt.Sprintf("%d views", views)
}

// forwards wraps a condition: besides, revisions may not go back.
func (s *suite) forwards(satisfies func(dcs.View) bool) func(dcs.View) bool {
	var last events.Revision
	return func(v dcs.View) bool {
		if v.Revision < last {
			s.Errorf("a watch went from revision %d back to %d", last, v.Revision)
		}
		last = v.Revision
		return satisfies(v)
	}
}

// is a condition: the key has this value.
func (s *suite) is(key, want string) func(dcs.View) bool {
	return s.forwards(func(v dcs.View) bool { return valueIn(v, s.key(key)) == want })
}
