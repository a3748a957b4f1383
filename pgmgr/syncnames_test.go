package pgmgr

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/pgregent/regent/events"
)

func named(names ...events.NodeName) events.SyncNames { return events.SyncNames{Names: names} }

// synced makes a node's configuration that of synchronous mode.
func (n *node) synced(strict bool) *node {
	n.t.Helper()
	cfg := n.config()
	cfg.Sync, cfg.SyncStrict = true, strict
	n.must("reconfigure", n.Reconfigure(cfg))
	return n
}

func TestCommitsWaitForTheStandbyThatIsNamed(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary().synced(false)
	b := replicaOf(t, "b-1", a)
	b.awaitStreaming(a)
	a.sql("CREATE TABLE t (n int)")
	at, err := a.SetSyncNames(a.ctx(), named("B-1")) // names compare without case
	a.must("set the names", err)
	st := a.observe()
	if st.SyncNames != `"B-1"` || !st.SyncHeld {
		t.Fatalf("in force: %q, held: %v", st.SyncNames, st.SyncHeld)
	}
	if at == 0 || at > st.Position {
		t.Errorf("waited for from %s on; the WAL is at %s", at, st.Position)
	}
	a.eventually("the standby is synchronous and has everything", func() error {
		for _, s := range a.observe().Standbys {
			if s.Name == "b-1" && s.SyncState == "sync" && s.Flushed >= at {
				return nil
			}
		}
		return fmt.Errorf("standbys: %+v", a.observe().Standbys)
	})

	// Again: nothing changes.
	conf := a.readConf()
	_, err = a.SetSyncNames(a.ctx(), named("B-1"))
	a.must("set the names again", err)
	if a.readConf() != conf {
		t.Error("the same names have changed the configuration")
	}

	// The standby stops: commits wait, until nobody is named.
	b.stop()
	acknowledged := make(chan error, 1)
	go func() {
		_, err := a.trySQL("INSERT INTO t VALUES (1)")
		acknowledged <- err
	}()
	a.eventually("the commit waits", func() error {
		if a.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") != "1" {
			return errors.New("nothing waits")
		}
		return nil
	})
	if _, err = a.SetSyncNames(a.ctx(), named("B-1")); err != nil {
		t.Errorf("names of a standby that is away: %v", err)
	}
	_, err = a.SetSyncNames(a.ctx(), events.SyncNames{})
	a.must("name nobody", err)
	a.must("the commit that waited", <-acknowledged)
}

// What is waited for outlives reloads of anything else, a crash and a restarted agent;
// the user's own setting comes back when synchronous mode lets go.
func TestHeldNamesAreKept(t *testing.T) {
	t.Parallel()
	a := emptyNode(t, "a")
	a.param(gucSyncNames, "")
	a.must("bootstrap", a.Bootstrap(a.ctx()))
	a.startPrimary().synced(false)
	a.sql("ALTER SYSTEM SET synchronous_standby_names = 'by_hand'")
	replicaOf(t, "b", a).awaitStreaming(a)
	_, err := a.SetSyncNames(a.ctx(), named("b"))
	a.must("set the names", err)
	inForce := func(what, want string, held bool) {
		t.Helper()
		a.eventually(what, func() error {
			if st := a.observe(); st.SyncNames != want || st.SyncHeld != held {
				return fmt.Errorf("in force %q, held %v", st.SyncNames, st.SyncHeld)
			}
			return nil
		})
	}
	inForce("the names are in force", "b", true)

	a.param("work_mem", "5MB")
	if _, err := a.WriteConfig(a.ctx(), RolePrimary, nil); err != nil {
		t.Fatal(err)
	}
	a.must("reload", a.Reload(a.ctx()))
	inForce("after a reload", "b", true)

	a.kill()
	a.must("start again", a.Start(a.ctx(), StartOptions{Grant: longGrant()}))
	inForce("after a crash", "b", true)

	// Switched off: until the machine says so, the names stay.
	cfg := a.config()
	cfg.Sync = false
	params := map[string]string{}
	maps.Copy(params, cfg.Parameters)
	params[gucSyncNames] = "own"
	cfg.Parameters = params
	a.must("reconfigure", a.Reconfigure(cfg))
	if _, err := a.WriteConfig(a.ctx(), RolePrimary, nil); err != nil {
		t.Fatal(err)
	}
	inForce("switched off, and not let go", "b", true)
	_, err = a.SetSyncNames(a.ctx(), events.SyncNames{Own: true})
	a.must("let go", err)
	inForce("let go", "own", false)
}

func TestStandbyIsPromotedWithTheNamesItWasTold(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary().synced(true)
	b := replicaOf(t, "b", a)
	b.awaitStreaming(a)
	if _, err := b.SetSyncNames(b.ctx(), named("a")); !errors.Is(err, ErrRefused) {
		t.Errorf("names on a standby: %v", err)
	}
	a.stop()
	b.synced(true)
	_, err := b.Promote(b.ctx(), *longGrant(), &events.SyncNames{Hold: true})
	b.must("promote", err)
	if st := b.observe(); st.SyncNames != events.SyncHolder {
		t.Errorf("in force on the new primary: %q", st.SyncNames)
	}
	acknowledged := make(chan error, 1)
	go func() {
		_, err := b.trySQL("CREATE TABLE t (n int)")
		acknowledged <- err
	}()
	b.eventually("the commit waits", func() error {
		if b.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") != "1" {
			return errors.New("nothing waits")
		}
		return nil
	})
	_, err = b.SetSyncNames(b.ctx(), events.SyncNames{})
	b.must("name nobody", err)
	b.must("the commit that waited", <-acknowledged)
}
