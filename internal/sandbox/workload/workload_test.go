package workload

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/sandbox/history"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// server is one PostgreSQL.
type server struct {
	port      int
	dir, sock string
	t         *testing.T
}

func newServer(t *testing.T) *server {
	t.Helper()
	return &server{t: t, port: pgtest.FreePort(t), dir: pgtest.DataDir(t), sock: pgtest.SocketDir(t)}
}

func (s *server) dsn() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", s.port)
}

// start runs the server, as a standby of nobody when standby is set.
func (s *server) start(standby bool) *exec.Cmd {
	s.t.Helper()
	if standby {
		if err := os.WriteFile(filepath.Join(s.dir, "standby.signal"), nil, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(pgtest.BinDir(s.t), "postgres"), "-D", s.dir, "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+s.sock)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, &out, &out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		pgtest.KillIn(s.t, s.dir)
		_ = cmd.Wait() // it was killed, and perhaps waited for
		if s.t.Failed() {
			s.t.Log(out.String())
		}
	})
	return cmd
}

// run runs the workloads until the returned function is called.
func run(t *testing.T, load ...interface{ Run(context.Context) error }) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, l := range load {
		running.Go(func() {
			if err := l.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// await waits until the watcher sees the member in a role.
func await(t *testing.T, v *Watcher, name string, want history.Role) {
	t.Helper()
	ctx := limited(t)
	for v.Roles()[name] != want {
		if !pause(ctx, 5*time.Millisecond) {
			t.Fatalf("%s is seen as %q, want %q", name, v.Roles()[name], want)
		}
	}
}

// A writer that knows one member only waits for that to take writes, and what it was refused till
// then counts for nothing.
func TestAWriterOfItsOwnMemberWaitsForItToBePrimary(t *testing.T) {
	s := newServer(t)
	s.start(true)
	origin := time.Now()
	w := NewWriter(WriterConfig{DSN: s.dsn(), Nodes: map[int]string{s.port: "a"}, Origin: origin, Own: true, Table: "of_a"})
	v := NewWatcher(origin, []Target{{Name: "a", DSN: s.dsn()}})
	stop := run(t, w, v)
	await(t, v, "a", history.Replica)
	conn, err := pgx.Connect(limited(t), s.dsn())
	if err != nil {
		t.Fatal(err)
	}
	before := w.Acked()
	if _, err := conn.Exec(limited(t), "SELECT pg_promote()"); err != nil || before != 0 {
		t.Fatalf("%d acknowledged by a standby; promotion: %v", before, err)
	}
	hangUp(conn)
	if err := w.Await(limited(t), 20, 0); err != nil {
		t.Fatal(err)
	}
	stop()
	log := w.Log()
	present, err := Rows(limited(t), s.dsn(), "of_a")
	if err != nil || len(log.Unknown) > 0 || len(log.Missing(present)) > 0 || log.Next != int64(len(log.Acks))+1 {
		t.Errorf("%v; unknown %v, missing %v, next %d after %d", err, log.Unknown, log.Missing(present), log.Next, len(log.Acks))
	}
}

func TestWhatWasAcknowledgedSurvivesACrashAndIsCounted(t *testing.T) {
	s := newServer(t)
	postmaster := s.start(false)
	origin := time.Now()
	w := NewWriter(WriterConfig{DSN: s.dsn() + "&target_session_attrs=read-write", Nodes: map[int]string{s.port: "a"}, Origin: origin})
	v := NewWatcher(origin, []Target{{Name: "a", DSN: s.dsn()}})
	stop := run(t, w, v)
	if err := w.Await(limited(t), 20, 0); err != nil {
		t.Fatal(err)
	}
	await(t, v, "a", history.Primary)
	killed := time.Since(origin)
	// The whole server at once: a postmaster alone leaves backends that go on for a while.
	if err := postmaster.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	pgtest.KillIn(t, s.dir)
	_ = postmaster.Wait() // it was killed; a zombie would look alive to the next one
	await(t, v, "a", history.Down)
	again := time.Since(origin)
	s.start(false)
	if err := w.Await(limited(t), 20, again); err != nil {
		t.Fatal(err)
	}
	await(t, v, "a", history.Primary)
	stop()

	log := w.Log()
	present, err := Rows(limited(t), s.dsn(), Table)
	if err != nil {
		t.Fatal(err)
	}
	if lost := log.Missing(present); len(lost) > 0 {
		t.Errorf("lost %v", lost)
	}
	if foreign := log.Foreign(present); len(foreign) > 0 {
		t.Errorf("rows from nowhere: %v", foreign)
	}
	if int(log.Next)-1 != len(log.Acks)+len(log.Unknown) {
		t.Errorf("%d numbers used, %d acknowledged, %d unknown", log.Next-1, len(log.Acks), len(log.Unknown))
	}
	if g := log.LongestGap(killed, again); g.Before.Acked > again || g.After.Acked < again {
		t.Errorf("the outage from %s to %s isn't around the crash, before %s", g.From, g.To, again)
	}
	writes := 0
	var roles []string
	for _, span := range v.Spans() {
		writes += span.Writes
		if len(roles) == 0 || roles[len(roles)-1] != string(span.Role) {
			roles = append(roles, string(span.Role))
		}
	}
	if got := strings.TrimPrefix(strings.Join(roles, " "), "down "); got != "primary down primary" {
		t.Errorf("seen as %q", got)
	}
	if writes == 0 {
		t.Error("the watcher never proved that the primary takes writes")
	}
}

func TestStandbyIsWatchedAndNotWritten(t *testing.T) {
	s := newServer(t)
	s.start(true)
	origin := time.Now()
	w := NewWriter(WriterConfig{DSN: s.dsn() + "&target_session_attrs=read-write", Nodes: map[int]string{s.port: "a"}, Origin: origin})
	v := NewWatcher(origin, []Target{{Name: "a", DSN: s.dsn()}})
	stop := run(t, w, v)
	await(t, v, "a", history.Replica)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := w.Await(ctx, 1, 0); err == nil {
		t.Error("a standby acknowledged an insert")
	} else if !strings.Contains(err.Error(), ErrSilent.Error()) {
		t.Error(err)
	}
	stop()
	from := time.Duration(0)
	for _, span := range v.Spans() {
		if span.Role == history.Replica && from == 0 {
			from = span.FirstAnswered
		}
		if span.Writes > 0 {
			t.Errorf("a write was acknowledged: %s", span)
		}
	}
	if rate, blind := history.Rate(v.Spans(), "a", from, from+250*time.Millisecond); rate < 50 {
		t.Errorf("looked at %.0f times a second, blind for %s: too seldom even for a busy machine", rate, blind)
	}
}
