package embedded

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// listener is the one port of a node: it greets each connection and gives it to
// raft or to the RPC server.
type listener struct {
	inner net.Listener
	guard *guard
	log   *throttle
	// check and serve are set before run and fixed from then on.
	check func(kind, target string) string
	serve func(ctx context.Context, conn net.Conn)
	raft  *streamLayer

	wg    sync.WaitGroup
	mu    sync.Mutex // guards conns and done
	conns map[net.Conn]struct{}
	done  bool
}

// run accepts until close. It returns after every connection's handler has ended,
// except raft's, which raft owns.
func (l *listener) run(ctx context.Context) {
	defer l.wg.Wait()
	for {
		conn, err := l.inner.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			l.log.warn("accept a connection", "", "err", err)
			pause(ctx, 50*time.Millisecond) // out of file descriptors, perhaps
			continue
		}
		l.wg.Go(func() { l.handle(ctx, conn) })
	}
}

func (l *listener) handle(ctx context.Context, conn net.Conn) {
	if !l.track(conn) {
		_ = conn.Close()
		return
	}
	greetCtx, cancel := context.WithTimeout(ctx, greetingTime)
	stop := context.AfterFunc(greetCtx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	greeted, kind, err := greetAsServer(greetCtx, conn, l.guard.Load(), l.check)
	cancelled := !stop()
	cancel()
	if err != nil || cancelled {
		l.untrack(conn)
		_ = conn.Close()
		if ctx.Err() == nil && err != nil && !errors.Is(err, io.EOF) {
			l.log.warn("refused a connection to the raft port", hostOf(conn.RemoteAddr()),
				"peer", hostOf(conn.RemoteAddr()), "err", err)
		}
		return
	}
	if kind == greetingRaft {
		l.untrack(conn) // raft's layer tracks its own
		l.raft.offer(ctx, greeted)
		return
	}
	l.serve(ctx, greeted)
	l.untrack(conn)
	_ = conn.Close()
}

func hostOf(addr net.Addr) string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return host
}

func (l *listener) track(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.done {
		l.conns[conn] = struct{}{}
	}
	return !l.done
}

func (l *listener) untrack(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}

// close ends the listener and its connections; run then returns.
func (l *listener) close() {
	_ = l.inner.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	for conn := range l.conns {
		_ = conn.Close()
	}
}

// pause waits, no longer than ctx. It reports whether the whole time passed.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
