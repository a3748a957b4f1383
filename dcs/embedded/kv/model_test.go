package kv_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded/kv"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
)

// The machine and the reference model were written apart. Given the same calls at the
// same times, they must give the same answers and hold the same content.
func TestTheMachineAgreesWithTheReferenceModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := events.Instant(1)
		model := mem.New(func() events.Instant { return now }).Client("a")
		machine := kv.New()
		for n := range rapid.IntRange(1, 80).Draw(t, "calls") {
			now += events.Instant(rapid.IntRange(0, 30).Draw(t, "later"))
			c := drawValid(t)
			c.V, c.Term, c.Stamp, c.ID = kv.Version, 1, int64(now), fmt.Sprint(n)
			data, err := c.Encode()
			if err != nil {
				t.Fatal(err)
			}
			result := machine.Apply(1, data)
			rev, lease, err := onModel(t, model, c)
			if want := classOf(err); result.Class != want {
				t.Fatalf("%+v: the machine says %+v, the model %v", c, result, err)
			}
			if err == nil && c.Op == kv.OpTxn && result.Revision != rev {
				t.Fatalf("%+v: revision %d, in the model %d", c, result.Revision, rev)
			}
			if err == nil && c.Op == kv.OpRenew && (!slices.Equal(result.Keys, lease.Keys) || result.TTL != lease.TTL) {
				t.Fatalf("%+v: %+v, in the model %+v", c, result, lease)
			}
			v, err := model.View(t.Context(), dcs.Linearizable)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(machine.Content()); got != fmt.Sprint(v.KVs) || machine.Revision() != v.Revision {
				t.Fatalf("after %+v: revision %d\n%s\nin the model %d\n%v", c, machine.Revision(), got, v.Revision, v.KVs)
			}
		}
	})
}

func drawValid(t *rapid.T) kv.Command {
	lease := rapid.SampledFrom([]events.LeaseID{"l1", "l2", "l3"})
	key := rapid.SampledFrom([]string{"leader", "sync", "members/a"})
	c := kv.Command{Op: rapid.SampledFrom([]kv.Op{kv.OpGrant, kv.OpRenew, kv.OpRevoke, kv.OpTxn, kv.OpTxn, kv.OpTxn, kv.OpTick}).Draw(t, "op")}
	if c.Op != kv.OpTxn {
		c.Lease, c.TTL = lease.Draw(t, "lease"), time.Duration(rapid.IntRange(1, 100).Draw(t, "ttl"))
		return c
	}
	for range rapid.IntRange(0, 2).Draw(t, "guards") {
		g := kv.Guard{Key: key.Draw(t, "guarded")}
		switch rapid.IntRange(0, 3).Draw(t, "condition") {
		case 0:
			g.Absent = true
		case 1:
			g.Version = events.Revision(rapid.IntRange(1, 30).Draw(t, "version"))
		case 2:
			v := []byte(rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "value"))
			g.Value = &v
		default:
			g.Lease = lease.Draw(t, "attached")
		}
		c.Guards = append(c.Guards, g)
	}
	for _, k := range []string{"leader", "sync", "members/a"}[:rapid.IntRange(1, 3).Draw(t, "writes")] {
		w := kv.Write{Key: k, Value: []byte(rapid.SampledFrom([]string{"1", "2"}).Draw(t, "put")), Delete: rapid.Bool().Draw(t, "delete")}
		if rapid.Bool().Draw(t, "leased") {
			w.Lease = lease.Draw(t, "to")
		}
		c.Writes = append(c.Writes, w)
	}
	return c
}

func onModel(t *rapid.T, model *mem.Client, c kv.Command) (rev events.Revision, lease dcs.Lease, err error) {
	switch c.Op {
	case kv.OpGrant:
		lease, err = model.Grant(t.Context(), c.Lease, c.TTL)
	case kv.OpRenew:
		lease, err = model.Renew(t.Context(), c.Lease)
	case kv.OpRevoke:
		err = model.Revoke(t.Context(), c.Lease)
	case kv.OpTxn:
		var txn dcs.Txn
		for _, g := range c.Guards {
			guard := dcs.Guard{Key: g.Key, Absent: g.Absent, Version: g.Version, Lease: g.Lease}
			if g.Value != nil {
				s := string(*g.Value)
				guard.Value = &s
			}
			txn.Guards = append(txn.Guards, guard)
		}
		for _, w := range c.Writes {
			txn.Writes = append(txn.Writes, dcs.Write(w))
		}
		rev, err = model.Commit(t.Context(), txn)
	}
	return rev, lease, err
}

func classOf(err error) kv.Class {
	switch {
	case err == nil:
		return kv.OK
	case errors.Is(err, dcs.ErrRefused):
		return kv.Refused
	default:
		return kv.Broken
	}
}
