package hosts

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
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
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
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
	if w.Failed() || os.Getenv("REGENT_HOSTS_LOGS") != "" {
		for _, n := range w.Cluster.Nodes() {
			w.Logf("log of %s:\n%s", n.Name(), n.Tail(400))
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
		if !wait(w.ctx) {
			w.Fatalf("nobody but %s became primary: %v", old.Name(), w.watcher.Roles())
		}
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

// isolate pulls the cable of the primary: it can't know that anybody took over, and stops before
// somebody does. Plugged in again it follows.
func (w *world) isolate(old *sandbox.Node) (now *sandbox.Node) {
	w.Helper()
	began := time.Now()
	l := w.cut(Partition{Hosts: []string{old.Name()}})
	now = w.other(old)
	w.Logf("%s took over from %s after %v", now.Name(), old.Name(), time.Since(began).Round(time.Millisecond))
	w.fenced(old)
	w.heal(l)
	now = w.whole()
	w.Logf("all stream after %v", time.Since(began).Round(time.Millisecond))
	return now
}

func TestAPrimaryCutOffIsFencedBeforeAnotherIsPromoted(t *testing.T) {
	w, old := raise(t, Options{Cluster: sandbox.Options{TTL: 4 * time.Second, LoopWait: time.Second, RetryTimeout: time.Second}})
	now := w.isolate(old)
	w.mute(now)
}

// fenced checks that a member takes no writes: it is down, or in recovery.
func (w *world) fenced(n *sandbox.Node) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, n.DSN())
	if err != nil {
		return
	}
	defer func() { _ = conn.Close(ctx) }() // nothing to lose
	var recovering bool
	if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovering); err == nil && !recovering {
		w.Errorf("%s is cut off, and takes writes", n.Name())
	}
}

// mute lets the primary hear everybody while nobody hears it: it must not stay primary because
// messages arrive.
func (w *world) mute(old *sandbox.Node) {
	w.Helper()
	began := time.Now()
	l := w.cut(Partition{Hosts: []string{old.Name()}, Way: Out})
	now := w.other(old)
	w.Logf("%s took over from %s, which hears and isn't heard, after %v", now.Name(), old.Name(), time.Since(began).Round(time.Millisecond))
	w.fenced(old)
	w.heal(l)
	w.whole()
	w.Logf("all stream after %v", time.Since(began).Round(time.Millisecond))
}

func TestAPrimaryCutOffFromEtcd(t *testing.T) {
	w, old := raise(t, Options{
		Store: sandbox.Etcd3Store, Program: etcdtest.Binary(t, etcdtest.V34),
		Cluster: sandbox.Options{TTL: 5 * time.Second, LoopWait: time.Second, RetryTimeout: time.Second},
	})
	now := w.isolate(old)
	// From the store alone: it could go on streaming to the others, and must not.
	began := time.Now()
	l := w.cut(Partition{Hosts: []string{now.Name()}, Traffic: Store})
	next := w.other(now)
	t.Logf("%s took over from %s after %v", next.Name(), now.Name(), time.Since(began).Round(time.Millisecond))
	w.fenced(now)
	w.heal(l)
	w.whole()
}

func TestAPrimaryCutOffFromConsul(t *testing.T) {
	w, old := raise(t, Options{
		Store: sandbox.ConsulStore, Program: consulProgram(t),
		Cluster: sandbox.Options{TTL: 20 * time.Second, LoopWait: time.Second, RetryTimeout: 3 * time.Second},
	})
	w.isolate(old)
}

func consulProgram(t *testing.T) string {
	t.Helper()
	if _, err := consultest.Find(); err != nil { // else it is in this user's reach
		t.Setenv("CONSUL_BIN", filepath.Join(filepath.Dir(pgtest.Binary(t, "regent")), "consul"))
	}
	return consultest.Binary(t)
}
