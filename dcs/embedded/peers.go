package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/pgregent/regent/dcs"
)

// peers holds one connection per address for calls. It is safe for concurrent use.
type peers struct {
	network network
	guard   *guard
	cluster string
	ctx     context.Context // ends with the owner; dials and calls end with it
	wg      sync.WaitGroup

	mu     sync.Mutex // guards lines and closed
	lines  map[string]*line
	closed bool
}

func newPeers(ctx context.Context, n network, g *guard, cluster string) *peers {
	return &peers{network: n, guard: g, cluster: cluster, ctx: ctx, lines: map[string]*line{}}
}

// line is one connection with its calls under way.
type line struct {
	conn net.Conn
	gone chan struct{} // closed when the connection has ended
	// writing is held, by filling it, while a message is written. A channel, so that
	// waiting for it can end with a context.
	writing chan struct{}

	mu    sync.Mutex // guards the rest
	next  uint64
	calls map[uint64]chan response
	dead  bool
	heard time.Time // when something last came in
}

// call sends req to addr and waits for the answer. sent says whether the other side
// may have got it; if not, nothing happened. The answer's own error is not looked at.
func (p *peers) call(ctx context.Context, addr string, req request) (answer response, sent bool, err error) {
	l, err := p.line(ctx, addr)
	if err != nil {
		return response{}, false, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		req.Wait = time.Until(deadline)
	}
	id, answers, ok := l.register()
	if !ok {
		return response{}, false, fmt.Errorf("call %s: %w: the connection ended", addr, dcs.ErrUnavailable)
	}
	defer l.forget(id)
	req.ID = id
	if sent, err := l.send(ctx, req); err != nil {
		return response{}, sent, fmt.Errorf("call %s: %w", addr, err)
	}
	select {
	case answer := <-answers:
		return answer, true, nil
	case <-l.gone:
		return response{}, true, fmt.Errorf("call %s: the connection ended before the answer came", addr)
	case <-ctx.Done():
		if l.silent() {
			p.drop(addr, l) // its host is gone, perhaps; the next call dials
		} else {
			l.cancel(id)
		}
		return response{}, true, fmt.Errorf("call %s: %w", addr, ctx.Err())
	}
}

// stream sends req and returns the channel of its answers, which holds the newest
// only. It ends when ctx does or when gone is closed.
func (p *peers) stream(ctx context.Context, addr string, req request) (answers <-chan response, gone <-chan struct{}, end func(), err error) {
	l, err := p.line(ctx, addr)
	if err != nil {
		return nil, nil, nil, err
	}
	id, ch, ok := l.register()
	if !ok {
		return nil, nil, nil, fmt.Errorf("call %s: %w: the connection ended", addr, dcs.ErrUnavailable)
	}
	req.ID = id
	if _, err := l.send(ctx, req); err != nil {
		l.forget(id)
		return nil, nil, nil, fmt.Errorf("call %s: %w", addr, err)
	}
	return ch, l.gone, func() { l.cancel(id); l.forget(id) }, nil
}

// probe makes sure that the other end of a connection that was silent for a while is
// still there, so that nothing that can't be repeated is sent to a host that is gone.
func (p *peers) probe(ctx context.Context, addr string) error {
	p.mu.Lock()
	l := p.lines[addr]
	p.mu.Unlock()
	if l == nil || !l.silent() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	_, _, err := p.call(ctx, addr, request{Verb: verbHello})
	return err
}

// line returns the connection to addr, dialling if there is none.
func (p *peers) line(ctx context.Context, addr string) (*line, error) {
	p.mu.Lock()
	l, closed := p.lines[addr], p.closed
	p.mu.Unlock()
	if closed {
		return nil, fmt.Errorf("call %s: %w: the store is closed", addr, dcs.ErrUnavailable)
	}
	if l != nil {
		return l, nil
	}
	dialCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	conn, err := dialPeer(dialCtx, p.network, p.guard.Load(), addr, greetingRPC, url.QueryEscape(p.cluster))
	if err != nil {
		return nil, err
	}
	return p.adopt(addr, conn)
}

// adopt makes conn the connection to addr. Of two that were dialled at once, the
// first stays.
func (p *peers) adopt(addr string, conn net.Conn) (*line, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.Join(fmt.Errorf("call %s: %w: the store is closed", addr, dcs.ErrUnavailable), conn.Close())
	}
	if l := p.lines[addr]; l != nil {
		_ = conn.Close()
		return l, nil
	}
	l := &line{
		conn: conn, gone: make(chan struct{}), writing: make(chan struct{}, 1),
		calls: map[uint64]chan response{}, heard: time.Now(),
	}
	p.lines[addr] = l
	p.wg.Go(func() {
		l.receive()
		p.mu.Lock()
		if p.lines[addr] == l {
			delete(p.lines, addr)
		}
		p.mu.Unlock()
	})
	return l, nil
}

// drop closes l, and forgets it if it is still the connection to addr.
func (p *peers) drop(addr string, l *line) {
	p.mu.Lock()
	if p.lines[addr] == l {
		delete(p.lines, addr)
	}
	p.mu.Unlock()
	_ = l.conn.Close()
}

// close ends all connections and waits for their readers.
func (p *peers) close() {
	p.mu.Lock()
	p.closed = true
	for _, l := range p.lines {
		_ = l.conn.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (l *line) register() (uint64, chan response, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return 0, nil, false
	}
	l.next++
	ch := make(chan response, 1)
	l.calls[l.next] = ch
	return l.next, ch, true
}

func (l *line) forget(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calls, id)
}

const (
	// sendPatience bounds one write: a peer that doesn't read for so long is gone.
	sendPatience = 2 * time.Second
	// cancelPatience bounds the courtesy of telling a peer that nobody waits any more.
	cancelPatience = 10 * time.Millisecond
	// probePatience bounds the question whether somebody is there.
	probePatience = 500 * time.Millisecond
	// silence after which a call without an answer condemns its connection.
	silence = time.Second
)

// send writes a message, within ctx. When sent is false, nothing has left.
func (l *line) send(ctx context.Context, req request) (sent bool, err error) {
	select {
	case l.writing <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-l.writing }()
	until := time.Now().Add(sendPatience)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	_ = l.conn.SetWriteDeadline(until)
	if err := writeFrame(l.conn, req); err != nil {
		_ = l.conn.Close() // half a frame may be out: the connection is of no more use
		return true, err
	}
	return true, nil
}

func (l *line) cancel(id uint64) {
	ctx, done := context.WithTimeout(context.Background(), cancelPatience)
	defer done()
	_, _ = l.send(ctx, request{ID: id, Verb: verbCancel})
}

func (l *line) silent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.heard) > silence
}

// receive hands answers to their calls until the connection ends. It never blocks
// on a caller: each call's channel keeps the newest answer.
func (l *line) receive() {
	for {
		var r response
		if err := readFrame(l.conn, &r); err != nil {
			break
		}
		l.mu.Lock()
		l.heard = time.Now()
		if ch := l.calls[r.ID]; ch != nil {
			select {
			case <-ch: // an older view that nobody fetched
			default:
			}
			ch <- r
		}
		l.mu.Unlock()
	}
	_ = l.conn.Close()
	l.mu.Lock()
	l.dead = true
	l.mu.Unlock()
	close(l.gone)
}
