package dcstest

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Proxy stands between one client and a server's TCP port, and breaks what passes when it
// is told to. It knows nothing of the protocol, so it serves every backend: harnesses give
// their clients proxies' addresses and keep KillServer and PauseServer for the servers.
type Proxy struct {
	listener net.Listener
	target   string
	run      sync.WaitGroup
	// deaf: what the server says is thrown away.
	deaf atomic.Bool

	mu    sync.Mutex // guards the rest
	cut   bool
	done  bool
	conns map[net.Conn]struct{}
}

// NewProxy listens on a free port of the loopback interface and passes connections on to
// target. Close it.
func NewProxy(target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", target, err)
	}
	p := &Proxy{listener: listener, target: target, conns: map[net.Conn]struct{}{}}
	p.run.Go(p.accept)
	return p, nil
}

// Addr is where the client should connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut ends all connections, and new ones at once, until it is called with false.
func (p *Proxy) Cut(off bool) {
	p.mu.Lock()
	p.cut = off
	p.mu.Unlock()
	if off {
		p.hangUp()
	}
}

// LoseReplies lets requests through and no answers, until it is called with false. Then the
// connections, which lack what was lost, end.
func (p *Proxy) LoseReplies(on bool) {
	p.deaf.Store(on)
	if !on {
		p.hangUp()
	}
}

// Close ends everything and waits for it.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.done = true
	p.mu.Unlock()
	err := p.listener.Close()
	p.hangUp()
	p.run.Wait()
	return err
}

func (p *Proxy) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.run.Go(func() { p.serve(client) })
	}
}

// track notes a connection, or refuses it.
func (p *Proxy) track(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done || p.cut {
		_ = conn.Close()
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *Proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
		delete(p.conns, conn)
	}
}

func (p *Proxy) serve(client net.Conn) {
	if !p.track(client) {
		return
	}
	defer p.forget(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil || !p.track(server) {
		return
	}
	defer p.forget(server)
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(answers{client, &p.deaf}, server)
		_ = client.Close()
	}()
	_, _ = io.Copy(server, client)
	_ = server.Close()
	<-back
}

// answers writes to the client, unless nothing may get through.
type answers struct {
	client io.Writer
	deaf   *atomic.Bool
}

func (a answers) Write(data []byte) (int, error) {
	if a.deaf.Load() {
		return len(data), nil
	}
	return a.client.Write(data)
}
