package pgmgr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m, "./cmd/regent-keeper") }

// The real keeper's client is what the verbs are tested against.
var _ Postmaster = (*keeper.Client)(nil)

// patience bounds every wait for something that should come soon; no test waits
// for it to pass.
const patience = 30 * time.Second

// node is one member: a data directory, its keeper and its Manager.
type node struct {
	*Manager
	t    *testing.T
	name string
	k    *keeper.Client
	logs *logBuffer
}

// newNode makes a member on a copy of the template cluster, not started.
func newNode(t *testing.T, name string) *node {
	t.Helper()
	return nodeOn(t, name, pgtest.DataDir(t), nil)
}

// emptyNode makes a member with an empty data directory.
func emptyNode(t *testing.T, name string) *node {
	t.Helper()
	return nodeOn(t, name, pgtest.EmptyDataDir(t), nil)
}

func nodeOn(t *testing.T, name, data string, change func(*Config)) *node {
	t.Helper()
	run := pgtest.SocketDir(t)
	cfg := testConfig(t, name, data, run)
	if change != nil {
		change(&cfg)
	}
	n := &node{t: t, name: name, logs: &logBuffer{}}
	n.k = launchKeeper(t, run, data)
	m, err := New(cfg, n.k, slog.New(slog.NewTextHandler(n.logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatalf("make the manager: %v", err)
	}
	n.Manager = m
	t.Cleanup(func() {
		m.Close(context.Background())
		if t.Failed() {
			server, err := os.ReadFile(cfg.logFile())
			t.Logf("log of %s:\n%s\nserver of %s (%v):\n%s", name, n.logs.String(), name, err, server)
		}
	})
	return n
}

func launchKeeper(t *testing.T, run, data string) *keeper.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	k, err := keeper.Launch(ctx, keeper.LaunchConfig{
		Binary: pgtest.Binary(t, "regent-keeper"), RunDir: run, DataDir: data, LogFile: filepath.Join(run, "keeper.log"),
	})
	if err != nil {
		t.Fatalf("launch the keeper: %v", err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Errorf("close the keeper's client: %v", err)
		}
	})
	return k
}

func testConfig(t *testing.T, name, data, run string) Config {
	t.Helper()
	return Config{
		BinDir: pgtest.BinDir(t), DataDir: data, RunDir: run, Scope: "test", Name: name,
		ListenAddresses: "127.0.0.1", Port: pgtest.FreePort(t), LocalHost: run,
		Superuser: Credentials{Username: "postgres"}, Replication: Credentials{Username: "postgres"},
		Parameters: map[string]string{
			"unix_socket_directories": run, "fsync": "off", "max_connections": "30", "shared_buffers": "16MB",
			"dynamic_shared_memory_type": "mmap", "autovacuum": "off", "full_page_writes": "on",
		},
		UsePgRewind: true,
		Basebackup:  []Option{{Name: "no-sync"}}, RewindOptions: []Option{{Name: "no-sync"}},
	}
}

// logBuffer collects a manager's log; Observe and verbs write to it concurrently.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (n *node) ctx() context.Context {
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	n.t.Cleanup(cancel)
	return ctx
}

// upstream is how others reach the node.
func (n *node) upstream() events.Upstream {
	return events.Upstream{Name: events.NodeName(n.name), Host: "127.0.0.1", Port: n.config().Port}
}

// param changes one parameter of the configuration.
func (n *node) param(name, value string) {
	n.t.Helper()
	cfg := n.config()
	cfg.Parameters = maps.Clone(cfg.Parameters)
	cfg.Parameters[name] = value
	n.must("reconfigure", n.Reconfigure(cfg))
}

func (n *node) must(what string, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s on %s: %v", what, n.name, err)
	}
}

// wantClass fails unless err is of the class.
func (n *node) wantClass(what string, err, class error) {
	n.t.Helper()
	if !errors.Is(err, class) {
		n.t.Fatalf("%s on %s: got error %v, want one of class %q", what, n.name, err, class)
	}
}

// longGrant doesn't end during a test.
func longGrant() *keeper.Grant {
	return &keeper.Grant{Revision: 1, Deadline: mono.Now().Add(time.Hour), Budget: time.Second}
}

func (n *node) startPrimary() *node {
	n.t.Helper()
	n.must("start as a primary", n.Start(n.ctx(), StartOptions{Grant: longGrant()}))
	return n
}

func (n *node) startReplica(of *node) *node {
	n.t.Helper()
	up := of.upstream()
	n.must("start as a replica", n.Start(n.ctx(), StartOptions{Standby: true, Upstream: &up}))
	return n
}

// replicaOf clones and starts a replica that streams.
func replicaOf(t *testing.T, name string, of *node) *node {
	t.Helper()
	n := emptyNode(t, name)
	n.must("clone", n.Clone(n.ctx(), of.upstream(), CloneOptions{}))
	n.startReplica(of)
	n.awaitStreaming(of)
	return n
}

// sql runs statements and returns the first column of the last row.
func (n *node) sql(statements string) string {
	n.t.Helper()
	out, err := n.trySQL(statements)
	n.must(statements, err)
	return out
}

func (n *node) trySQL(statements string) (string, error) {
	conn, err := n.session()
	if err != nil {
		return "", err
	}
	defer hangUp(conn)
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	results, err := conn.Exec(ctx, statements).ReadAll()
	if err != nil {
		return "", err
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return "", nil
	}
	return string(last.Rows[0][0]), nil
}

func (n *node) session() (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	cfg := n.config()
	return cfg.connectLocal(ctx, cfg.local("test client"))
}

func (n *node) observe() events.PostgresState {
	n.t.Helper()
	st, err := n.Observe(n.ctx())
	n.must("observe", err)
	return st
}

func (n *node) judge(of *node) events.Divergence {
	n.t.Helper()
	began := time.Now()
	d, err := n.Judge(n.ctx(), of.upstream())
	n.must("judge", err)
	n.t.Logf("judge %s against %s: %s in %s: %s", n.name, of.name, d.Verdict, time.Since(began).Round(time.Millisecond), d.Why)
	return d
}

func (n *node) wantVerdict(of *node, want events.Verdict) events.Divergence {
	n.t.Helper()
	d := n.judge(of)
	if d.Verdict != want {
		n.t.Fatalf("verdict on %s against %s is %+v, want %s", n.name, of.name, d, want)
	}
	return d
}

func (n *node) stop() {
	n.t.Helper()
	n.must("stop", n.Stop(n.ctx(), StopOptions{}))
}

// kill ends the whole server with SIGKILL, as a power failure would.
func (n *node) kill() {
	n.t.Helper()
	n.must("kill", n.k.Stop(n.ctx(), keeper.StopKill))
	n.must("await the end", n.k.WaitDown(n.ctx()))
}

func (n *node) pid() int {
	n.t.Helper()
	st, err := n.k.Status(n.ctx())
	n.must("ask the keeper", err)
	return st.PID
}

// signal sends a signal to the postmaster.
func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	n.must("signal", syscall.Kill(n.pid(), s))
}

// awaitStreaming waits until the replica has everything of its upstream.
func (n *node) awaitStreaming(of *node) {
	n.t.Helper()
	n.eventually("streams from "+of.name, func() error {
		st, err := n.Observe(n.ctx())
		if err != nil {
			return err
		}
		want := "127.0.0.1:" + strconv.Itoa(of.config().Port)
		if !st.Streaming || st.Upstream != want {
			return fmt.Errorf("upstream %q, streaming %t, %s", st.Upstream, st.Streaming, st.Why)
		}
		return nil
	})
	n.awaitReplayed(of)
}

// awaitReplayed waits until the replica has replayed all that the other has flushed.
func (n *node) awaitReplayed(of *node) {
	n.t.Helper()
	at := of.sql("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END")
	n.eventually("replays up to "+at, func() error {
		got, err := n.trySQL("SELECT pg_last_wal_replay_lsn() >= '" + at + "'::pg_lsn")
		if err == nil && got != "t" {
			err = errors.New("not yet")
		}
		return err
	})
}

func (n *node) eventually(what string, check func() error) {
	n.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: never: %s: %v", n.name, what, err)
		}
		if err := pause(n.t.Context(), 5*time.Millisecond); err != nil {
			n.t.Fatal(err)
		}
	}
}

// promote promotes a replica and returns its timeline.
func (n *node) promote() events.Timeline {
	n.t.Helper()
	began := time.Now()
	tl, err := n.Promote(n.ctx(), *longGrant(), nil)
	n.must("promote", err)
	n.t.Logf("promotion of %s took %s", n.name, time.Since(began).Round(time.Millisecond))
	return tl
}

// insert adds rows and returns how many there are.
func (n *node) insert(rows int) {
	n.t.Helper()
	n.sql(fmt.Sprintf("CREATE TABLE IF NOT EXISTS t (i int); INSERT INTO t SELECT generate_series(1, %d)", rows))
}

func (n *node) readConf() string {
	n.t.Helper()
	b, err := os.ReadFile(n.config().confPath("postgresql.conf"))
	n.must("read postgresql.conf", err)
	return string(b)
}
