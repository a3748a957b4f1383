package metrics

import (
	"context"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// Store returns the store with its round trips counted. Watches are not: they ask once and
// are told ever after.
func (m *Meter) Store(s dcs.Store) dcs.Store { return &metered{Store: s, m: m} }

// metered is the store that the agent gets.
type metered struct {
	dcs.Store
	m *Meter
}

// trip is what round trips are told apart by.
type trip struct {
	op    string
	class events.Class
}

func (s *metered) count(op string, began time.Time, err error) {
	s.m.tripped(trip{op, dcs.ClassOf(err)}, time.Since(began))
}

// View counts linearizable views only; a local one doesn't leave the process.
func (s *metered) View(ctx context.Context, c dcs.Consistency) (dcs.View, error) {
	began := time.Now()
	v, err := s.Store.View(ctx, c)
	if c == dcs.Linearizable {
		s.count("view", began, err)
	}
	return v, err
}

// Commit implements dcs.Store.
func (s *metered) Commit(ctx context.Context, t dcs.Txn) (events.Revision, error) {
	began := time.Now()
	r, err := s.Store.Commit(ctx, t)
	s.count("commit", began, err)
	return r, err
}

// Grant implements dcs.Store.
func (s *metered) Grant(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
	began := time.Now()
	l, err := s.Store.Grant(ctx, id, ttl)
	s.count("grant", began, err)
	return l, err
}

// Renew implements dcs.Store.
func (s *metered) Renew(ctx context.Context, id events.LeaseID) (dcs.Lease, error) {
	began := time.Now()
	l, err := s.Store.Renew(ctx, id)
	s.count("renew", began, err)
	return l, err
}

// Revoke implements dcs.Store.
func (s *metered) Revoke(ctx context.Context, id events.LeaseID) error {
	began := time.Now()
	err := s.Store.Revoke(ctx, id)
	s.count("revoke", began, err)
	return err
}
