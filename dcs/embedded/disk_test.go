package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// smallDisk mounts a file system of a megabyte for a node's raft folder.
func smallDisk(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("regent-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("mount a small disk: %v", err)
		}
		t.Skipf("mount a small disk: %v (needs root)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// fill takes all space that is left, as something else on that disk might.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = file.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill %s: %v", dir, err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// The disk under the raft leader's folder is full: another voter leads, the store goes on,
// the node says so, and follows again when there is space.
func TestALeaderWithAFullDiskStepsDownAndHeals(t *testing.T) {
	slow(t)
	c := &cluster{t: t, net: newWires()}
	for i := range 3 {
		n := c.addNode(fmt.Sprintf("pg%02d", i+1))
		smallDisk(t, n.cfg.DataDir)
	}
	t.Cleanup(c.stopAll)
	c.setPartners()
	c.startAll()
	full := c.leader()
	free := fill(t, c.nodes[full].cfg.DataDir)
	other := c.follower(full)
	big := strings.Repeat("x", 100_000) // more than a few pages that happen to be free
	c.put(c.nodes[other].store, "k", big, "")
	eventually(t, "the node says that its disk is full", func() bool {
		return c.nodes[full].logs.has("the disk of the raft folder is full")
	})
	next := c.leader(full)
	began := time.Now()
	c.put(c.nodes[full].store, "after", "1", "")
	t.Logf("a write through the node whose disk is full took %v", time.Since(began).Round(time.Millisecond))
	if st := c.nodes[full].store.status(); st.Trouble == "" || st.Role == RoleLeader {
		t.Errorf("its status: %+v", st)
	}
	if got := c.get(c.nodes[next].store, "k"); got != big {
		t.Errorf("k has %d bytes", len(got))
	}
	free()
	eventually(t, "the node follows again", func() bool {
		v, err := c.nodes[full].store.View(c.ctx(), dcs.Local)
		_, ok := v.Get("after")
		return err == nil && ok && v.Age >= 0 && v.Age < time.Second && c.nodes[full].store.status().Trouble == ""
	})
	if !c.nodes[full].logs.has("can be written again") {
		t.Error("it doesn't say that it is well again")
	}
}

// sick is a store whose writes fail on demand.
type sick struct {
	*raft.InmemStore
	failing atomic.Bool
	tries   atomic.Int32
}

func (s *sick) SetUint64(key []byte, value uint64) error {
	s.tries.Add(1)
	if s.failing.Load() {
		return syscall.ENOSPC
	}
	return s.InmemStore.SetUint64(key, value)
}

// A term that can't be stored must never be acted on, and must not end the process.
func TestATermWaitsUntilItIsStored(t *testing.T) {
	c := newCluster(t, 1).startAll()
	inner := &sick{InmemStore: raft.NewInmemStore()}
	inner.failing.Store(true)
	d := &disk{store: inner, speed: newSpeed(Timings{}, c.nodes[0].cfg.now), queued: &queued{}, dir: "x", log: c.nodes[0].store.quiet, ctx: c.nodes[0].store.life}
	if err := d.SetUint64([]byte("LastVoteTerm"), 1); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a vote that can't be stored: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- d.SetUint64([]byte(termKey), 7) }()
	eventually(t, "the term is tried again", func() bool { return inner.tries.Load() >= 3 })
	inner.failing.Store(false)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got, err := inner.GetUint64([]byte(termKey)); err != nil || got != 7 {
		t.Errorf("the term is %d, %v", got, err)
	}
	inner.failing.Store(true)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := d.SetUint64([]byte(termKey), 8)
		t.Errorf("the call returned %v although the term isn't stored", err)
		runtime.Goexit()
	}()
	eventually(t, "the term is tried", func() bool { return inner.tries.Load() >= 5 })
	c.stop(0)
	<-ended
}

// The log and its file stay small, however much is written: snapshots replace entries.
func TestTheLogIsBoundedUnderLoad(t *testing.T) {
	slow(t)
	c := newCluster(t, 3)
	c.tune = func(cfg *Config) { cfg.snapshotEvery = 200 * time.Millisecond }
	c.startAll()
	leader := c.leader()
	store := c.nodes[leader].store
	const entries = 5_000
	value := strings.Repeat("v", 200)
	writers := make(chan int, 64)
	var failed atomic.Int32
	done := make(chan struct{})
	for range 64 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range writers {
				if _, err := store.Commit(c.ctx(), dcs.Txn{Writes: []dcs.Write{{Key: fmt.Sprintf("k%d", i%20), Value: []byte(value)}}}); err != nil &&
					dcs.ClassOf(err) != events.Unknown {
					failed.Add(1)
				}
			}
		}()
	}
	for i := range entries {
		writers <- i
	}
	close(writers)
	for range 64 {
		<-done
	}
	if failed.Load() > 0 {
		t.Errorf("%d writes failed", failed.Load())
	}
	for i, n := range c.nodes {
		eventually(t, "old entries are dropped", func() bool {
			first, err := n.store.folder.logs.FirstIndex()
			last, err2 := n.store.folder.logs.LastIndex()
			return errors.Join(err, err2) == nil && last > entries/2 && last-first < 3*trailing
		})
		info, err := os.Stat(filepath.Join(n.cfg.DataDir, logFile))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("node %d: a file of %d kB after %d entries", i, info.Size()/1024, entries)
		if info.Size() > 32<<20 {
			t.Errorf("node %d: the log's file has %d MB", i, info.Size()>>20)
		}
	}
	c.stop(leader)
	c.start(leader)
	eventually(t, "the node that starts from a snapshot has all", func() bool {
		v, err := c.nodes[leader].store.View(c.ctx(), dcs.Local)
		return err == nil && len(v.KVs) == 20 && v.Age >= 0
	})
}
