package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/agent"
	"github.com/pgregent/regent/internal/api"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/stores"
)

// A move to another store (ADR 0024) as the process sees it. The agent's run ends with
// agent.ErrMoved; the process makes everything anew around the store that the cluster was
// moved to, which is open already, and keeps the one that was left until nobody needs it.

// targetStore is the store of regent.dcs_target, open or not.
type targetStore struct {
	store dcs.Store
	as    *config.Config // as which it was opened
}

// moving is what a run hands to the one after a move.
type moving struct {
	target targetStore
	moved  stores.Moved
	left   dcs.Store      // the store before
	lease  events.LeaseID // this member's lease in it
	others []events.NodeName
}

// openTarget opens the target once. to is the move's own word for it; empty: unknown yet.
func (d *daemon) openTarget(to string) (dcs.Store, error) {
	d.targeting.Lock()
	defer d.targeting.Unlock()
	d.mu.Lock()
	file := d.file
	d.mu.Unlock()
	c, ok := file.Target()
	switch {
	case !ok:
		return nil, fmt.Errorf("open the target: %w: the file of %s has no regent.dcs_target; add it, and reload", dcs.ErrBroken, file.Name)
	case to != "" && stores.Describe(c) != to:
		return nil, fmt.Errorf("open the target: %w: the move leads to %q, and regent.dcs_target of %s is %q", dcs.ErrBroken,
			to, file.Name, stores.Describe(c))
	case d.target.store != nil && stores.Same(d.target.as, c):
		return d.target.store, nil
	case d.target.store != nil:
		if err := d.target.store.Close(); err != nil {
			d.log.Warn("the former target could not be closed", "err", err)
		}
		d.target = targetStore{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	store, err := openStore(ctx, c, d.log)
	if err != nil {
		return nil, err
	}
	d.target = targetStore{store: store, as: c}
	return store, nil
}

// describeTarget answers an operator who prepares a move: what this member's file says,
// and whether it reaches the target.
func (d *daemon) describeTarget(ctx context.Context, key string) api.TargetReport {
	d.mu.Lock()
	file, local := d.file, d.local
	d.mu.Unlock()
	r := api.TargetReport{InForce: stores.Describe(local), File: stores.Describe(file), Epoch: d.moved.Epoch}
	c, ok := file.Target()
	if !ok {
		r.Problem = "regent.dcs_target is not in its file"
		return r
	}
	r.Target, r.Digest = stores.Describe(c), stores.Digest(c, key)
	store, err := d.openTarget("")
	if err == nil {
		_, err = store.View(ctx, dcs.Linearizable)
	}
	if err != nil {
		r.Problem = err.Error()
	}
	return r
}

// move prepares the run on the target.
func (d *daemon) move(s *fsm.State) (*moving, error) {
	to := ""
	if t := s.Store.View.Move; t != nil {
		to = t.To
	}
	// One that comes late has not opened it yet.
	if _, err := d.openTarget(to); err != nil {
		return nil, fmt.Errorf("%w: the cluster has been moved to another store (docs/operations/move-between-stores.md): %w", agent.ErrExit, err)
	}
	d.targeting.Lock()
	defer d.targeting.Unlock()
	m := &moving{
		target: d.target, left: d.store, lease: s.Lease.ID,
		moved: stores.Moved{Epoch: s.Move.Epoch, From: stores.Describe(d.file), To: stores.Describe(d.target.as),
			Base: d.moved.Base + s.Newest()},
	}
	for _, other := range s.Store.View.Members {
		m.others = append(m.others, other.Name)
	}
	if err := m.moved.Write(d.local.Regent.RunDir); err != nil {
		d.log.Warn("after a restart the agent will look for the cluster in the store that was left, and be led on from there", "err", err)
	}
	d.log.Warn("the cluster has been moved to another store; change this member's file now", "from", m.moved.From, "to", m.moved.To)
	d.store, d.target = nil, targetStore{} // they live on
	return m, nil
}

// The patience with a store that was left.
const (
	leaveRetry  = 200 * time.Millisecond
	leaveWithin = 10 * time.Minute
)

// leave gives up what this member holds in the store that was left, last, and closes it. The
// embedded one is kept for those who have not come along yet: they read there where to go.
func (m *moving) leave(ctx context.Context, d *daemon, a *agent.Agent) {
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	_ = a.Wait(ctx, func(s *fsm.State) bool {
		if !s.Store.View.Move.Is(events.MoveSettled) {
			return false
		}
		return !slices.ContainsFunc(m.others, func(n events.NodeName) bool {
			_, here := s.Store.View.Member(n)
			return !here
		})
	}) // or nobody waits any longer
	for m.lease != "" && ctx.Err() == nil {
		call, done := context.WithTimeout(ctx, 2*time.Second)
		err := m.left.Revoke(call, m.lease)
		done()
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(leaveRetry):
		}
	}
	if err := m.left.Close(); err != nil {
		d.log.Warn("the store that was left could not be closed", "err", err)
	}
	d.log.Info("the store that was left is not used any more")
}
