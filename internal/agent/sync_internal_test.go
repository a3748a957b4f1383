package agent

import (
	"context"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// The sync key is written by the holder only, over what was read only, and its bytes are
// Patroni's (S14).
func TestTheSyncKeyIsWrittenUnderTheLeaderKey(t *testing.T) {
	now := events.Instant(time.Second)
	c := mem.New(func() events.Instant { return now }).Client("pg01")
	defer func() { _ = c.Close() }()
	ctx, a := context.Background(), &Agent{opt: Options{Name: "pg01"}}
	if _, err := c.Grant(ctx, "L1", time.Minute); err != nil {
		t.Fatal(err)
	}
	write := func(w fsm.WriteSync) (events.Revision, events.Class) {
		rev, err := c.Commit(ctx, a.syncWrite(w))
		return rev, dcs.ClassOf(err)
	}
	if _, class := write(fsm.WriteSync{Lease: "L1"}); class != events.Refused {
		t.Errorf("without the leader key: %s", class)
	}
	if _, err := c.Commit(ctx, dcs.Txn{Writes: []dcs.Write{{Key: dcs.KeyLeader, Value: []byte("pg01"), Lease: "L1"}}}); err != nil {
		t.Fatal(err)
	}
	if _, class := write(fsm.WriteSync{Lease: "L2"}); class != events.Refused {
		t.Errorf("under another lease: %s", class)
	}
	rev, class := write(fsm.WriteSync{Lease: "L1"})
	if class != events.Done {
		t.Fatalf("create: %s", class)
	}
	if _, class := write(fsm.WriteSync{Lease: "L1"}); class != events.Refused {
		t.Errorf("create it again: %s", class)
	}
	next, class := write(fsm.WriteSync{Lease: "L1", Version: rev, Standbys: []events.NodeName{"pg02"}})
	if class != events.Done {
		t.Fatalf("name a standby: %s", class)
	}
	if _, class := write(fsm.WriteSync{Lease: "L1", Version: rev}); class != events.Refused {
		t.Errorf("over an older version: %s", class)
	}
	v, err := c.View(ctx, dcs.Linearizable)
	if err != nil {
		t.Fatal(err)
	}
	if kv, _ := v.Get(dcs.KeySync); string(kv.Value) != `{"leader":"pg01","quorum":0,"sync_standby":"pg02"}` || kv.Version != next {
		t.Errorf("the key is %s at %d, written at %d", kv.Value, kv.Version, next)
	}
	if _, class := write(fsm.WriteSync{Lease: "L1", Version: next, Delete: true}); class != events.Done {
		t.Errorf("delete: %s", class)
	}
}
