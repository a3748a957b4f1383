package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/agent"
	"github.com/pgregent/regent/internal/logging"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/internal/replay"
	"github.com/pgregent/regent/pgmgr"
	"github.com/pgregent/regent/pgmgr/keeper"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// documentEnv carries the document's file to the tests, whose user may not be able to
// read the clone.
const documentEnv = "REGENT_TEST_DOCUMENT"

func TestMain(m *testing.M) {
	if text, err := os.ReadFile("../config/testdata/document.yml"); err == nil {
		if err := os.Setenv(documentEnv, string(text)); err != nil {
			panic(err)
		}
	}
	pgtest.Main(m, "./cmd/regent", "./cmd/regent-keeper")
}

// patience bounds every wait; no test waits for it to pass.
const patience = 40 * time.Second

// world is a cluster of agents in this process, on the model store, with real
// keepers and PostgreSQLs.
type world struct {
	t     *testing.T
	store *mem.Cluster
	nodes map[string]*node
	// clock is a member's wall clock; nil: the machine's.
	clock func(name string) time.Time
}

func (n *node) wall() time.Time {
	if n.w.clock == nil {
		return time.Now()
	}
	return n.w.clock(string(n.name))
}

// node is one member. Its agent can be ended and started again on the same data.
type node struct {
	t      *testing.T
	w      *world
	name   events.NodeName
	data   string
	run    string
	jdir   string
	port   int
	api    *httptest.Server
	logs   *buffer
	stop   context.CancelFunc
	done   chan error
	agent  *agent.Agent
	closed func()
	panics atomic.Bool // the settings do, when they are read next
	// archive is the archive_command; empty: archiving is off.
	archive string
	mu      sync.Mutex
}

// buffer is a log that may be written and read by several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// forget empties the log.
func (b *buffer) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: mem.New(mono.Now), nodes: map[string]*node{}}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.store.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return w
}

// add makes a member and starts its agent.
func (w *world) add(name string) *node { return w.addArchiving(name, "") }

// addArchiving is add, with an archive_command.
func (w *world) addArchiving(name, command string) *node {
	w.t.Helper()
	n := &node{
		archive: command,
		t:       w.t, w: w, name: events.NodeName(name), data: pgtest.EmptyDataDir(w.t), run: pgtest.SocketDir(w.t),
		port: pgtest.FreePort(w.t), logs: &buffer{},
	}
	n.jdir = filepath.Join(n.run, "journal")
	n.api = httptest.NewServer(http.HandlerFunc(n.serve))
	w.nodes[name] = n
	w.t.Cleanup(func() {
		n.kill()
		n.api.Close()
		if w.t.Failed() {
			w.t.Logf("log of %s:\n%s", name, n.logs.String())
		}
	})
	n.start()
	return n
}

// serve is as much of the REST API as the machine's probes read.
func (n *node) serve(rw http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	a := n.agent
	n.mu.Unlock()
	if a == nil {
		http.Error(rw, "down", http.StatusServiceUnavailable)
		return
	}
	out := map[string]any{"state": "stopped", "role": "replica"}
	if p, err := a.Observe(r.Context()); err == nil && p.Ready {
		out["state"], out["timeline"] = "running", p.Timeline
		if p.InRecovery {
			out["xlog"] = map[string]any{"received_location": p.Received, "replayed_location": p.Replayed}
		} else {
			out["role"], out["xlog"] = "primary", map[string]any{"location": p.Position}
		}
	}
	_ = json.NewEncoder(rw).Encode(out)
}

func (n *node) settings([]byte, bool) (events.Settings, pgmgr.Config, error) {
	if n.panics.Swap(false) {
		panic("injected")
	}
	set := events.Settings{
		TTL: 3 * time.Second, LoopWait: time.Second, RetryTimeout: time.Second, PrimaryStartTimeout: 30 * time.Second,
		MaximumLagOnFailover: 1 << 20, MemberSlotsTTL: 30 * time.Minute, UseSlots: true, UsePgRewind: true, RemoveDataDir: true,
		StopWait: 10 * time.Second, MayBootstrap: true, Tags: events.Tags{FailoverPriority: 1},
		ConnURL: fmt.Sprintf("postgres://127.0.0.1:%d/postgres", n.port), APIURL: n.api.URL + "/patroni",
		BootstrapConfig: `{"ttl":3}`,
	}
	cfg := pgmgr.Config{
		DataDir: n.data, RunDir: n.run, BinDir: pgtest.BinDir(n.t), Scope: "demo", Name: string(n.name),
		ListenAddresses: "127.0.0.1", Port: n.port, LocalHost: "127.0.0.1",
		Superuser: pgmgr.Credentials{Username: "postgres", Password: "secret"}, Replication: pgmgr.Credentials{Username: "repl", Password: "secret"},
		Parameters: map[string]string{
			"fsync": "off", "dynamic_shared_memory_type": "mmap", "unix_socket_directories": n.run, "wal_level": "replica", "hot_standby": "on", "wal_log_hints": "on",
			"max_wal_senders": "10", "max_replication_slots": "10", "max_connections": "50", "shared_buffers": "16MB", "wal_keep_size": "128MB",
		},
		BootstrapHBA: []string{"host replication repl 127.0.0.1/32 md5", "host all all 127.0.0.1/32 md5"},
		InitDB:       []pgmgr.Option{{Name: "data-checksums"}, {Name: "no-locale"}, {Name: "encoding", Value: "UTF8"}},
		UseSlots:     true, UsePgRewind: true,
	}
	if n.archive != "" {
		cfg.Parameters["archive_mode"], cfg.Parameters["archive_command"] = "on", n.archive
	}
	return set, cfg, nil
}

// start runs the agent; a former one must have ended.
func (n *node) start() {
	n.t.Helper()
	log := logging.New(n.logs, "DEBUG", false).With("node", string(n.name))
	k := agent.NewKeeper(keeper.LaunchConfig{
		Binary: pgtest.Binary(n.t, "regent-keeper"), RunDir: n.run, DataDir: n.data, LogFile: filepath.Join(n.run, "keeper.log"),
	}, log)
	_, cfg, _ := n.settings(nil, false)
	pg, err := pgmgr.New(cfg, k, log)
	if err != nil {
		n.t.Fatalf("make the manager: %v", err)
	}
	source := &agent.SnapshotSource{Binary: "test"}
	j, found, err := journal.Open(n.jdir, journal.Options{Snapshot: source.Snapshot, Logger: log})
	if err != nil {
		n.t.Fatalf("open the journal: %v", err)
	}
	resume, err := replay.Resume(found)
	if err != nil {
		n.t.Fatalf("resume: %v", err)
	}
	client := n.w.store.Client(string(n.name))
	a := agent.New(agent.Options{
		Name: n.name, Scope: "demo", Version: "test", Settings: n.settings, Store: client, Postgres: pg, Keeper: k,
		Journal: j, DataDir: n.data, Peers: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		Resume: resume, Snapshots: source, Log: log, Wall: n.wall,
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := j.Run(ctx); err != nil {
			log.Error("the journal ended", "err", err)
		}
	})
	parts.Go(func() { done <- a.Run(ctx) })
	n.mu.Lock()
	n.agent, n.stop, n.done = a, stop, done
	n.mu.Unlock()
	n.closed = func() {
		stop()
		parts.Wait()
		_ = client.Close()
		_ = k.Close()
	}
}

// kill ends the agent at once, as a crash would: PostgreSQL and keeper go on.
func (n *node) kill() {
	n.mu.Lock()
	n.agent = nil
	n.mu.Unlock()
	if n.closed != nil {
		n.closed()
		n.closed = nil
	}
}

// await waits until the member's snapshot satisfies until.
func (n *node) await(what string, until func(*fsm.State) bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.agent.Wait(ctx, until); err != nil {
		s := n.agent.Snapshot()
		n.t.Fatalf("%s: %s: %v; phase %s, %s", n.name, what, err, s.Phase, s.Last.Reason.Text)
	}
}

func leading(s *fsm.State) bool { return s.Phase == fsm.Leading }

func streaming(s *fsm.State) bool {
	return s.Phase == fsm.Following && s.Postgres.State.Streaming
}

// replays proves that every decision of the member's journal is recomputed equal.
func (n *node) replays() {
	n.t.Helper()
	rep, err := replay.Check(n.jdir, replay.AnyProgram)
	if err != nil {
		n.t.Errorf("%s: replay: %v", n.name, err)
	}
	if rep.Compared == 0 {
		n.t.Errorf("%s: the replay compared nothing: %+v", n.name, rep)
	}
}

// promoteByHand does what an operator does who knows nothing of the agent.
func (n *node) promoteByHand() {
	n.t.Helper()
	out, err := exec.Command(filepath.Join(pgtest.BinDir(n.t), "pg_ctl"), "promote", "-W", "-D", n.data).CombinedOutput()
	if err != nil {
		n.t.Fatalf("pg_ctl promote: %v: %s", err, out)
	}
}

func command(args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	return string(out), err
}
