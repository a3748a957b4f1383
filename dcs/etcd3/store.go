package etcd3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/routines"
)

// Store is one cluster's keys in etcd. It implements dcs.Store and is safe for
// concurrent use. Close it to free its connections.
type Store struct {
	cfg   Config
	log   *slog.Logger
	pool  *pool
	guard guard
	login atomic.Pointer[login]

	mirror mirror
	// following begins with the first reader that wants to be told of changes.
	following sync.Once
	// trouble asks for a look at etcd's member list.
	trouble chan struct{}

	// life ends when the store is closed; calls are what has to end before Close does.
	life  context.Context
	end   context.CancelFunc
	calls routines.Group

	closing sync.Once
	closed  error
}

var _ dcs.Store = (*Store)(nil)

// Open makes a store. It connects to nothing yet, so it succeeds while etcd is down; its
// errors are about the configuration (ErrBroken).
func Open(cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open etcd: %w", err)
	}
	s := &Store{cfg: cfg, log: cfg.Logger, pool: &pool{tls: cfg.TLS}, trouble: make(chan struct{}, 1)}
	s.mirror.changed = make(chan struct{})
	s.life, s.end = context.WithCancel(context.Background())
	s.Login(cfg.Username, cfg.Password)
	if err := s.pool.set(cfg.Endpoints); err != nil {
		return nil, errors.Join(fmt.Errorf("open etcd: %w: %w", dcs.ErrBroken, err), s.Close())
	}
	if !cfg.Fixed {
		s.calls.Start(s.keepMembers)
	}
	return s, nil
}

// Login changes user and password; connections stay, and log in anew.
func (s *Store) Login(username, password string) {
	if username == "" {
		s.login.Store(nil)
		return
	}
	s.login.Store(&login{username, password})
}

// Commit implements dcs.Store. It is sent once.
func (s *Store) Commit(ctx context.Context, t dcs.Txn) (events.Revision, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	ctx, cancel, err := s.bound(ctx)
	if err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	defer cancel()
	req := s.transaction(t)
	r, err := once(ctx, s, func(ctx context.Context, e *endpoint) (*pb.TxnResponse, error) {
		return ask(ctx, s, e, func(ctx context.Context) (*pb.TxnResponse, error) {
			return pb.NewKVClient(e.conn).Txn(ctx, req)
		})
	})
	if err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	s.guard.note(r.Header)
	if !r.Succeeded {
		return 0, fmt.Errorf("commit: %w: a guard doesn't hold", dcs.ErrRefused)
	}
	return events.Revision(r.Header.Revision), nil
}

// Grant implements dcs.Store. An id of 16 hexadecimal digits is kept but for its highest
// bit; etcd takes no others. TTLs are whole seconds, and etcd has a least one that follows
// from its election time-out.
func (s *Store) Grant(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
	if ttl <= 0 {
		return dcs.Lease{}, fmt.Errorf("grant: %w: a lease of %v", dcs.ErrBroken, ttl)
	}
	n, err := freshNumber(id)
	if err != nil {
		return dcs.Lease{}, err
	}
	ctx, cancel, err := s.bound(ctx)
	if err != nil {
		return dcs.Lease{}, fmt.Errorf("grant: %w", err)
	}
	defer cancel()
	r, err := once(ctx, s, func(ctx context.Context, e *endpoint) (*pb.LeaseGrantResponse, error) {
		return ask(ctx, s, e, func(ctx context.Context) (*pb.LeaseGrantResponse, error) {
			return pb.NewLeaseClient(e.conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: n, TTL: wholeSeconds(ttl)})
		})
	})
	if err != nil {
		return dcs.Lease{}, fmt.Errorf("grant: %w", err)
	}
	return dcs.Lease{ID: leaseID(r.ID), TTL: time.Duration(r.TTL) * time.Second}, nil
}

// Revoke implements dcs.Store.
func (s *Store) Revoke(ctx context.Context, id events.LeaseID) error {
	ctx, cancel, err := s.bound(ctx)
	if err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	defer cancel()
	req := &pb.LeaseRevokeRequest{ID: leaseNumber(id)}
	_, _, err = hedged(ctx, s, func(ctx context.Context, e *endpoint) (*pb.LeaseRevokeResponse, error) {
		r, err := ask(ctx, s, e, func(ctx context.Context) (*pb.LeaseRevokeResponse, error) {
			return pb.NewLeaseClient(e.conn).LeaseRevoke(ctx, req)
		})
		if errors.Is(err, dcs.ErrRefused) {
			return r, nil // there is no such lease; it went through etcd's log, so that is true
		}
		return r, err
	})
	if err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}

// Renew implements dcs.Store.
//
// etcd's leader answers a renewal without asking the others, so one that was replaced while
// it stood still may answer too, and it may be wrong either way. An answer counts only when
// a linearizable read sent after it shows that the same term went on (safety rule S8).
func (s *Store) Renew(ctx context.Context, id events.LeaseID) (dcs.Lease, error) {
	ctx, cancel, err := s.bound(ctx)
	if err != nil {
		return dcs.Lease{}, fmt.Errorf("renew: %w", err)
	}
	defer cancel()
	n := leaseNumber(id)
	missing, found, tried := 0, 0, false
	for {
		kept, _, err := hedged(ctx, s, func(ctx context.Context, e *endpoint) (*pb.LeaseKeepAliveResponse, error) {
			return ask(ctx, s, e, func(ctx context.Context) (*pb.LeaseKeepAliveResponse, error) {
				return e.keepAliveOnce(ctx, n)
			})
		})
		if err != nil && tried {
			return dcs.Lease{}, fmt.Errorf("renew: %w: it was answered, not confirmed: %v", dcs.ErrUnknown, err)
		}
		if err != nil {
			return dcs.Lease{}, fmt.Errorf("renew: %w", err)
		}
		tried = true
		now, err := s.read(ctx)
		if err != nil {
			return dcs.Lease{}, fmt.Errorf("renew: %w: not confirmed: %v", dcs.ErrUnknown, err)
		}
		keys := now.attached(leaseID(n))
		switch {
		case now.term != kept.Header.RaftTerm:
			missing, found = 0, 0
		case kept.TTL > 0 && len(keys) == 0 && found == 0:
			// Nothing hangs on it, so nothing but etcd's word shows that it lives. A lease that
			// is just ending may still be said to be renewed; not so the next time.
			found++
			continue
		case kept.TTL > 0:
			return dcs.Lease{ID: id, TTL: time.Duration(kept.TTL) * time.Second, Keys: keys}, nil
		case len(keys) > 0:
			missing = 0 // a leader that hasn't caught up with its own log yet
		default:
			missing++
		}
		if missing == 2 {
			return dcs.Lease{}, fmt.Errorf("renew: %w: the lease is gone", dcs.ErrRefused)
		}
		if missing == 0 && !wait(ctx, pauseMin) {
			return dcs.Lease{}, fmt.Errorf("renew: %w: etcd's leader changed in between", dcs.ErrUnknown)
		}
	}
}

// Close implements dcs.Store.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.calls.Close()
		s.end()
		s.calls.Wait()
		s.closed = s.pool.close()
	})
	return s.closed
}

// snapshot is the whole cluster by one linearizable read.
type snapshot struct {
	revision events.Revision
	term     uint64
	kvs      []dcs.KV
	// asked is when the read was sent; everything before is in it.
	asked events.Instant
}

func (s snapshot) attached(id events.LeaseID) []string {
	var keys []string
	for _, kv := range s.kvs {
		if kv.Lease == id {
			keys = append(keys, kv.Key)
		}
	}
	return keys // sorted, as the read is
}

// read reads linearizably, from whichever server is quick, and refreshes the mirror.
func (s *Store) read(ctx context.Context) (snapshot, error) {
	floor, asked := s.guard.floor(), s.cfg.now()
	r, _, err := hedged(ctx, s, func(ctx context.Context, e *endpoint) (*pb.RangeResponse, error) {
		r, err := s.rangeAt(ctx, e, false)
		if err == nil {
			err = floor.behind(r.Header)
		}
		return r, asRead(err)
	})
	if err != nil {
		return snapshot{}, err
	}
	s.guard.note(r.Header)
	now := snapshot{
		revision: events.Revision(r.Header.Revision), term: r.Header.RaftTerm,
		kvs: make([]dcs.KV, 0, len(r.Kvs)), asked: asked,
	}
	for _, kv := range r.Kvs {
		now.kvs = append(now.kvs, s.entry(kv))
	}
	slices.SortFunc(now.kvs, byKey)
	s.mirror.install(now)
	return now, nil
}

// rangeAt reads all keys from one server; a serializable read is that server's own copy,
// however old it is.
func (s *Store) rangeAt(ctx context.Context, e *endpoint, serializable bool) (*pb.RangeResponse, error) {
	return ask(ctx, s, e, func(ctx context.Context) (*pb.RangeResponse, error) {
		return pb.NewKVClient(e.conn).Range(ctx, &pb.RangeRequest{
			Key: []byte(s.cfg.Prefix), RangeEnd: rangeEnd(s.cfg.Prefix), Serializable: serializable,
		})
	})
}
