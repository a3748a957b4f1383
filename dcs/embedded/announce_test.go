package embedded

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgregent/regent/dcs"
)

// Without the announcement a follower would wait for the idle repetition, 300 to 600 ms.
func TestAChangeIsSeenEverywhereAtOnceAndIsOneEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3)
		defer v.closeAll()
		if _, err := v.any(0).View(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		pause(t.Context(), 5*time.Second)
		before := v.stores[0].raft.LastIndex()
		const writes = 10
		for i := range writes {
			began := time.Now()
			rev, err := v.stores[i%3].Commit(t.Context(), dcs.Txn{Writes: []dcs.Write{dcs.Put("k", []byte{byte(i)})}})
			if err != nil {
				t.Fatal(err)
			}
			for n, store := range v.stores {
				for store.replica.content().Revision < rev {
					if time.Since(began) > time.Second || !pause(t.Context(), time.Millisecond) {
						t.Fatalf("write %d isn't seen by node %d after a second", i, n)
					}
				}
			}
			if took := time.Since(began); took > 50*time.Millisecond {
				t.Errorf("write %d was seen everywhere after %v", i, took)
			}
			pause(t.Context(), time.Second)
		}
		if entries := v.stores[0].raft.LastIndex() - before; entries != writes {
			t.Errorf("%d changes made %d entries of the log", writes, entries)
		}
	})
}

// A follower that lacks the entry is told again when it has it; one that has another
// leader meanwhile believes nothing.
func TestAnAnnouncementIsBelievedOnlyByWhoHasTheEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3)
		defer v.closeAll()
		if _, err := v.any(0).View(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := v.any(0).Commit(t.Context(), dcs.Txn{Writes: []dcs.Write{dcs.Put("k", nil)}}); err != nil {
			t.Fatal(err)
		}
		pause(t.Context(), 5*time.Second)
		leader := v.stores[v.leading()]
		at, term := leader.replica.newest(), leader.raft.CurrentTerm()
		last := leader.raft.LastIndex()
		if at.index == 0 {
			t.Fatal("nothing was ever changed")
		}
		for _, server := range leader.configuration().Servers {
			if server.ID == leader.folder.id {
				continue
			}
			for _, c := range []struct {
				what     string
				term     uint64
				at       position
				accepted bool
			}{
				{"the newest change", term, at, true},
				{"an entry that isn't there", term, position{last + 1, term}, false},
				{"an entry of another term", term, position{last, term + 1}, false},
				{"a leader of an old term", term - 1, at, false},
			} {
				accepted, err := leader.transport.announce(server, c.term, c.at)
				if err != nil || accepted != c.accepted {
					t.Errorf("%s: accepted %v, want %v (%v)", c.what, accepted, c.accepted, err)
				}
			}
		}
		for n, store := range v.stores {
			if got := store.raft.CommitIndex(); got > last {
				t.Errorf("node %d takes the log for committed up to %d of %d", n, got, last)
			}
		}
	})
}
