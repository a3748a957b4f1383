package dcstest

import (
	"context"
	"errors"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// judge passes calls on to a store and complains of every answer that no call may
// give: an error of no class or of two, a return after the deadline, a successful
// linearizable view of unknown age, a lease of another id or without time.
type judge struct {
	store   dcs.Store
	t       T
	overrun time.Duration
}

var _ dcs.Store = judge{}

// call judges how one call ended.
func (j judge) call(ctx context.Context, op string, err error) {
	j.t.Helper()
	if deadline, ok := ctx.Deadline(); ok && time.Since(deadline) > j.overrun {
		j.t.Errorf("%s returned %v after its deadline: %v", op, time.Since(deadline), err)
	}
	if err == nil {
		return
	}
	classes := 0
	for _, class := range []error{dcs.ErrRefused, dcs.ErrUnavailable, dcs.ErrUnknown, dcs.ErrBroken} {
		if errors.Is(err, class) {
			classes++
		}
	}
	if classes != 1 {
		j.t.Errorf("%s: an error of %d classes: %v", op, classes, err)
	}
}

func (j judge) View(ctx context.Context, c dcs.Consistency) (dcs.View, error) {
	j.t.Helper()
	v, err := j.store.View(ctx, c)
	j.call(ctx, "view", err)
	if err == nil && c == dcs.Linearizable && v.Age < 0 {
		j.t.Errorf("a linearizable view doesn't know its age")
	}
	return v, err
}

func (j judge) Watch(ctx context.Context) (<-chan dcs.View, error) {
	j.t.Helper()
	w, err := j.store.Watch(ctx)
	j.call(ctx, "watch", err)
	return w, err
}

func (j judge) Commit(ctx context.Context, t dcs.Txn) (events.Revision, error) {
	j.t.Helper()
	rev, err := j.store.Commit(ctx, t)
	j.call(ctx, "commit", err)
	if err == nil && rev <= 0 {
		j.t.Errorf("a commit at revision %d", rev)
	}
	return rev, err
}

func (j judge) Grant(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
	j.t.Helper()
	l, err := j.store.Grant(ctx, id, ttl)
	j.call(ctx, "grant", err)
	if err == nil && (l.ID == "" || l.TTL <= 0) {
		j.t.Errorf("granted %+v", l)
	}
	return l, err
}

func (j judge) Renew(ctx context.Context, id events.LeaseID) (dcs.Lease, error) {
	j.t.Helper()
	l, err := j.store.Renew(ctx, id)
	j.call(ctx, "renew", err)
	if err == nil && (l.ID != id || l.TTL <= 0) {
		j.t.Errorf("renewing %s granted %+v", id, l)
	}
	return l, err
}

func (j judge) Revoke(ctx context.Context, id events.LeaseID) error {
	j.t.Helper()
	err := j.store.Revoke(ctx, id)
	j.call(ctx, "revoke", err)
	return err
}

func (j judge) Close() error { return j.store.Close() }
