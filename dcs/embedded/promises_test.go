package embedded

import (
	"errors"
	"os"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
)

// "Identities": a raft folder that is put back from a backup has forgotten promises.
func TestAFolderPutBackFromABackupIsRefused(t *testing.T) {
	slow(t)
	c := newCluster(t, 3).startAll()
	c.put(c.nodes[0].store, "k", "1", "")
	c.sameServers(3)
	old := c.follower(c.leader())
	dir := c.nodes[old].cfg.DataDir
	backup := t.TempDir()
	c.stop(old)
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	c.start(old) // its own folder, a restart like any other
	rev := c.put(c.nodes[old].store, "k", "2", "")
	eventually(t, "the node has confirmed it", func() bool { v := c.nodes[old].store.replica.content(); return v.Revision >= rev })
	c.stop(old)
	c.start(old)
	c.stop(old)
	if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(backup))); err != nil {
		t.Fatal(err)
	}
	store, err := Open(t.Context(), c.nodes[old].cfg)
	if !errors.Is(err, dcs.ErrBroken) || !errors.Is(err, errOldFolder) {
		t.Errorf("a folder from a backup was opened: %v", err)
	}
	if store != nil {
		store.Close()
	}
	t.Log(err)
}

func TestWhatBreaksAPromise(t *testing.T) {
	given := promise{ID: "a", Term: 5, Index: 100}
	for has, want := range map[promise]bool{
		{Term: 4, Index: 200}: true,
		{Term: 5, Index: 99}:  true,
		{Term: 5, Index: 100}: false,
		{Term: 6, Index: 90}:  false, // a later leader may have taken entries back
	} {
		if got := given.broken(has); got != want {
			t.Errorf("%+v breaks %+v: %v", has, given, got)
		}
	}
	var m promises
	header := raft.RPCHeader{ID: []byte("a")}
	m.overhear(&raft.RequestVoteRequest{RPCHeader: header, Term: 3, LastLogIndex: 50})
	if got := m.of("a"); got != (promise{ID: "a", Term: 3}) {
		t.Errorf("after a request for votes: %+v", got)
	}
	m.overhear(&raft.AppendEntriesRequest{RPCHeader: header, Term: 3, PrevLogEntry: 50, Entries: make([]*raft.Log, 2)})
	m.overhear(&raft.RequestPreVoteRequest{RPCHeader: header, Term: 9})
	m.overhear(&raft.AppendEntriesRequest{RPCHeader: header, Term: 2, PrevLogEntry: 70})
	if got := m.of("a"); got != (promise{ID: "a", Term: 3, Index: 52}) {
		t.Errorf("after what a leader sent: %+v", got)
	}
}
