package hosts

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
	"github.com/pgregent/regent/internal/sandbox/workload"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// world is a site under watch and a test.
type world struct {
	*testing.T
	*Site
	ctx     context.Context
	watcher *workload.Watcher
}

// raise makes a site whose members stream, watched until the test ends.
func raise(t *testing.T, o Options) (w *world, primary *sandbox.Node) {
	t.Helper()
	need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	o.Dir = filepath.Join(pgtest.SocketDir(t), "site")
	o.Cluster.Bin, o.Cluster.PGBin = filepath.Dir(pgtest.Binary(t, "regent")), pgtest.BinDir(t)
	s, err := Raise(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	w = &world{T: t, Site: s, ctx: ctx, watcher: workload.NewWatcher(time.Now(), s.Cluster.Targets())}
	t.Cleanup(w.close)
	if err := s.Cluster.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if primary, err = s.Cluster.AwaitStreaming(ctx); err != nil {
		t.Fatal(err)
	}
	watched := make(chan error, 1)
	watch, stop := context.WithCancel(ctx)
	go func() { watched <- w.watcher.Run(watch) }()
	t.Cleanup(func() {
		stop()
		if err := <-watched; err != nil {
			t.Error(err)
		}
	})
	return w, primary
}

func (w *world) close() {
	if w.Failed() {
		for _, n := range w.Cluster.Nodes() {
			w.Logf("log of %s:\n%s", n.Name(), n.Tail(60))
		}
		for i := 0; w.Stores != nil && i < len(w.Stores.Members); i++ {
			w.Logf("log of %s:\n%s", w.Stores.Members[i].Name(), w.Stores.Members[i].Tail(20))
		}
	}
	if err := w.Site.Close(); err != nil {
		w.Error(err)
	}
}

func (w *world) cut(p Partition) *Link {
	w.Helper()
	l, err := w.Cut(p)
	if err != nil {
		w.Fatal(err)
	}
	return l
}

func (w *world) heal(l *Link) {
	w.Helper()
	if err := l.Heal(); err != nil {
		w.Fatal(err)
	}
}

// other waits for a primary that isn't the given one.
func (w *world) other(old *sandbox.Node) *sandbox.Node {
	w.Helper()
	for {
		for _, n := range w.Cluster.Nodes() {
			if n != old && w.watcher.Roles()[n.Name()] == history.Primary {
				return n
			}
		}
		if !w.wait() {
			w.Fatalf("nobody but %s became primary: %v", old.Name(), w.watcher.Roles())
		}
	}
}

func (w *world) wait() bool {
	select {
	case <-time.After(10 * time.Millisecond):
		return true
	case <-w.ctx.Done():
		return false
	}
}

// whole waits until all members stream, and checks that no two ever took writes at once.
func (w *world) whole() *sandbox.Node {
	w.Helper()
	n, err := w.Cluster.AwaitStreaming(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	for _, o := range history.Overlaps(w.watcher.Spans()) {
		w.Errorf("two primaries: %s", o)
	}
	return n
}

// TestAPrimaryCutOffIsFencedBeforeAnotherIsPromoted pulls the primary's cable: it can't know
// that anybody took over, and stops before somebody does. Plugged in again it follows.
func TestAPrimaryCutOffIsFencedBeforeAnotherIsPromoted(t *testing.T) {
	w, old := raise(t, Options{})
	began := time.Now()
	l := w.cut(Partition{Hosts: []string{old.Name()}})
	now := w.other(old)
	t.Logf("%s took over from %s after %v", now.Name(), old.Name(), time.Since(began).Round(time.Millisecond))
	if role := w.watcher.Roles()[old.Name()]; role == history.Primary {
		t.Errorf("%s is still primary", old.Name())
	}
	w.heal(l)
	if n := w.whole(); n != now {
		t.Errorf("%s is primary after all", n.Name())
	}
	t.Logf("all stream after %v", time.Since(began).Round(time.Millisecond))
}
