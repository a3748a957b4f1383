package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/events"
)

// streamLayer carries raft's connections over the shared port. It keeps track of
// them, because raft's transport leaves them open when it closes.
type streamLayer struct {
	network network
	guard   *guard
	addr    raft.ServerAddress
	log     *throttle
	ctx     context.Context // of the store's life; dials end with it
	ready   chan net.Conn

	mu    sync.Mutex // guards conns and done
	conns map[net.Conn]struct{}
	done  bool
}

// idSeparator joins address and server id in what raft's transport takes for an
// address; see idAddresses.
const idSeparator = "|"

func (l *streamLayer) offer(ctx context.Context, conn net.Conn) {
	tracked, ok := l.track(conn)
	if !ok {
		return
	}
	select {
	case l.ready <- tracked:
	case <-ctx.Done():
		_ = tracked.Close()
	}
}

// Accept implements net.Listener.
func (l *streamLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Dial implements raft.StreamLayer. The address carries the server id.
func (l *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	addr, id, ok := strings.Cut(string(address), idSeparator)
	if !ok {
		return nil, fmt.Errorf("dial raft server at %s: its id isn't known", address)
	}
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	conn, err := dialPeer(ctx, l.network, l.guard.Load(), addr, greetingRaft, id)
	if err != nil {
		switch {
		case errors.Is(err, errOtherServer):
			l.log.warn("a voter's raft folder was replaced: its new server can't vote in the old one's place; "+
				"remove the old id and add the new one", id, "voter", id, "addr", addr)
		case settingsError(err):
			l.log.warn("connect to a raft peer", addr, "addr", addr, "err", err)
		}
		return nil, err
	}
	tracked, ok := l.track(conn)
	if !ok {
		return nil, net.ErrClosed
	}
	return tracked, nil
}

// Addr implements net.Listener: what raft takes for this server's address.
func (l *streamLayer) Addr() net.Addr { return advertised(l.addr) }

type advertised string

func (a advertised) Network() string { return "tcp" }
func (a advertised) String() string  { return string(a) }

// Close implements net.Listener; it ends every connection of raft.
func (l *streamLayer) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	for conn := range l.conns {
		_ = conn.Close()
	}
	clear(l.conns)
	return nil
}

type trackedConn struct {
	net.Conn
	layer *streamLayer
}

func (c *trackedConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.conns, c.Conn)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}

func (l *streamLayer) track(conn net.Conn) (net.Conn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		_ = conn.Close()
		return nil, false
	}
	l.conns[conn] = struct{}{}
	return &trackedConn{Conn: conn, layer: l}, true
}

// idAddresses makes raft's transport dial servers, not places: each address that it
// asks for comes back with the id of the server that must answer there.
type idAddresses struct {
	configuration func() raft.Configuration
}

// ServerAddr implements raft.ServerAddressProvider.
func (a idAddresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	for _, server := range a.configuration().Servers {
		if server.ID == id {
			return server.Address + raft.ServerAddress(idSeparator+string(id)), nil
		}
	}
	return "", fmt.Errorf("server %s isn't in the configuration", id)
}

// transport is raft's transport, overheard: each append-entries request says how far
// the leader knew the log to be committed when it was sent. That is what bounds the
// age of a follower's view. Raft's own LastContact doesn't: heartbeats pass a node
// whose disk stands still.
type transport struct {
	*raft.NetworkTransport
	self     raft.ServerID
	layer    *streamLayer
	requests chan raft.RPC
	heard    contact
	arrivals arrivals
	pacing   pacing
	promises promises
	// silent tells whether this node's disk stands still, see speed.go.
	silent func() bool
	// leads tells whether this node leads in the term, and the server is to be sent the log.
	leads   func(id raft.ServerID, term uint64) bool
	recheck time.Duration // of leads, while waiting for a voter
}

// contact is the newest word from a leader.
type contact struct {
	mu     sync.Mutex // guards the rest
	at     events.Instant
	commit uint64
	ever   bool
	// caught is the newest contact whose commit index was applied here.
	caught     events.Instant
	everCaught bool
}

func newTransport(layer *streamLayer, cfg Config, log hclog.Logger, configuration func() raft.Configuration) *transport {
	return &transport{
		layer:   layer,
		leads:   func(raft.ServerID, uint64) bool { return false },
		silent:  func() bool { return false },
		recheck: cfg.Timings.Election,
		pacing:  pacing{every: min(cfg.Timings.Heartbeat, cfg.Timings.LeaderLease) * 2 / 5},
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream:                layer,
			MaxPool:               3,
			MaxRPCsInFlight:       1, // no pipelines: they hide answers from pacing and arrivals, and gain nothing here
			Timeout:               max(time.Second, 4*cfg.Timings.Election),
			Logger:                log,
			ServerAddressProvider: idAddresses{configuration},
		}),
		requests: make(chan raft.RPC),
	}
}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.requests }

// EncodePeer implements raft.Transport. The inner transport would encode what
// idAddresses made of the address, and every node would know its leader by that.
func (t *transport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// run passes requests on to raft until ctx ends. What a deposed leader still says
// is passed on too, for raft to refuse, but tells nothing about age.
func (t *transport) run(ctx context.Context, now func() events.Instant, r *raft.Raft, applied func() uint64) {
	for {
		select {
		case <-ctx.Done():
			return
		case rpc := <-t.NetworkTransport.Consumer():
			t.promises.overhear(rpc.Command)
			if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok && req.Term >= r.CurrentTerm() {
				t.heard.note(now(), req.LeaderCommitIndex, applied())
			}
			introduce(rpc.Command, func() raft.Configuration { return configurationOf(r) })
			select {
			case t.requests <- rpc:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (c *contact) note(at events.Instant, commit, applied uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.catchUp(applied)
	c.at, c.commit, c.ever = at, commit, true
	c.catchUp(applied)
}

func (c *contact) catchUp(applied uint64) {
	if c.ever && c.commit > 0 && applied >= c.commit {
		c.caught, c.everCaught = c.at, true
	}
}

// since returns when this node last held all that the leader knew to be committed.
func (c *contact) since(applied uint64) (at events.Instant, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.catchUp(applied)
	return c.caught, c.everCaught
}
