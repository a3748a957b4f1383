package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

func TestMain(m *testing.M) {
	if !runAsNode() {
		goleak.VerifyTestMain(m)
	}
}

const patience = 20 * time.Second

// logs collects what a node says.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), text)
}

// cluster is a set of nodes in this process, over real sockets unless net is set.
type cluster struct {
	t      testing.TB
	net    *wires
	nodes  []*node
	secret string
	tune   func(*Config)
}

type node struct {
	cfg   Config
	logs  *logs
	store *Store // nil while it is down
}

func newCluster(t testing.TB, n int) *cluster {
	c := &cluster{t: t, net: newWires()}
	for i := range n {
		c.addNode(fmt.Sprintf("pg%02d", i+1))
	}
	c.setPartners()
	t.Cleanup(c.stopAll)
	return c
}

func (c *cluster) addNode(name string) *node {
	addr := c.net.reserve(c.t)
	said := &logs{}
	n := &node{logs: said, cfg: Config{
		Name: events.NodeName(name), Cluster: "service/test", SelfAddr: addr,
		DataDir: filepath.Join(c.t.TempDir(), "raft"), Secret: c.secret,
		Logger:  slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelInfo})),
		network: c.net.of(addr),
	}}
	c.nodes = append(c.nodes, n)
	return n
}

func (c *cluster) setPartners() {
	for _, n := range c.nodes {
		n.cfg.PartnerAddrs = nil
		for _, other := range c.nodes {
			if other != n {
				n.cfg.PartnerAddrs = append(n.cfg.PartnerAddrs, other.cfg.SelfAddr)
			}
		}
	}
}

func (c *cluster) start(nodes ...int) {
	c.t.Helper()
	for _, i := range nodes {
		n := c.nodes[i]
		if c.tune != nil {
			c.tune(&n.cfg)
		}
		store, err := Open(context.Background(), n.cfg)
		if err != nil {
			c.t.Fatalf("open %s: %v", n.cfg.Name, err)
		}
		n.store = store
	}
}

func (c *cluster) startAll() *cluster {
	c.t.Helper()
	for i := range c.nodes {
		c.start(i)
	}
	return c
}

func (c *cluster) stop(i int) {
	c.t.Helper()
	if store := c.nodes[i].store; store != nil {
		if err := store.Close(); err != nil {
			c.t.Errorf("close %s: %v", c.nodes[i].cfg.Name, err)
		}
		c.nodes[i].store = nil
	}
}

func (c *cluster) stopAll() {
	c.net.healAll()
	for i := range c.nodes {
		c.stop(i)
	}
	if c.t.Failed() {
		for _, n := range c.nodes {
			c.t.Logf("--- %s\n%s", n.cfg.Name, n.logs.buf.String())
		}
	}
}

// kill ends a node the way a crash does: its connections break and nobody is told.
func (c *cluster) kill(i int) {
	c.t.Helper()
	c.net.isolate(c.nodes[i].cfg.SelfAddr)
	c.stop(i)
	c.net.heal(c.nodes[i].cfg.SelfAddr)
}

// eventually waits for a condition, looking at it again and again.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("it never happened: %s", what)
		}
		pause(context.Background(), 5*time.Millisecond)
	}
}

// leader waits until one of the running nodes leads and is ready, and returns it.
func (c *cluster) leader(except ...int) int {
	c.t.Helper()
	found := -1
	eventually(c.t, "a leader", func() bool {
		for i, n := range c.nodes {
			if n.store != nil && !slices.Contains(except, i) && n.store.current() != nil {
				found = i
				return true
			}
		}
		return false
	})
	return found
}

func (c *cluster) follower(leader int) int {
	for i, n := range c.nodes {
		if i != leader && n.store != nil {
			return i
		}
	}
	c.t.Fatal("no follower runs")
	return -1
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c.t.Cleanup(cancel)
	return ctx
}

// put writes a key. On a busy machine leaders come and go, and a write's outcome can be
// unknown; without a guard, twice is as good as once.
func (c *cluster) put(store dcs.Store, key, value string, lease events.LeaseID) events.Revision {
	c.t.Helper()
	for ctx := c.ctx(); ; {
		rev, err := store.Commit(ctx, dcs.Txn{Writes: []dcs.Write{{Key: key, Value: []byte(value), Lease: lease}}})
		if err == nil {
			return rev
		}
		if dcs.ClassOf(err) != events.Unknown || ctx.Err() != nil {
			c.t.Fatalf("put %s: %v", key, err)
		}
	}
}

func (c *cluster) get(store dcs.Store, key string) string {
	c.t.Helper()
	v, err := store.View(c.ctx(), dcs.Linearizable)
	if err != nil {
		c.t.Fatalf("view: %v", err)
	}
	kv, ok := v.Get(key)
	if !ok {
		return "-"
	}
	return string(kv.Value)
}

// wires is the network between nodes, over loopback sockets. It can cut any pair, the
// way a broken link does, and silence a node, the way a power cut does: its
// connections stay, and nothing comes of what is sent.
type wires struct {
	mu     sync.Mutex
	cut    map[[2]string]bool
	silent map[string]bool
	conns  map[*wire]struct{}
	// reserved ports, which nobody may listen on yet.
	reserved map[string]bool
}

// wire is one end of a connection. An accepting end doesn't know who dialled.
type wire struct {
	net.Conn
	from, to string
	net      *wires
}

func newWires() *wires {
	return &wires{
		cut: map[[2]string]bool{}, silent: map[string]bool{}, conns: map[*wire]struct{}{}, reserved: map[string]bool{},
	}
}

// reserve finds a free port below the kernel's range for outgoing connections, so that
// none of those takes it before the node does.
func (w *wires) reserve(t testing.TB) string {
	const low, high, tries = 11000, 32000, 200
	for range tries {
		addr := fmt.Sprintf("127.0.0.1:%d", low+rand.IntN(high-low))
		w.mu.Lock()
		taken := w.reserved[addr]
		w.reserved[addr] = true
		w.mu.Unlock()
		if taken {
			continue
		}
		if l, err := net.Listen("tcp", addr); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return addr
		}
	}
	t.Fatalf("no free port in %d tries", tries)
	return ""
}

func (w *wires) of(addr string) network { return wireEnd{w, addr} }

type wireEnd struct {
	net  *wires
	self string
}

func (e wireEnd) Listen(addr string) (net.Listener, error) {
	l, err := tcp{}.Listen(addr)
	if err != nil {
		return nil, err
	}
	return wireListener{l, e}, nil
}

type wireListener struct {
	net.Listener
	end wireEnd
}

func (l wireListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.end.net.add(conn, "", l.end.self), nil
}

func (e wireEnd) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if e.net.isCut(e.self, addr) || e.net.isSilent(e.self, addr) {
		<-ctx.Done() // packets vanish
		return nil, ctx.Err()
	}
	conn, err := tcp{}.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := e.net.add(conn, e.self, addr)
	if e.net.isCut(e.self, addr) { // meanwhile, by somebody who couldn't know of this connection
		_ = c.Close() // it carries nothing yet
		return nil, errCut
	}
	return c, nil
}

var errCut = errors.New("cut while dialling")

func (w *wires) add(conn net.Conn, from, to string) *wire {
	c := &wire{Conn: conn, from: from, to: to, net: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = struct{}{}
	return c
}

// Read drops what arrives at or from a node that is silent.
func (c *wire) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.net.isSilent(c.from, c.to) {
			return n, err
		}
	}
}

// Write pretends, while an end is silent.
func (c *wire) Write(p []byte) (int, error) {
	if c.net.isSilent(c.from, c.to) {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *wire) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}

func (w *wires) isCut(a, b string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[pair(a, b)] || w.cut[pair(a, "")] || w.cut[pair(b, "")]
}

func (w *wires) isSilent(a, b string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.silent[a] || w.silent[b]
}

// silence makes a node's host disappear without a word.
func (w *wires) silence(addr string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent[addr] = true
}

func pair(a, b string) [2]string {
	if a > b {
		a, b = b, a
	}
	return [2]string{a, b}
}

// isolate cuts a node from everyone: its connections break, new ones hang.
func (w *wires) isolate(addr string) { w.setCut(addr, "", true) }

func (w *wires) heal(addr string) { w.setCut(addr, "", false) }

func (w *wires) setCut(a, b string, off bool) {
	w.mu.Lock()
	w.cut[pair(a, b)] = off
	var broken []*wire
	for c := range w.conns {
		if off && ((b == "" && (c.from == a || c.to == a)) || pair(c.from, c.to) == pair(a, b)) {
			broken = append(broken, c)
		}
	}
	w.mu.Unlock()
	for _, c := range broken {
		_ = c.Conn.Close()
	}
}

// healAll also breaks the connections that were silent, as a host that comes back does.
func (w *wires) healAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		if w.silent[c.from] || w.silent[c.to] {
			_ = c.Conn.Close()
		}
	}
	clear(w.cut)
	clear(w.silent)
}

// slow skips a test that takes seconds of real time when only short ones are wanted.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds of real time; run without -short")
	}
}
