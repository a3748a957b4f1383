package etcd3

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// The times of a call.
const (
	// defaultLimit bounds calls whose context has no deadline.
	defaultLimit = 5 * time.Second
	// hedgeMin and hedgeMax bound how long one server may keep silent before the next is
	// asked as well; in between it is a fifth of the time that is left.
	hedgeMin, hedgeMax = 20 * time.Millisecond, 200 * time.Millisecond
	// pauseMin and pauseMax are between rounds in which nobody could help.
	pauseMin, pauseMax = 20 * time.Millisecond, 250 * time.Millisecond
	// steadyFor is how recent a server's answer must be for it to be sent what can't
	// be repeated.
	steadyFor = 300 * time.Millisecond
	// onceLimit is how long such a request waits for its answer when there are other
	// servers; who waits for a dead one learns less than who looks.
	onceLimit = 2 * time.Second
)

// headed is what etcd answers.
type headed interface{ GetHeader() *pb.ResponseHeader }

var errClosed = fmt.Errorf("%w: the store is closed", dcs.ErrUnavailable)

// bound gives a call its end: its context's, the store's, or the default one.
func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if s.life.Err() != nil {
		return nil, nil, errClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", dcs.ErrUnavailable, err)
	}
	cancelLimit := func() {}
	if _, ok := ctx.Deadline(); !ok {
		ctx, cancelLimit = context.WithTimeout(ctx, defaultLimit)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() { stop(); cancel(); cancelLimit() }, nil
}

// ask sends one request to one server, once more when the server only wanted a fresh
// token. Its error has a class.
func ask[R headed](ctx context.Context, s *Store, e *endpoint, send func(context.Context) (R, error)) (R, error) {
	var none R
	who := s.login.Load()
	for try := 0; ; try++ {
		prepared, err := e.prepared(ctx, who)
		if err != nil {
			return none, book.On(fmt.Errorf("etcd server %s: %w", e.url, err))
		}
		marked, wire := withWire(prepared)
		r, err := send(marked)
		if err == nil {
			err = s.guard.admit(e, r.GetHeader())
		}
		if err == nil {
			return r, nil
		}
		if tokenRefused(err) && try < 2 {
			e.forgetToken()
			continue
		}
		return none, book.On(fmt.Errorf("etcd server %s: %w", e.url, classify(err, wire.sent.Load())))
	}
}

// wait reports whether the time passed before the context ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// settled: asking another server would change nothing.
func settled(err error) bool { return err == nil || errors.Is(err, dcs.ErrRefused) }

// hedged asks one server, soon a second one as well, and so on, in rounds until one
// answers or the context ends. It is for what may as well happen twice. The error is
// unknown if any of the requests may have happened.
func hedged[R any](ctx context.Context, s *Store, send func(context.Context, *endpoint) (R, error)) (R, *endpoint, error) {
	var perhaps error
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		r, e, err := round(ctx, s, send)
		if settled(err) || errors.Is(err, dcs.ErrBroken) {
			return r, e, err
		}
		if errors.Is(err, dcs.ErrUnknown) {
			perhaps = err
		}
		s.noticeTrouble()
		if !wait(ctx, pause) {
			if perhaps != nil {
				err = perhaps
			}
			return r, nil, err
		}
	}
}

type outcome[R any] struct {
	from  *endpoint
	value R
	err   error
}

// round asks each server at most once. Who is still silent when one has answered is
// told to stop.
func round[R any](ctx context.Context, s *Store, send func(context.Context, *endpoint) (R, error)) (R, *endpoint, error) {
	var none R
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	order := s.pool.order()
	results := make(chan outcome[R], len(order))
	asked, pending, closed := 0, 0, false
	next := func() {
		if asked == len(order) || closed {
			return
		}
		e := order[asked]
		asked++
		closed = !s.calls.Start(func() {
			value, err := send(ctx, e)
			results <- outcome[R]{e, value, err}
		})
		if !closed {
			pending++
		}
	}
	delay := hedgeDelay(ctx)
	hedge := time.NewTimer(delay)
	defer hedge.Stop()
	next()
	var worst error
	for pending > 0 {
		select {
		case <-hedge.C:
			next()
			hedge.Reset(delay)
		case o := <-results:
			pending--
			if settled(o.err) {
				s.pool.answered(o.from, s.cfg.now())
				return o.value, o.from, o.err
			}
			if ctx.Err() == nil {
				s.pool.failed(o.from, s.cfg.now())
			}
			worst = worse(worst, o.err)
			next()
		}
	}
	if worst == nil {
		worst = errClosed
	}
	return none, nil, worst
}

// worse is the error that speaks for a round: unknown if any is, broken only if all are; and a
// server that answered, that there is no leader say, knows more than one that wasn't reached.
func worse(a, b error) error {
	var none unsent
	switch {
	case a == nil:
		return b
	case errors.Is(a, dcs.ErrUnknown):
		return a
	case errors.Is(b, dcs.ErrUnknown), errors.Is(a, dcs.ErrBroken):
		return b
	case errors.As(a, &none) && !errors.Is(b, dcs.ErrBroken) && !errors.As(b, &none):
		return b
	default:
		return a
	}
}

func hedgeDelay(ctx context.Context) time.Duration {
	delay := hedgeMax
	if deadline, ok := ctx.Deadline(); ok {
		delay = time.Until(deadline) / 5
	}
	return min(hedgeMax, max(hedgeMin, delay))
}

// once sends to one server what must not be sent twice. It goes on to another only when
// the first has certainly not taken it.
func once[R any](ctx context.Context, s *Store, send func(context.Context, *endpoint) (R, error)) (R, error) {
	var none R
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		e, err := s.steady(ctx)
		if err != nil {
			return none, asRead(err)
		}
		limited, cancel := ctx, func() {}
		if len(s.pool.order()) > 1 {
			limited, cancel = context.WithTimeout(ctx, onceLimit)
		}
		r, err := send(limited, e)
		cancel()
		if settled(err) {
			s.pool.answered(e, s.cfg.now())
			return r, err
		}
		s.pool.failed(e, s.cfg.now())
		if !errors.Is(err, dcs.ErrUnavailable) || !wait(ctx, pause) {
			return none, err
		}
	}
}

// steady finds a server that answers and is in touch with a majority.
func (s *Store) steady(ctx context.Context) (*endpoint, error) {
	if e := s.pool.steady(s.cfg.now().Add(-steadyFor)); e != nil {
		return e, nil
	}
	_, e, err := hedged(ctx, s, func(ctx context.Context, e *endpoint) (*pb.RangeResponse, error) {
		return ask(ctx, s, e, func(ctx context.Context) (*pb.RangeResponse, error) {
			return pb.NewKVClient(e.conn).Range(ctx, &pb.RangeRequest{Key: []byte(s.cfg.Prefix), CountOnly: true})
		})
	})
	return e, err
}

// guard keeps answers out that can't be true: of another etcd, or of a server that lags
// behind what was already seen.
type guard struct {
	mu      sync.Mutex // guards the rest
	cluster uint64
	// seen is the newest revision and term of any answer that etcd's majority stands behind.
	seen mark
}

type mark struct {
	revision events.Revision
	term     uint64
}

// admit refuses the servers of another etcd. Which one is ours, the first answer says.
func (g *guard) admit(e *endpoint, h *pb.ResponseHeader) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cluster == 0 {
		g.cluster = h.GetClusterId()
	}
	if h.GetClusterId() != g.cluster {
		return fmt.Errorf("%w: it belongs to etcd cluster %x, not to %x; correct the endpoints, or restart this program if etcd was made anew",
			dcs.ErrBroken, h.GetClusterId(), g.cluster)
	}
	return nil
}

func (g *guard) floor() mark {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen
}

// note takes in the header of a linearizable answer.
func (g *guard) note(h *pb.ResponseHeader) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen.revision = max(g.seen.revision, events.Revision(h.GetRevision()))
	g.seen.term = max(g.seen.term, h.GetRaftTerm())
}

// behind reports whether an answer is older than what had been seen before it was asked
// for. The first such server restored from a backup needs the operator's care.
func (m mark) behind(h *pb.ResponseHeader) error {
	if events.Revision(h.GetRevision()) < m.revision || h.GetRaftTerm() < m.term {
		return fmt.Errorf("%w: the answer is of revision %d, term %d; %d, %d had been seen before",
			dcs.ErrUnavailable, h.GetRevision(), h.GetRaftTerm(), m.revision, m.term)
	}
	return nil
}
