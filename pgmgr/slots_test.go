package pgmgr

import (
	"slices"
	"testing"

	"github.com/pgregent/regent/events"
)

func TestSlotName(t *testing.T) {
	t.Parallel()
	for member, want := range map[events.NodeName]string{
		"pg01": "pg01", "PG-01.example": "pg_01_example", "a b": "au0032b", "ü": "u0252", "数": "u25968", "x_y": "x_y",
		"0123456789012345678901234567890123456789012345678901234567890123456789": "012345678901234567890123456789012345678901234567890123456789012",
	} {
		if got := SlotName(member); got != want {
			t.Errorf("slot of %q is %q, want %q", member, got, want)
		}
	}
}

func TestSyncSlotsTouchesOnlyWhatItWasTold(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	a.sql("SELECT pg_create_physical_replication_slot('mine'), pg_create_physical_replication_slot('old')")
	created, dropped, err := a.SyncSlots(a.ctx(), []string{"b", "c", "b"}, []string{"old", "absent"})
	a.must("synchronize", err)
	if !slices.Equal(created, []string{"b", "c"}) || !slices.Equal(dropped, []string{"old"}) {
		t.Errorf("created %v, dropped %v", created, dropped)
	}
	a.wantSlots("b", "c", "mine")
	for _, s := range a.observe().Slots {
		if s.Name != "mine" && s.RestartLSN == 0 {
			t.Errorf("slot %s reserves no WAL", s.Name)
		}
	}
	created, dropped, err = a.SyncSlots(a.ctx(), []string{"b", "c"}, []string{"b"})
	a.must("synchronize again", err)
	if len(created)+len(dropped) > 0 {
		t.Errorf("the second time created %v and dropped %v", created, dropped)
	}
	if _, _, err = a.SyncSlots(a.ctx(), []string{"No Slot", "d"}, nil); err == nil {
		t.Error("an impossible slot name gives no error")
	}
	a.wantSlots("b", "c", "d", "mine")
}

func TestSyncSlotsLeavesAnActiveSlotAndAReplicaAlone(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := emptyNode(t, "b")
	cfg := b.config()
	cfg.UseSlots = true
	b.must("reconfigure", b.Reconfigure(cfg))
	a.sqlSlots(b)
	b.must("clone", b.Clone(b.ctx(), a.upstream(), CloneOptions{}))
	b.startReplica(a).awaitStreaming(a)
	_, dropped, err := a.SyncSlots(a.ctx(), nil, []string{"b"})
	a.must("synchronize", err)
	if len(dropped) > 0 {
		t.Errorf("dropped %v, which is in use", dropped)
	}
	if s := a.observe().Slots; len(s) != 1 || !s[0].Active || s[0].Type != "physical" {
		t.Errorf("slots %+v", s)
	}
	created, _, err := b.SyncSlots(b.ctx(), []string{"x"}, nil)
	b.must("synchronize on a replica", err)
	if len(created) > 0 {
		t.Errorf("created %v on a replica", created)
	}
}

func (n *node) wantSlots(names ...string) {
	n.t.Helper()
	var got []string
	for _, s := range n.observe().Slots {
		got = append(got, s.Name)
	}
	if !slices.Equal(got, names) {
		n.t.Errorf("slots on %s: %v, want %v", n.name, got, names)
	}
}
