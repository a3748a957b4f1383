package hosts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/workload"
)

// TestSmallDisks has a real cluster on small disks, one of which turns read-only under a
// replica: it can't start until that is over. What a full disk refuses is looked at file by file.
func TestSmallDisks(t *testing.T) {
	all := []sandbox.Disk{sandbox.DataDisk, sandbox.WALDisk, sandbox.JournalDisk, sandbox.RaftDisk}
	w, primary := raise(t, Options{Disks: all, Cluster: sandbox.Options{TTL: 4 * time.Second, LoopWait: time.Second, RetryTimeout: time.Second}})
	replica := w.Cluster.Nodes()[0]
	if replica == primary {
		replica = w.Cluster.Nodes()[1]
	}
	for _, n := range w.Cluster.Nodes() {
		wal, err := filepath.EvalSymlinks(filepath.Join(n.DataDir(), "pg_wal"))
		must(t, err)
		for d, dir := range map[sandbox.Disk]string{
			sandbox.DataDisk: n.DataDir(), sandbox.WALDisk: wal, sandbox.JournalDisk: n.JournalDir(), sandbox.RaftDisk: n.RaftDir(),
		} {
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) == 0 || !strings.HasPrefix(dir, mountPoint(w.Cluster.Dir(), n.Name(), d)+"/") {
				t.Errorf("%s: the folder of %s is %s, with %d entries: %v", n.Name(), d, dir, len(entries), err)
			}
		}
	}
	full(t, w, replica)

	must(t, w.ReadOnly(replica.Name(), sandbox.DataDisk))
	if err := os.WriteFile(filepath.Join(replica.DataDir(), "base", "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("a new file on a read-only disk: %v", err)
	}
	must(t, replica.KillPostmaster())
	for log := ""; !strings.Contains(log, "Read-only file system"); log = replica.Tail(400) {
		if !wait(w.ctx) {
			t.Fatal("the replica's server doesn't complain")
		}
	}
	if _, runs := replica.PostmasterPID(); runs {
		t.Error("PostgreSQL runs on a read-only disk")
	}
	must(t, w.Writable(replica.Name(), sandbox.DataDisk))
	w.whole()
	fromInside(t, w, replica)
}

// full fills the replica's journal disk, and frees it. The cluster doesn't need it (S19).
func full(t *testing.T, w *world, replica *sandbox.Node) {
	t.Helper()
	filler := filepath.Join(mountPoint(w.Cluster.Dir(), replica.Name(), sandbox.JournalDisk), "filler")
	page := []byte(strings.Repeat("x", 64<<10))
	must(t, w.Fill(replica.Name(), sandbox.JournalDisk))
	if err := os.WriteFile(filler, page, 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing to a full disk: %v", err)
	}
	w.whole()
	must(t, w.Free(replica.Name(), sandbox.JournalDisk), os.WriteFile(filler, page, 0o600), os.Remove(filler))
	if err := w.Fill("s1", sandbox.JournalDisk); err == nil {
		t.Error("a disk was filled that isn't there")
	}
}

// fromInside has a writer on a host, which is cut off with it.
func fromInside(t *testing.T, w *world, replica *sandbox.Node) {
	t.Helper()
	inner := workload.NewWriter(workload.WriterConfig{
		DSN: w.Cluster.DSN(), Nodes: w.Cluster.PortNames(), Origin: time.Now(), Dial: w.Host(replica.Name()).DialContext,
	})
	ctx, stop := context.WithCancel(w.ctx)
	done := make(chan error, 1)
	go func() { done <- inner.Run(ctx) }()
	must(t, inner.Await(ctx, 10, 0))
	l := w.cut(Partition{Hosts: []string{replica.Name()}, Traffic: Members})
	before := inner.Acked()
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	// One insert may be on its way. Its own host could have become the primary.
	if err := inner.Await(short, before+2, 0); err == nil && inner.Last().Node != replica.Name() {
		t.Errorf("a writer on a host that is cut off was answered by %s", inner.Last().Node)
	}
	cancel()
	w.heal(l)
	must(t, inner.Await(ctx, before+10, 0))
	stop()
	must(t, <-done)
}
