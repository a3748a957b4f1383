package agent

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// twoStores are a store with a cluster, led by pg01, and an empty one.
type twoStores struct {
	*testing.T
	now   events.Instant
	store [2]*mem.Client
}

func newTwoStores(t *testing.T) *twoStores {
	t.Helper()
	w := &twoStores{T: t, now: events.Instant(time.Hour)}
	for i := range w.store {
		w.store[i] = mem.New(func() events.Instant { return w.now }).Client("c")
		t.Cleanup(func() { _ = w.store[i].Close() })
	}
	for _, id := range []events.LeaseID{"L1", "L2"} {
		if _, err := w.store[0].Grant(t.Context(), id, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	for _, writes := range [][]dcs.Write{
		{dcs.Put(dcs.KeyInitialize, []byte("7000000000000000001")), dcs.Put(dcs.KeyConfig, []byte(`{"ttl":30}`)), dcs.Put(dcs.KeyStatus, []byte(`{"optime":9}`))},
		{{Key: dcs.KeyLeader, Value: []byte("pg01"), Lease: "L1"}, {Key: dcs.MemberKey("pg01"), Value: []byte("{}"), Lease: "L1"}},
	} {
		w.commit(0, dcs.Txn{Writes: writes})
	}
	return w
}

func (w *twoStores) commit(store int, t dcs.Txn) {
	w.Helper()
	if _, err := w.store[store].Commit(w.Context(), t); err != nil {
		w.Fatal(err)
	}
}

func (w *twoStores) view(store int) events.ClusterView {
	w.Helper()
	v, err := w.store[store].View(w.Context(), dcs.Linearizable)
	if err != nil {
		w.Fatal(err)
	}
	return dcs.Decode(v)
}

// agent is one whose machine has seen what is in the first store now.
func (w *twoStores) agent(name events.NodeName) *Agent {
	a := &Agent{opt: Options{
		Name: name, Store: w.store[0], Target: func(string) (dcs.Store, error) { return w.store[1], nil },
	}}
	s := fsm.State{Self: name, Run: "r1"}
	s.Store.View, s.Store.Known = w.view(0), true
	a.published.Store(&s)
	return a
}

func (w *twoStores) begin() {
	w.Helper()
	w.commit(0, dcs.MarkMove(w.view(0).Config, &events.StoreMove{Epoch: "e1", Phase: events.MoveBoth, To: "there"}))
}

// Whoever has not heard of the move can neither take the leader key nor give it to another.
func TestWhoMissedTheTombstoneIsRefused(t *testing.T) {
	w := newTwoStores(t)
	a, before := w.agent("pg01"), w.view(0)
	over, err := a.transaction(fsm.HandOver{To: "pg02", ToLease: "L2", Lease: "L1", Optime: 9, Config: before.Config.Stored()})
	if err != nil {
		t.Fatal(err)
	}
	w.begin()
	if _, err := w.store[0].Commit(t.Context(), over); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("the leader key was handed over: %v", err)
	}
	w.commit(0, dcs.Txn{Writes: []dcs.Write{{Key: dcs.KeyLeader, Delete: true}}})
	take := acquisition("pg02", fsm.AcquireLeader{Lease: "L2", Sync: before.Sync.Version, Config: before.Config.Stored()})
	if _, err := w.store[0].Commit(t.Context(), take); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("the leader key was taken: %v", err)
	}
}

// Each write of a move is refused when what it rests on has changed.
func TestTheSwitchIsTheHoldersAlone(t *testing.T) {
	w := newTwoStores(t)
	w.begin()
	a, v := w.agent("pg01"), w.view(0)
	claim := w.move(a, fsm.ClaimMove{Config: v.Config.Stored(), Lease: "L1"})
	early := w.move(a, fsm.SwitchStore{Config: v.Config.Stored(), Lease: "L1"})
	w.commit(0, claim)
	if _, err := w.store[0].Commit(t.Context(), early); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("a switch from before the claim was taken: %v", err)
	}
	if _, err := a.moveTransaction(fsm.SwitchStore{Config: v.Config.Stored() + 1, Lease: "L1"}); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("a switch on another configuration than the one seen: %v", err)
	}
	a, v = w.agent("pg01"), w.view(0)
	if m := v.Move; m.By != "pg01" || m.Run != "r1" || m.Phase != events.MoveBoth {
		t.Fatalf("the claim reads %+v", m)
	}
	withdraw := w.move(a, fsm.WithdrawMove{Config: v.Config.Stored()})
	if _, err := w.store[0].Commit(t.Context(), withdraw); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("the move was taken back while somebody leads: %v", err)
	}
	others := w.move(w.agent("pg02"), fsm.SwitchStore{Config: v.Config.Stored(), Lease: "L2"})
	if _, err := w.store[0].Commit(t.Context(), others); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("the switch of one who doesn't lead was taken: %v", err)
	}
	w.commit(0, w.move(a, fsm.SwitchStore{Config: v.Config.Stored(), Lease: "L1"}))
	if m := w.view(0).Move; m.Phase != events.MoveTarget || m.To != "there" {
		t.Errorf("after the switch: %+v", m)
	}
}

func (w *twoStores) move(a *Agent, action fsm.Action) dcs.Txn {
	w.Helper()
	t, err := a.moveTransaction(action)
	if err != nil {
		w.Fatal(err)
	}
	return t
}

func TestTheCopyDoesNotDecide(t *testing.T) {
	w := newTwoStores(t)
	w.begin()
	// The cluster was here before, and left; a wish stayed.
	w.commit(1, dcs.Txn{Writes: []dcs.Write{
		dcs.Put(dcs.KeyConfig, dcs.EncodeMove(nil, &events.StoreMove{Epoch: "e0", Phase: events.MoveTarget})),
		dcs.Put(dcs.KeyFailover, []byte(`{"leader":"pg01"}`)), dcs.Put(dcs.KeySync, []byte(`{"leader":"pg01","sync_standby":"pg03"}`)),
	}})
	a, v := w.agent("pg01"), w.view(0)
	act := fsm.CopyTarget{Epoch: "e1", Config: v.Config.Stored(), Sync: v.Sync.Version}
	rev, err := a.copyTarget(t.Context(), w.store[1], act)
	if err != nil {
		t.Fatal(err)
	}
	there := w.view(1)
	if !there.Move.Is(events.MoveIncoming) || there.Config.Stored() != rev || there.Initialize.SystemID != v.Initialize.SystemID ||
		there.Status.Optime != 9 || there.Leader.Locked() || len(there.Members) != 0 || there.Failover.Pending() || there.Sync.Leader != "" {
		t.Errorf("the copy reads %+v, written at %d", there, rev)
	}
	// Again, as after an answer that didn't come; then under a configuration that has changed.
	if _, err := a.copyTarget(t.Context(), w.store[1], act); err != nil {
		t.Errorf("the same copy again: %v", err)
	}
	act.Config++
	if _, err := a.copyTarget(t.Context(), w.store[1], act); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("a copy of what has changed: %v", err)
	}
}

func TestNothingIsCopiedInSynchronousMode(t *testing.T) {
	for _, config := range []string{`{"synchronous_mode":true}`, `{"synchronous_mode":"on"}`, `{"synchronous_mode":"quorum"}`} {
		w := newTwoStores(t)
		w.commit(0, dcs.Txn{Writes: []dcs.Write{dcs.Put(dcs.KeyConfig, []byte(config))}})
		w.begin()
		v := w.view(0)
		_, err := w.agent("pg01").copyTarget(t.Context(), w.store[1], fsm.CopyTarget{Epoch: "e1", Config: v.Config.Stored(), Sync: v.Sync.Version})
		if !errors.Is(err, dcs.ErrRefused) {
			t.Errorf("with %s: %v", config, err)
		}
	}
}

func TestACopyReplacesNoOtherCluster(t *testing.T) {
	for name, put := range map[string][]dcs.Write{
		"another cluster": {dcs.Put(dcs.KeyInitialize, []byte("7000000000000000002"))},
		"one that decides": {
			dcs.Put(dcs.KeyInitialize, []byte("7000000000000000001")), dcs.Put(dcs.KeyConfig, []byte(`{"ttl":30}`)),
		},
		"one that was settled": {dcs.Put(dcs.KeyConfig, dcs.EncodeMove(nil, &events.StoreMove{Epoch: "e0", Phase: events.MoveSettled}))},
	} {
		w := newTwoStores(t)
		w.begin()
		w.commit(1, dcs.Txn{Writes: put})
		v := w.view(0)
		_, err := w.agent("pg01").copyTarget(t.Context(), w.store[1], fsm.CopyTarget{Epoch: "e1", Config: v.Config.Stored(), Sync: v.Sync.Version})
		if !errors.Is(err, dcs.ErrRefused) {
			t.Errorf("%s was replaced: %v", name, err)
		}
	}
}

// The keeper refuses revisions that go back, and those of the next store begin anywhere.
func TestTheKeepersRevisionsGoOnCounting(t *testing.T) {
	a := &Agent{opt: Options{KeeperBase: 1000}}
	var seen []events.Revision
	for _, rev := range []events.Revision{0, 1, 7} {
		got := a.toKeeper(rev)
		if back := a.fromKeeper(got); back != rev {
			t.Errorf("%d came back as %d", rev, back)
		}
		seen = append(seen, got)
	}
	if !slices.Equal(seen, []events.Revision{0, 1001, 1007}) {
		t.Errorf("the keeper gets %v", seen)
	}
	if got := a.fromKeeper(900); got != 1 {
		t.Errorf("what was said under the store before is %d, not older than all here", got)
	}
}
