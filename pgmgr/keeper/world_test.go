package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// patience bounds every wait for something that should come soon. It is long
// because the machine may be busy; no test waits for it to pass.
const patience = 30 * time.Second

// world is one data directory with its keeper.
type world struct {
	t         *testing.T
	data, run string
	k         *keeper.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, data: pgtest.DataDir(t), run: pgtest.SocketDir(t)}
	w.k = w.launch()
	return w
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) config() keeper.LaunchConfig {
	return keeper.LaunchConfig{
		Binary: pgtest.Binary(w.t, "regent-keeper"), RunDir: w.run, DataDir: w.data,
		LogFile: filepath.Join(w.run, "keeper.log"),
	}
}

// launch connects, starting a keeper if there is none.
func (w *world) launch() *keeper.Client {
	w.t.Helper()
	k, err := keeper.Launch(w.ctx(), w.config())
	if err != nil {
		w.t.Fatalf("launch the keeper: %v", err)
	}
	w.t.Cleanup(func() {
		if err := k.Close(); err != nil {
			w.t.Errorf("close the client: %v", err)
		}
		if w.t.Failed() {
			for _, name := range []string{"keeper.log", "postgres.log"} {
				b, err := os.ReadFile(filepath.Join(w.run, name))
				w.t.Logf("%s (%v):\n%s", name, err, b)
			}
		}
	})
	return k
}

func (w *world) startRequest(g *keeper.Grant) keeper.StartRequest {
	return keeper.StartRequest{
		Args:    []string{filepath.Join(pgtest.BinDir(w.t), "postgres"), "-D", w.data, "-k", w.run},
		Env:     []string{"LC_ALL=C", "PATH=/usr/bin:/bin"},
		LogFile: filepath.Join(w.run, "postgres.log"),
		Grant:   g,
	}
}

// grant of some revision that ends after d.
func grant(rev events.Revision, d, budget time.Duration) keeper.Grant {
	return keeper.Grant{Revision: rev, Deadline: mono.Now().Add(d), Budget: budget}
}

// longGrant doesn't end during a test.
func longGrant() keeper.Grant { return grant(1, time.Hour, time.Second) }

// start starts PostgreSQL under g (nil: as a standby) and waits until it answers.
func (w *world) start(g *keeper.Grant) keeper.Status {
	w.t.Helper()
	st, err := w.k.Start(w.ctx(), w.startRequest(g))
	if err != nil {
		w.t.Fatalf("start PostgreSQL: %v", err)
	}
	w.session().close()
	return st
}

// standby makes the data directory a standby's.
func (w *world) standby() {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.data, "standby.signal"), nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// session is one connection to PostgreSQL.
type session struct {
	t    *testing.T
	conn *pgconn.PgConn
	pid  int
}

// session connects, trying until PostgreSQL accepts.
func (w *world) session() *session {
	w.t.Helper()
	var conn *pgconn.PgConn
	w.eventually("PostgreSQL accepts connections", func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		var err error
		conn, err = pgconn.Connect(ctx, fmt.Sprintf("host=%s port=5432 user=postgres dbname=postgres", w.run))
		return err
	})
	s := &session{t: w.t, conn: conn, pid: int(conn.PID())}
	w.t.Cleanup(s.close)
	return s
}

// close leaves without a word; the other end may be dead.
func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// exec returns the first column of the first row of the last result.
func (s *session) exec(ctx context.Context, sql string) (string, error) {
	results, err := s.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return "", nil
	}
	return string(last.Rows[0][0]), nil
}

func (s *session) must(sql string) string {
	s.t.Helper()
	v, err := s.exec(s.t.Context(), sql)
	if err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// outcome of a statement that runs beside the test.
type outcome struct {
	err   error
	ended events.Instant
}

// background runs a statement and delivers its outcome once.
func (s *session) background(sql string) <-chan outcome {
	out := make(chan outcome, 1)
	go func() {
		_, err := s.exec(s.t.Context(), sql)
		out <- outcome{err: err, ended: mono.Now()}
	}()
	return out
}

// eventually tries until f returns nil, or fails the test.
func (w *world) eventually(what string, f func() error) {
	w.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// active waits until a backend runs a statement that begins with prefix.
func (w *world) active(pid int, prefix string) {
	w.t.Helper()
	s := w.session()
	defer s.close()
	w.eventually("a backend is busy", func() error {
		q := s.must(fmt.Sprintf(`select state || ' ' || query from pg_stat_activity where pid = %d`, pid))
		if !strings.HasPrefix(q, "active "+prefix) {
			return fmt.Errorf("it does %q", q)
		}
		return nil
	})
}

// next waits for an event of the kind and returns it with all that came before it.
func (w *world) next(kind keeper.EventKind) (keeper.Event, []keeper.Event) {
	w.t.Helper()
	var before []keeper.Event
	deadline := time.After(patience)
	for {
		select {
		case e, ok := <-w.k.Events():
			if !ok {
				w.t.Fatalf("connection ended before %s (%v); came: %v", kind, w.k.Err(), before)
			}
			if e.Kind == kind {
				return e, before
			}
			before = append(before, e)
		case <-deadline:
			w.t.Fatalf("no %s within %s; came: %v", kind, patience, before)
		}
	}
}

func kinds(es []keeper.Event) string {
	var names []string
	for _, e := range es {
		names = append(names, string(e.Kind))
	}
	return strings.Join(names, " ")
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func signalPID(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("send %s to %d: %v", sig, pid, err)
	}
}

// frozen waits until a SIGSTOP has reached every thread of a process.
func (w *world) frozen(pid int) {
	w.t.Helper()
	w.eventually("the process stands still", func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(threads) == 0 {
			return fmt.Errorf("no threads of %d: %w", pid, err)
		}
		for _, path := range threads {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if _, state, _ := strings.Cut(string(b), ") "); !strings.HasPrefix(state, "T") {
				return fmt.Errorf("%s: %.20s", path, b)
			}
		}
		return nil
	})
}

// refused checks the class and the sentence of an error.
func refused(t *testing.T, err error, sentence string) {
	t.Helper()
	if !errors.Is(err, keeper.ErrRefused) {
		t.Fatalf("got %v, want a refusal", err)
	}
	if !strings.Contains(err.Error(), sentence) {
		t.Errorf("refused with %q, want it to say %q", err, sentence)
	}
}
