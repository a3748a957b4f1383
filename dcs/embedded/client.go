package embedded

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded/kv"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/internal/routines"
)

// ClientConfig of a client that takes no part in raft: the command line's.
type ClientConfig struct {
	// Addrs of nodes, host:port. One that answers is enough.
	Addrs []string
	// Cluster must be the nodes' own; empty matches any.
	Cluster string
	// TLS, or else Secret, as the nodes have it.
	TLS    *tls.Config
	Secret string
	// Name goes into the certificate that is made from Secret.
	Name events.NodeName

	guard   *guard // a store's; nil: of TLS
	network network
	now     func() events.Instant
}

// LogValue keeps the secret out of logs.
func (c ClientConfig) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("addrs", c.Addrs), slog.String("cluster", c.Cluster))
}

// Client uses the store through any of its nodes. It implements dcs.Store.
type Client struct {
	addrs []string
	peers *peers
	now   func() events.Instant
	// at is the index of the address that answered last.
	at   atomic.Uint32
	news *signal // never notified: a client learns nothing unasked

	life    context.Context
	end     context.CancelFunc
	watches routines.Group
	closing sync.Once
}

var _ dcs.Store = (*Client)(nil)

// Dial connects to the first node that answers. ErrBroken says that none will, until
// settings change: the secret differs, or only one side has one.
func Dial(ctx context.Context, cfg ClientConfig) (*Client, error) {
	if cfg.Name == "" {
		cfg.Name = "client"
	}
	secured, err := tlsOf(cfg.TLS, cfg.Secret, string(cfg.Name))
	if err != nil {
		return nil, err
	}
	if len(cfg.Addrs) == 0 {
		return nil, fmt.Errorf("dial the embedded store: %w: no address", dcs.ErrBroken)
	}
	cfg.TLS = secured
	c := newClient(cfg)
	if _, err := ask(ctx, c, request{Verb: verbHello}); err != nil {
		return nil, errors.Join(fmt.Errorf("dial the embedded store: %w", err), c.Close())
	}
	return c, nil
}

func newClient(cfg ClientConfig) *Client {
	if cfg.network == nil {
		cfg.network = tcp{}
	}
	if cfg.now == nil {
		cfg.now = mono.Now
	}
	if cfg.guard == nil {
		cfg.guard = newGuard(cfg.TLS)
	}
	c := &Client{addrs: cfg.Addrs, now: cfg.now, news: newSignal()}
	c.life, c.end = context.WithCancel(context.Background())
	c.peers = newPeers(c.life, cfg.network, cfg.guard, cfg.Cluster)
	return c
}

// shareMin is the least time that a node gets before the next one is asked.
const shareMin = 100 * time.Millisecond

// each asks the nodes in turn, beginning with the one that answered last, until use
// says that the answer counts. Each gets its share of the time that is left, so that
// one that is silent doesn't use it up.
func (c *Client) each(ctx context.Context, use func(ctx context.Context, addr string) (final bool, err error)) error {
	if c.life.Err() != nil {
		return fmt.Errorf("%w: the client is closed", dcs.ErrUnavailable)
	}
	err := fmt.Errorf("%w: no address", dcs.ErrUnavailable)
	start := int(c.at.Load())
	for i := range c.addrs {
		at := (start + i) % len(c.addrs)
		share, cancel := ctx, func() {}
		if deadline, ok := ctx.Deadline(); ok {
			left := len(c.addrs) - i
			share, cancel = context.WithTimeout(ctx, max(shareMin, time.Until(deadline)/time.Duration(left)))
		}
		var final bool
		if err = c.peers.probe(share, c.addrs[at]); err == nil {
			final, err = use(share, c.addrs[at])
		}
		cancel()
		if final {
			c.at.Store(uint32(at))
			return err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// ask sends a question that changes nothing.
func ask(ctx context.Context, c *Client, req request) (response, error) {
	var answer response
	broken := 0
	err := c.each(ctx, func(ctx context.Context, addr string) (bool, error) {
		var err error
		answer, _, err = c.peers.call(ctx, addr, req)
		if err == nil {
			err = answer.err()
		}
		if err == nil {
			return true, nil
		}
		if settingsError(err) {
			broken++
		}
		return false, err
	})
	switch {
	case err == nil:
		return answer, nil
	case broken == len(c.addrs):
		return response{}, fmt.Errorf("%w: %w", dcs.ErrBroken, err)
	default:
		return response{}, fmt.Errorf("%w: %v", dcs.ErrUnavailable, err)
	}
}

// try makes one attempt at a proposal, through each node in turn until one has
// certainly or perhaps taken it.
func (c *Client) try(ctx context.Context, cmd kv.Command) (result kv.Result, fate fate, err error) {
	err = c.each(ctx, func(ctx context.Context, addr string) (bool, error) {
		req := request{Verb: verbPropose, Command: &cmd, Relay: true}
		result, fate, err = callPropose(ctx, c.peers, addr, req)
		// One node with other settings doesn't speak for the rest.
		final := err == nil || fate == perhaps || (errors.Is(err, dcs.ErrBroken) && !settingsError(err))
		return final, err
	})
	return result, fate, err
}

func (c *Client) propose(ctx context.Context, cmd kv.Command) (kv.Result, error) {
	return classed(cmd)(retry(ctx, c.life, cmd, c.news, c.try))
}

// View implements dcs.Store.
func (c *Client) View(ctx context.Context, consistency dcs.Consistency) (dcs.View, error) {
	if consistency == dcs.Local {
		return c.localView(ctx)
	}
	asked := c.now()
	r, err := c.propose(ctx, kv.Command{V: kv.Version, Op: kv.OpRead})
	if err != nil {
		return dcs.View{}, err
	}
	return viewOf(r, asked, c.now()), nil
}

// localView is some node's local view; its age grows by the time it was on its way.
func (c *Client) localView(ctx context.Context) (dcs.View, error) {
	asked := c.now()
	answer, err := ask(ctx, c, request{Verb: verbView})
	if err == nil && answer.View == nil {
		err = fmt.Errorf("%w: an answer without a view", dcs.ErrUnavailable)
	}
	if err != nil {
		return dcs.View{}, fmt.Errorf("view: %w", err)
	}
	now := c.now()
	return answer.View.view(now, now.Sub(asked)), nil
}

// Watch implements dcs.Store.
func (c *Client) Watch(ctx context.Context) (<-chan dcs.View, error) {
	out := make(chan dcs.View)
	started := c.watches.Start(func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(c.life, cancel)()
		c.feed(ctx, 0, out)
	})
	if !started {
		return nil, fmt.Errorf("watch: %w: the client is closed", dcs.ErrUnavailable)
	}
	return out, nil
}

// feed passes on the views of one node after another until ctx ends, none older than the
// revision from. It returns the last revision that it sent.
func (c *Client) feed(ctx context.Context, from events.Revision, out chan<- dcs.View) events.Revision {
	sent := progress{revision: from}
	for i := int(c.at.Load()); ctx.Err() == nil && len(c.addrs) > 0; i++ {
		dial, cancel := context.WithTimeout(ctx, helloMax)
		answers, gone, end, err := c.peers.stream(dial, c.addrs[i%len(c.addrs)], request{Verb: verbWatch})
		cancel()
		if err == nil {
			c.pass(ctx, answers, gone, out, &sent)
			end()
		}
		pause(ctx, retryMax)
	}
	return sent.revision
}

// pass sends on the views of one node until it ends or falls silent. Another node may
// be behind the last one: what is older than what was sent is left out, and so are the
// repetitions by which a node shows that it is alive.
func (c *Client) pass(ctx context.Context, answers <-chan response, gone <-chan struct{}, out chan<- dcs.View, sent *progress) {
	var next dcs.View
	var send chan<- dcs.View
	for {
		silent := time.NewTimer(watchSilence)
		select {
		case <-ctx.Done():
			silent.Stop()
			return
		case <-gone:
			silent.Stop()
			return
		case <-silent.C:
			return
		case answer := <-answers:
			if answer.err() != nil || answer.View == nil {
				silent.Stop()
				return
			}
			if sent.news(answer.View) {
				next, send = answer.View.view(c.now(), 0), out
			}
		case send <- next:
			sent.revision, sent.any, send = next.Revision, true, nil
			sent.known = sent.known || next.Age >= 0
		}
		silent.Stop()
	}
}

// progress of a watch: what its reader has got.
type progress struct {
	revision events.Revision
	any      bool
	known    bool // a view whose age was known
}

func (p *progress) news(v *wireView) bool {
	return (!p.any && v.Revision >= p.revision) || v.Revision > p.revision || (v.Revision == p.revision && !p.known && v.Age >= 0)
}

// Commit implements dcs.Store.
func (c *Client) Commit(ctx context.Context, t dcs.Txn) (events.Revision, error) {
	return commit(ctx, t, c.propose)
}

// Grant implements dcs.Store.
func (c *Client) Grant(ctx context.Context, id events.LeaseID, ttl time.Duration) (dcs.Lease, error) {
	return grant(ctx, id, ttl, c.propose)
}

// Renew implements dcs.Store.
func (c *Client) Renew(ctx context.Context, id events.LeaseID) (dcs.Lease, error) {
	return renew(ctx, id, c.propose)
}

// Revoke implements dcs.Store.
func (c *Client) Revoke(ctx context.Context, id events.LeaseID) error {
	return revoke(ctx, id, c.propose)
}

// Close implements dcs.Store.
func (c *Client) Close() error {
	c.closing.Do(func() {
		c.watches.Close()
		c.end()
		c.peers.close()
		c.watches.Wait()
	})
	return nil
}
