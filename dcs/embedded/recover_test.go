package embedded

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// Two of three voters are lost for good: the third one's copy becomes a cluster, and wiped
// nodes join it. Voters of the old life don't start beside it, also if they come back
// together; one that was there before it has no say in it.
func TestALostQuorumIsRecovered(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	c.put(c.nodes[0].store, "k", "1", "")
	if _, err := c.nodes[0].store.Grant(c.ctx(), "l", 2*time.Second); err != nil {
		t.Fatal(err)
	}
	c.put(c.nodes[0].store, dcs.KeyLeader, "pg02", "l")
	c.sameServers(3)
	eventually(t, "every node has all", func() bool {
		v, err := c.nodes[0].store.View(c.ctx(), dcs.Local)
		_, ok := v.Get(dcs.KeyLeader)
		return err == nil && ok
	})
	cfg := c.nodes[0].cfg
	if _, err := Inspect(cfg.DataDir, cfg.Name); !errors.Is(err, ErrFolderInUse) {
		t.Errorf("a folder in use was read: %v", err)
	}
	c.kill(1)
	c.kill(2)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.nodes[0].store.View(ctx, dcs.Linearizable); !errors.Is(err, dcs.ErrUnavailable) {
		t.Fatalf("one of three answers alone: %v", err)
	}
	c.stop(0)
	held, err := Inspect(cfg.DataDir, cfg.Name)
	if err != nil || held.Holder != "pg02" || held.Keys != 2 || len(held.Servers) != 3 || held.Index == 0 || held.Term == 0 {
		t.Fatalf("the copy: %+v, %v", held, err)
	}
	got, err := Recover(cfg.DataDir, cfg.Name, cfg.SelfAddr)
	if err != nil || got.ID == held.ID || len(got.Servers) != 1 || got.Servers[0].ID != got.ID || got.Revision != held.Revision {
		t.Fatalf("recovered: %+v, %v", got, err)
	}
	c.start(1) // alone, before the recovered one
	c.start(0)
	if k := c.get(c.nodes[0].store, "k"); k != "1" {
		t.Errorf("k is %s", k)
	}
	eventually(t, "the lease of the former holder ends", func() bool { return c.get(c.nodes[0].store, dcs.KeyLeader) == "-" })

	store, err := Open(t.Context(), c.nodes[2].cfg)
	if !errors.Is(err, dcs.ErrBroken) || !errors.Is(err, errReplaced) {
		t.Errorf("a voter of the old cluster was started: %v", err)
	}
	if store != nil {
		store.Close()
	}
	if err := os.RemoveAll(c.nodes[2].cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	c.start(2)
	eventually(t, "the voter of the old cluster gives up", func() bool { return c.nodes[1].logs.has("this node was removed") })
	client := c.operator()
	if _, err := repeated(t, func() (Server, error) { return client.AddMember(c.ctx(), c.nodes[1].cfg.SelfAddr, true) }); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("a voter with a former life was added: %v", err)
	}
	if _, err := repeated(t, func() (Server, error) { return client.AddMember(c.ctx(), c.nodes[2].cfg.SelfAddr, true) }); err != nil {
		t.Fatal(err)
	}
	c.put(c.nodes[1].store, "k", "2", "")
	if k := c.get(c.nodes[2].store, "k"); k != "2" {
		t.Errorf("k is %s", k)
	}
}

// The recovered copy doesn't start beside the store whose place it was to take.
func TestWhatIsAliveIsNotReplaced(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	c.put(c.nodes[0].store, "k", "1", "")
	c.sameServers(3)
	eventually(t, "the node has it", func() bool { v := c.nodes[0].store.replica.content(); return len(v.KVs) == 1 })
	c.stop(0)
	cfg := c.nodes[0].cfg
	old, err := Inspect(cfg.DataDir, cfg.Name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(cfg.DataDir, cfg.Name, cfg.SelfAddr); err != nil {
		t.Fatal(err)
	}
	c.put(c.nodes[1].store, "k", "2", "")
	c.put(c.nodes[2].store, "k", "3", "")
	store, err := Open(t.Context(), cfg)
	if !errors.Is(err, dcs.ErrBroken) || !errors.Is(err, errNotLost) {
		t.Errorf("two stores: %v", err)
	}
	if store != nil {
		store.Close()
	}
	// A recovery that was interrupted before the folder got its new id has replaced nothing.
	if ids, err := replacedIDs(cfg.DataDir, raft.ServerID(old.ID)); err != nil || len(ids) != 0 {
		t.Errorf("an interrupted recovery has replaced %v, %v", ids, err)
	}
	c.stop(1)
	c.stop(2)
	c.start(0)
	if k := c.get(c.nodes[0].store, "k"); k != "1" {
		t.Errorf("k is %s", k)
	}
}

func TestNothingIsRecoveredFromAnEmptyFolder(t *testing.T) {
	dir := t.TempDir()
	for name, call := range map[string]func() (Copy, error){
		"inspect": func() (Copy, error) { return Inspect(dir, "pg01") },
		"recover": func() (Copy, error) { return Recover(dir, "pg01", "10.0.0.1:1") },
	} {
		if _, err := call(); !errors.Is(err, dcs.ErrRefused) {
			t.Errorf("%s of an empty folder: %v", name, err)
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("it left %v, %v", names, err)
	}
}

// An interrupted recovery, whose id file is still the old one, is repeated.
func TestAnInterruptedRecoveryIsRepeated(t *testing.T) {
	c := newCluster(t, 1).startAll()
	c.put(c.nodes[0].store, "k", "1", "")
	c.stop(0)
	cfg := c.nodes[0].cfg
	old, err := Inspect(cfg.DataDir, cfg.Name)
	if err != nil {
		t.Fatal(err)
	}
	var rev events.Revision
	again := func() {
		// Raft names snapshots by milliseconds: a second one in the same fails.
		eventually(t, "a recovery that failed is repeated", func() bool {
			got, err := Recover(cfg.DataDir, cfg.Name, cfg.SelfAddr)
			rev = got.Revision
			return err == nil
		})
	}
	for range 2 {
		again()
		if err := os.WriteFile(cfg.DataDir+"/"+idFile, []byte(old.ID+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if again(); rev != old.Revision {
		t.Fatal(rev, old.Revision)
	}
	c.start(0)
	if k := c.get(c.nodes[0].store, "k"); k != "1" {
		t.Errorf("k is %s", k)
	}
}
