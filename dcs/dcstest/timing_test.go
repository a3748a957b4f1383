package dcstest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
)

// The model's timing lies within what was recorded of the real stores (testdata/timing, written
// by `make timing`). It is their early edge: a lease ends when it may first end, a write is shown
// and another server answers without any time passing. So it may be no earlier than what a real
// lease was granted for, which a recording from a store that ends leases early would contradict,
// and no later than any real one was; how late real ones are, the recordings say.
func TestModelsTimingIsWithinTheRecorded(t *testing.T) {
	files, err := filepath.Glob("testdata/timing/*.json")
	if err != nil || len(files) < 2 {
		t.Fatalf("recordings of etcd and Consul are wanted, there are %v (%v)", files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var real Timing
		if err := json.Unmarshal(content, &real); err != nil {
			t.Fatal(err)
		}
		t.Run(real.Backend, func(t *testing.T) {
			if len(real.Gone) < 3 || len(real.Watched) < 10 || len(real.Failover) < 3 || real.Granted <= 0 {
				t.Fatalf("the recording is incomplete: %+v", real)
			}
			if real.Granted > real.Asked || slices.Min(real.Gone) < real.Granted {
				t.Errorf("a lease was believed for longer than it was asked for, or lived: %+v", real)
			}
			asked := time.Duration(real.Granted) * time.Millisecond
			gone, watched, failover := modelTiming(t, asked)
			if gone < asked || gone.Milliseconds() > slices.Min(real.Gone) {
				t.Errorf("the model's lease of %v ended after %v, the real ones after %v ms", asked, gone, real.Gone)
			}
			if watched.Milliseconds() > slices.Min(real.Watched) || failover.Milliseconds() > slices.Min(real.Failover) {
				t.Errorf("the model shows a write after %v and fails over in %v, slower than the real one: %+v", watched, failover, real)
			}
			t.Logf("a lease of %v: the model's ended after %v, real ones %v to %v ms; a watch: %v, real %v to %v ms; fail-over: %v, real %v to %v ms",
				asked, gone, slices.Min(real.Gone), slices.Max(real.Gone), watched, slices.Min(real.Watched), slices.Max(real.Watched),
				failover, slices.Min(real.Failover), slices.Max(real.Failover))
		})
	}
}

// modelTiming measures the model as the real ones are, on a clock that is moved by hand: the
// times are the model's own, whatever this machine is doing.
func modelTiming(t *testing.T, asked time.Duration) (gone, watched, failover time.Duration) {
	t.Helper()
	now := events.Instant(0)
	cluster := mem.New(func() events.Instant { return now })
	writer, watcher := cluster.Client("a"), cluster.Client("b")
	ctx := t.Context()
	// until moves the clock by milliseconds until the other client sees what is wanted.
	until := func(is func(dcs.View) bool) time.Duration {
		for began := now; ; now = now.Add(time.Millisecond) {
			v, err := watcher.View(ctx, dcs.Linearizable)
			if err == nil && is(v) {
				return now.Sub(began)
			}
			if now.Sub(began) > time.Hour {
				t.Fatal("the model never showed it")
			}
		}
	}
	put := func(w dcs.Write) {
		t.Helper()
		if _, err := writer.Commit(ctx, dcs.Txn{Writes: []dcs.Write{w}}); err != nil {
			t.Fatal(err)
		}
	}
	l, err := writer.Grant(ctx, "", asked)
	if err != nil || l.TTL != asked {
		t.Fatalf("%+v, %v", l, err)
	}
	put(dcs.Write{Key: "lease", Lease: l.ID})
	gone = until(func(v dcs.View) bool { _, there := v.Get("lease"); return !there })
	put(dcs.Put("watch", []byte("1")))
	watched = until(func(v dcs.View) bool { kv, _ := v.Get("watch"); return string(kv.Value) == "1" })
	cluster.Cut("a", true) // whose server is killed; the other client's goes on
	failover = until(func(v dcs.View) bool {
		_, err := watcher.Commit(ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put("failover", fmt.Append(nil, now))}})
		return err == nil
	})
	return gone, watched, failover
}
