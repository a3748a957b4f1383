package consul

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/routines"
)

// Store is a client of one Consul agent, for one cluster. It implements dcs.Store and is
// safe for concurrent use. Close it to end its watches and connections.
type Store struct {
	cfg       Config
	base      string // of every key, with a slash at its end
	client    *api.Client
	transport *http.Transport

	// life ends when the store is closed.
	life context.Context
	end  context.CancelFunc
	// run counts watches and the registration of the member's service.
	run routines.Group

	seen  seen
	token atomic.Pointer[string]
	// shortest is the least ttl that the servers register, once they have said so.
	shortest atomic.Int64
	// granted is the ttl of the last lease, as registered.
	granted atomic.Int64
	// service is nil unless the member is to be registered.
	service *registrar
}

var _ dcs.Store = (*Store)(nil)

// Open makes a client. It doesn't connect: whether Consul can be reached shows with the
// first call. Errors are ErrBroken, for settings that can't work.
func Open(_ context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	scheme, address, err := cfg.endpoint()
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, base: cfg.base()}
	s.UseToken(cfg.Token)
	secure, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	s.transport = newTransport(secure)
	s.client, err = api.NewClient(&api.Config{
		Address: address, Scheme: scheme,
		HttpClient: &http.Client{Transport: observed{s.transport}},
	})
	if err != nil {
		return nil, unusable("%w", err)
	}
	s.life, s.end = context.WithCancel(context.Background())
	if cfg.Register.Enabled {
		s.service = newRegistrar(s)
		s.run.Start(func() { s.service.run(s.life) })
	}
	return s, nil
}

// UseToken lets all requests from now on carry another token.
func (s *Store) UseToken(token string) { s.token.Store(&token) }

// Close implements dcs.Store.
func (s *Store) Close() error {
	s.end()
	s.run.Close()
	s.run.Wait()
	s.transport.CloseIdleConnections()
	return nil
}

// call makes the context of one request. It ends with the caller's, with the store, and
// after the time that a request may take at most.
func (s *Store) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return s.callFor(ctx, s.cfg.Timeout)
}

func (s *Store) callFor(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// alive returns an error when a call shouldn't begin.
func (s *Store) alive(ctx context.Context, op string) error {
	if s.life.Err() != nil {
		return fmt.Errorf("%s: %w: the store is closed", op, dcs.ErrUnavailable)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w: %w", op, dcs.ErrUnavailable, err)
	}
	return nil
}

// query are the options of a request, but for how consistent it has to be.
func (s *Store) query(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{Datacenter: s.cfg.DC, Token: *s.token.Load()}).WithContext(ctx)
}

// consistent are the options of a read that a majority vouches for.
func (s *Store) consistent(ctx context.Context) *api.QueryOptions {
	q := s.query(ctx)
	q.RequireConsistent = true
	return q
}

// change are the options of a write outside of transactions.
func (s *Store) change(ctx context.Context) *api.WriteOptions {
	return (&api.WriteOptions{Datacenter: s.cfg.DC, Token: *s.token.Load()}).WithContext(ctx)
}

// seen is the highest revision that this client was told of. Consul's index of a prefix
// goes back when it forgets deleted keys, after a quarter of an hour, though nothing has
// changed; revisions don't.
type seen struct{ highest atomic.Uint64 }

// floor is what a linearizable read that begins now will not stay behind.
func (s *seen) floor() events.Revision { return events.Revision(s.highest.Load()) }

func (s *seen) note(rev events.Revision) {
	for {
		old := s.highest.Load()
		if uint64(rev) <= old || s.highest.CompareAndSwap(old, uint64(rev)) {
			return
		}
	}
}
