package dcstest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
)

// Timing is how long a backend took for what the model does at once. Milliseconds, each with one
// value per try.
type Timing struct {
	Backend string `json:"backend"`
	// Asked and Granted are a lease's length as it was asked for, and as it may be believed.
	Asked   int64 `json:"lease_asked_ms"`
	Granted int64 `json:"lease_granted_ms"`
	// Gone is from before a lease was asked for until a watch showed that its key was gone.
	Gone []int64 `json:"lease_gone_ms"`
	// Watched is from before a write was sent until another client's watch showed it.
	Watched []int64 `json:"watch_ms"`
	// Failover is from the SIGKILL of the servers' leader to the next write that was done.
	Failover []int64 `json:"failover_ms,omitempty"`
}

// MeasureTiming measures a backend, and fails the test where a lease ended before its time.
// REGENT_TIMING names a folder for the recording, for which more is tried and leaders are
// killed (`make timing`); otherwise it is a short look at the one promise.
func MeasureTiming(t *testing.T, env Env, lease time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := os.Getenv("REGENT_TIMING")
	leases, watches, kills := 1, 3, 0
	if dir != "" {
		leases, watches, kills = 5, 50, 5
	}
	m := &timing{t: t, ctx: ctx, env: env, Timing: Timing{Backend: env.Backend, Asked: lease.Milliseconds()}}
	views, err := env.Stores[1].Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range leases {
		m.lease(views, lease)
	}
	for i := range watches {
		m.watch(views, fmt.Sprint(i))
	}
	for range kills {
		m.failover()
	}
	t.Logf("%+v", m.Timing)
	if dir != "" {
		m.write(dir)
	}
}

type timing struct {
	t   *testing.T
	ctx context.Context
	env Env
	Timing
}

// shown waits until a watch shows what is wanted.
func (m *timing) shown(views <-chan dcs.View, is func(dcs.View) bool) {
	m.t.Helper()
	for {
		select {
		case v, open := <-views:
			if !open {
				m.t.Fatal("the watch ended")
			}
			if is(v) {
				return
			}
		case <-m.ctx.Done():
			m.t.Fatal("the watch didn't show it in time")
		}
	}
}

// put writes until it is known to have happened, and returns when the last try began.
func (m *timing) put(w dcs.Write) (began time.Time, err error) {
	for {
		began = time.Now()
		_, err = m.env.Stores[0].Commit(m.ctx, dcs.Txn{Writes: []dcs.Write{w}})
		if err == nil || errors.Is(err, dcs.ErrRefused) || m.ctx.Err() != nil {
			return began, err
		}
	}
}

func (m *timing) lease(views <-chan dcs.View, asked time.Duration) {
	m.t.Helper()
	began := time.Now()
	l, err := m.env.Stores[0].Grant(m.ctx, "", asked)
	if err != nil {
		m.t.Fatal(err)
	}
	_, err = m.put(dcs.Write{Key: "timing/lease", Value: []byte(l.ID), Lease: l.ID})
	if errors.Is(err, dcs.ErrRefused) && time.Since(began) > l.TTL {
		m.lease(views, asked) // this machine was too busy to use it in time
		return
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.shown(views, func(v dcs.View) bool { kv, _ := v.Get("timing/lease"); return string(kv.Value) == string(l.ID) })
	m.shown(views, func(v dcs.View) bool { _, there := v.Get("timing/lease"); return !there })
	gone := time.Since(began)
	if gone < l.TTL {
		m.t.Errorf("a lease of %v ended after %v", l.TTL, gone)
	}
	m.Granted = l.TTL.Milliseconds()
	m.Gone = append(m.Gone, gone.Milliseconds())
}

func (m *timing) watch(views <-chan dcs.View, value string) {
	m.t.Helper()
	began, err := m.put(dcs.Put("timing/watch", []byte(value)))
	if err != nil {
		m.t.Fatal(err)
	}
	m.shown(views, func(v dcs.View) bool { kv, _ := v.Get("timing/watch"); return string(kv.Value) == value })
	m.Watched = append(m.Watched, time.Since(began).Milliseconds())
}

// failover kills who leads the servers, and writes by whichever client gets through.
func (m *timing) failover() {
	m.t.Helper()
	leader, err := m.env.Faults.Leader(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	began := time.Now()
	heal, err := m.env.Faults.Inflict(KillServer, leader)
	if err != nil {
		m.t.Fatal(err)
	}
	for i := 0; ; i++ {
		ctx, cancel := context.WithTimeout(m.ctx, 500*time.Millisecond)
		_, err := m.env.Stores[i%len(m.env.Stores)].Commit(ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put("timing/failover", nil)}})
		cancel()
		if err == nil {
			break
		}
		if m.ctx.Err() != nil {
			m.t.Fatal(errors.Join(err, heal()))
		}
	}
	m.Failover = append(m.Failover, time.Since(began).Milliseconds())
	if err := heal(); err != nil {
		m.t.Fatal(err)
	}
	for _, s := range m.env.Stores { // all are back before the next one is killed
		for {
			ctx, cancel := context.WithTimeout(m.ctx, time.Second)
			_, err := s.View(ctx, dcs.Linearizable)
			cancel()
			if err == nil {
				break
			}
			if m.ctx.Err() != nil {
				m.t.Fatal(err)
			}
		}
	}
}

func (m *timing) write(dir string) {
	m.t.Helper()
	text, err := json.MarshalIndent(m.Timing, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, m.t.Name()+".json"), append(text, '\n'), 0o644)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}
