package embedded

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestAHeartbeatWaitsUntilAVoterHeardNothingForAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacing{every: 100 * time.Millisecond}
		took := func(ctx context.Context, term uint64) time.Duration {
			began := time.Now()
			p.await(ctx, "a", term)
			return time.Since(began)
		}
		if d := took(t.Context(), 1); d != 0 {
			t.Errorf("a voter that never heard of this node waits %v", d)
		}
		p.accepted("a", 1, time.Now())
		go func() {
			pause(t.Context(), 60*time.Millisecond)
			p.accepted("a", 1, time.Now())
		}()
		if d := took(t.Context(), 1); d != 160*time.Millisecond {
			t.Errorf("after requests at 0 and 60 ms a heartbeat waits %v, not 160 ms", d)
		}
		p.accepted("a", 1, time.Now())
		if d := took(t.Context(), 2); d != 0 {
			t.Errorf("the first heartbeat of a term waits %v because of the term before", d)
		}
		p.accepted("a", 2, time.Now())
		p.accepted("a", 1, time.Now().Add(time.Millisecond))
		ended, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		if d := took(ended, 2); d != 30*time.Millisecond {
			t.Errorf("the store was closed after 30 ms, the heartbeat waited %v", d)
		}
	})
}

// What three idle nodes say to each other, counted where no clock of a busy machine
// disturbs. Without pacing it is half as much again.
func TestAnIdleStoreIsNearlySilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3)
		defer v.closeAll()
		if _, err := v.any(0).View(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		pause(t.Context(), 5*time.Second)
		before := v.net.writes.Load()
		pause(t.Context(), 100*time.Second)
		each := float64(v.net.writes.Load()-before) / 200
		t.Logf("%.1f requests a second to each follower", each)
		if each > 12 {
			t.Errorf("%.1f requests a second reach each follower of an idle store", each)
		}
		if each < 1/0.12 {
			t.Errorf("%.1f requests a second: a follower that is patient for 300 ms would miss two in a row", each)
		}
		for i := range v.stores {
			if term := v.stores[i].raft.CurrentTerm(); term != v.stores[0].raft.CurrentTerm() || term > 4 {
				t.Errorf("the idle store is in term %d", term)
			}
		}
	})
}
