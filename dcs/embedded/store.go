package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded/kv"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/routines"
)

// Store is a node of the embedded store. It implements dcs.Store and is safe for
// concurrent use. Close it to leave the port and the folder.
type Store struct {
	cfg       Config
	log       *slog.Logger
	quiet     *throttle
	folder    *folder
	replica   *replica
	transport *transport
	raft      *raft.Raft
	listener  *listener
	disk      *disk
	guard     *guard
	peers     *peers
	// outside is how this node uses the store while it is no part of the cluster.
	outside *Client

	// life ends when the store is closed.
	life context.Context
	end  context.CancelFunc
	// side is where this node is now, see membership.go; entering serialises its
	// changes. expelled: it is outside because others said so.
	side     atomic.Pointer[phase]
	entering sync.Mutex
	expelled atomic.Bool
	// changing is held while this leader changes the cluster's servers.
	changing sync.Mutex

	// run counts the store's own goroutines; futures, those that wait for raft and
	// those that feed watches.
	run     sync.WaitGroup
	futures routines.Group

	offices *offices
	office  atomic.Pointer[office]
	tenure  atomic.Uint64
	// quorumAt is an events.Instant; see noteQuorum.
	quorumAt atomic.Int64
	// standing tells that leadership may have changed, here or elsewhere; health, that
	// another voter came back or the voters changed.
	standing *signal
	health   *signal

	watchLeader  sync.Mutex // guards the two below
	leaderWaits  map[uint64]leaderWait
	leaderTicket uint64

	closing sync.Once
	closed  error
}

var _ dcs.Store = (*Store)(nil)

// alive returns an error when a call shouldn't begin.
func (s *Store) alive(ctx context.Context) error {
	if s.life.Err() != nil {
		return fmt.Errorf("%w: the store is closed", dcs.ErrUnavailable)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", dcs.ErrUnavailable, err)
	}
	return nil
}

// Commit implements dcs.Store.
func (s *Store) Commit(ctx context.Context, t dcs.Txn) (events.Revision, error) {
	return commit(ctx, t, s.propose)
}

// Grant implements dcs.Store. Ids are the caller's choice.
func (s *Store) Grant(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
	return grant(ctx, id, ttl, s.propose)
}

// Renew implements dcs.Store. The keys are those at the renewal's own place in the
// log, which is as linearizable as a read can be (safety rule S8).
func (s *Store) Renew(ctx context.Context, id events.LeaseID) (dcs.Lease, error) {
	return renew(ctx, id, s.propose)
}

// Revoke implements dcs.Store.
func (s *Store) Revoke(ctx context.Context, id events.LeaseID) error {
	return revoke(ctx, id, s.propose)
}

// The operations of the contract as commands; Store and Client differ only in how
// they propose them.

type proposer func(context.Context, kv.Command) (kv.Result, error)

func commit(ctx context.Context, t dcs.Txn, propose proposer) (events.Revision, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	r, err := propose(ctx, kv.TxnCommand(t))
	if err != nil {
		return 0, err
	}
	return r.Revision, nil
}

func grant(ctx context.Context, id events.LeaseID, ttl time.Duration, propose proposer) (dcs.Lease, error) {
	if ttl <= 0 {
		return dcs.Lease{}, fmt.Errorf("grant: %w: a lease of %v", dcs.ErrBroken, ttl)
	}
	attempt := rand.Text()
	if id == "" {
		id = events.LeaseID(rand.Text())
	}
	r, err := propose(ctx, kv.Command{V: kv.Version, Op: kv.OpGrant, Lease: id, TTL: ttl, ID: attempt})
	if err != nil {
		return dcs.Lease{}, err
	}
	return dcs.Lease{ID: id, TTL: r.TTL}, nil
}

func renew(ctx context.Context, id events.LeaseID, propose proposer) (dcs.Lease, error) {
	r, err := propose(ctx, kv.Command{V: kv.Version, Op: kv.OpRenew, Lease: id})
	if err != nil {
		return dcs.Lease{}, err
	}
	return dcs.Lease{ID: id, TTL: r.TTL, Keys: r.Keys}, nil
}

func revoke(ctx context.Context, id events.LeaseID, propose proposer) error {
	_, err := propose(ctx, kv.Command{V: kv.Version, Op: kv.OpRevoke, Lease: id})
	return err
}

// closePatience bounds each step of an orderly end.
const closePatience = time.Second

// Close implements dcs.Store. A leader hands leadership on first, so that its going
// costs the others no election time-out.
func (s *Store) Close() error {
	s.closing.Do(func() { s.closed = s.shutDown() })
	return s.closed
}

func (s *Store) shutDown() error {
	if s.raft.State() == raft.Leader && len(s.configuration().Servers) > 1 {
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		if err := s.wait(ctx, s.raft.LeadershipTransfer); err != nil {
			s.log.Info("leadership of the embedded store wasn't handed on", "err", err)
		}
		cancel()
	}
	s.futures.Close()
	s.end()
	// A leader without a majority ends its proposals within its lease; raft forgets
	// those that are under way when it is shut down, so they get that time.
	idle := make(chan struct{})
	go func() { s.futures.Wait(); close(idle) }()
	timer := time.NewTimer(closePatience)
	select {
	case <-idle:
	case <-timer.C:
	}
	timer.Stop()
	s.listener.close()
	s.peers.close()
	errRaft := s.raft.Shutdown().Error()
	s.run.Wait()
	return errors.Join(errRaft, s.outside.Close(), s.folder.close())
}
