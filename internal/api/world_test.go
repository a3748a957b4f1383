package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The clocks of all tests stand still here, so that bytes can be compared.
const nowMono = events.Instant(1000 * time.Second)

func nowWall() time.Time { return time.Date(2026, 11, 22, 23, 0, 0, 0, time.UTC) }

// fakeAgent is an agent whose state and PostgreSQL the test decides.
type fakeAgent struct {
	mu       sync.Mutex
	state    fsm.State
	changed  chan struct{}
	server   events.PostgresState // what a look finds
	observe  func(context.Context) (events.PostgresState, error)
	observed int
}

func newFakeAgent() *fakeAgent {
	return &fakeAgent{changed: make(chan struct{})}
}

func (a *fakeAgent) Snapshot() *fsm.State {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.state
	return &s
}

func (a *fakeAgent) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

func (a *fakeAgent) Observe(ctx context.Context) (events.PostgresState, error) {
	a.mu.Lock()
	a.observed++
	st, f := a.server, a.observe
	a.mu.Unlock()
	if f != nil {
		return f(ctx)
	}
	return st, nil
}

// hang makes every look wait until the returned function is called, or for the end of
// its context.
func (a *fakeAgent) hang() (release func()) {
	released := make(chan struct{})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.observe = func(ctx context.Context) (events.PostgresState, error) {
		select {
		case <-ctx.Done():
		case <-released:
		}
		return events.PostgresState{}, errors.New("PostgreSQL hung")
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.observe = nil
		close(released)
	}
}

// change edits the state and tells those who wait.
func (a *fakeAgent) change(f func(*fsm.State)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.state)
	close(a.changed)
	a.changed = make(chan struct{})
}

// world is a member with its API, over a store in memory.
type world struct {
	t      *testing.T
	agent  *fakeAgent
	store  *mem.Cluster
	client *mem.Client
	opt    Options
	// ask plays the machine; nil refuses.
	ask func(ctx context.Context, ev events.Event) (bool, string, error)
	// peers are the other members' answers by host.
	peers   map[string]string
	reloads chan struct{}
	server  *Server
	unhang  func() // of a script's hanging PostgreSQL
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, agent: newFakeAgent(), store: mem.New(func() events.Instant { return nowMono }),
		peers: map[string]string{}, reloads: make(chan struct{}, 8),
	}
	w.client = w.store.Client("api")
	w.opt = Options{
		Name: "pg00", Scope: "demo", Version: "0.1.0", Agent: w.agent, Store: w.client,
		Ask: func(ctx context.Context, _ string, ev events.Event) (bool, string, error) {
			if w.ask == nil {
				return false, "nobody listens", nil
			}
			return w.ask(ctx, ev)
		},
		Reload:   func() { w.reloads <- struct{}{} },
		Peers:    &http.Client{Transport: w},
		Settings: Settings{Listen: "127.0.0.1:0"},
		Log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	w.agent.state = leaderState()
	w.agent.server = w.agent.state.Postgres.State
	t.Cleanup(func() {
		if err := w.client.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// RoundTrip plays the other members; one that isn't there refuses.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	body, ok := w.peers[r.URL.Host]
	if !ok {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// build makes the server without running it.
func (w *world) build() *Server {
	w.t.Helper()
	s, err := New(w.opt)
	if err != nil {
		w.t.Fatal(err)
	}
	s.mono, s.wall = func() events.Instant { return nowMono }, nowWall
	w.server = s
	return s
}

// run serves until the test ends, or until the returned function is called.
func (w *world) run() (stop func() error) {
	w.t.Helper()
	s := w.build()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(30 * time.Second):
			return errors.New("the server does not end")
		}
	})
	w.t.Cleanup(func() {
		if err := stop(); err != nil {
			w.t.Error(err)
		}
	})
	return stop
}

// put writes keys ("key value" each), and shows the machine the result.
func (w *world) put(lines ...string) {
	w.t.Helper()
	for _, line := range lines {
		key, value, _ := strings.Cut(line, " ")
		write := dcs.Put(key, []byte(value))
		write.Delete = value == "(delete)"
		if _, err := w.client.Commit(context.Background(), dcs.Txn{Writes: []dcs.Write{write}}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.sync()
}

// sync gives the machine the store's view, as its watch would.
func (w *world) sync() {
	v, err := w.client.View(context.Background(), dcs.Local)
	if err != nil {
		w.t.Fatal(err)
	}
	w.agent.change(func(s *fsm.State) { s.Store.Known, s.Store.View, s.Store.At = true, dcs.Decode(v), nowMono })
}

// stored is a key's value.
func (w *world) stored(key string) string {
	w.t.Helper()
	v, err := w.client.View(context.Background(), dcs.Linearizable)
	if err != nil {
		w.t.Fatal(err)
	}
	kv, ok := v.Get(key)
	if !ok {
		return "(none)"
	}
	return string(kv.Value)
}

// say sends bytes to the server and returns all that it answers until it closes.
func (w *world) say(raw string) string {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.server.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	return converse(w.t, conn, raw)
}

func converse(t *testing.T, conn net.Conn, raw string) string {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("read the answer to %.60q: %v (got %q)", raw, err, b)
	}
	return string(b)
}

// send is say with a well-formed request; it returns status line and body.
func (w *world) send(method, path, body string, headers ...string) (status, text string) {
	w.t.Helper()
	raw := method + " " + path + " HTTP/1.1\r\nHost: x\r\n"
	if body != "" {
		raw += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	for _, h := range headers {
		raw += h + "\r\n"
	}
	return split(w.say(raw + "\r\n" + body))
}

func split(answer string) (status, body string) {
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	status, _, _ = strings.Cut(head, "\r\n")
	return strings.TrimPrefix(status, "HTTP/1.0 "), body
}

// leaderState is a primary that leads, with one standby.
func leaderState() fsm.State {
	return fsm.State{
		Self: "pg00", Scope: "demo", Phase: fsm.Leading, NextTick: nowMono.Add(time.Second),
		Settings: events.Settings{
			TTL: 30 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second,
			PrimaryStartTimeout: 300 * time.Second, MaximumLagOnFailover: 1 << 20,
		},
		Lease:  fsm.Lease{ID: "L", TTL: 30 * time.Second, Sent: nowMono.Add(-4 * time.Second), Leads: true},
		Holder: fsm.Holder{Revision: 7},
		Keeper: fsm.Keeper{Up: true, Armed: true},
		Postgres: fsm.Postgres{Known: true, State: events.PostgresState{
			Data:    events.DataDir{Content: events.DataCluster, SystemID: "7711118317991320207"},
			Running: true, PID: 42, Ready: true, Position: 117440840, Timeline: 3, ServerVersion: 150018,
			StartedAt: "2026-11-22 22:08:30.770138+00",
			Standbys: []events.StandbyState{{
				User: "replicator", Name: "pg02", Addr: "10.0.0.2", State: "streaming", SyncState: "async",
			}},
		}},
		Last: fsm.Decision{
			Status: "no action. I am (pg00), the leader with the lock",
			Reason: fsm.Reason{Rule: "leading/leading", Text: "the leader key is ours"},
		},
	}
}

// replicaState is a standby of pg01 that streams.
func replicaState() fsm.State {
	s := leaderState()
	s.Phase, s.Holder, s.Lease.Leads = fsm.Following, fsm.Holder{}, false
	s.Keeper = fsm.Keeper{Up: true}
	p := &s.Postgres.State
	p.InRecovery, p.Position, p.Standbys = true, 0, nil
	p.Received, p.Replayed, p.Streaming, p.Upstream = 117440840, 117440800, true, "10.0.0.1:5432"
	p.ReplayedAt = "2026-11-22 22:59:58.5+00"
	s.Last = fsm.Decision{
		Status: "no action. I am (pg00), a secondary, and following a leader (pg01)",
		Reason: fsm.Reason{Rule: "following/following", Text: "streaming from 10.0.0.1:5432"},
	}
	return s
}
