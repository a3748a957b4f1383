package systemd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// manager is the service manager's end of the socket.
type manager struct {
	t *testing.T
	c *net.UnixConn
}

func listen(t *testing.T, name string) *manager {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &manager{t, c}
}

// next is the next datagram, "" when there is none: what was sent is there already.
func (m *manager) next() string {
	m.t.Helper()
	if err := m.c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		m.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := m.c.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return string(buf[:n])
}

func (m *manager) wants(want string) {
	m.t.Helper()
	if got := m.next(); got != want {
		m.t.Errorf("the service manager got %q, want %q", got, want)
	}
}

func TestBothKindsOfSockets(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "n"), fmt.Sprintf("@regent-test-%d", os.Getpid())} {
		m := listen(t, name)
		n, err := New([]string{"NOTIFY_SOCKET=/elsewhere", "NOTIFY_SOCKET=" + name})
		if err != nil || !n.Listening() || n.Watchdog != 0 {
			t.Fatalf("%s: %+v, %v", name, n, err)
		}
		if err := n.Send("READY=1", "STATUS=one\ntwo\xff"); err != nil {
			t.Fatal(err)
		}
		m.wants("READY=1\nSTATUS=one two?\n")
	}
}

func TestEnvironment(t *testing.T) {
	sock := "NOTIFY_SOCKET=@x"
	for _, c := range []struct {
		env      []string
		listens  bool
		watchdog time.Duration
		fails    bool
	}{
		{nil, false, 0, false},
		{[]string{"WATCHDOG_USEC=1000"}, false, 0, false},
		{[]string{"NOTIFY_SOCKET=relative"}, false, 0, true},
		{[]string{sock, "WATCHDOG_USEC=30000000"}, true, 30 * time.Second, false},
		{[]string{sock, "WATCHDOG_USEC=30000000", fmt.Sprintf("WATCHDOG_PID=%d", os.Getpid())}, true, 30 * time.Second, false},
		{[]string{sock, "WATCHDOG_USEC=30000000", "WATCHDOG_PID=1"}, true, 0, false},
		{[]string{sock, "WATCHDOG_USEC=soon"}, true, 0, true},
		{[]string{sock, "WATCHDOG_USEC=-1"}, true, 0, true},
	} {
		n, err := New(c.env)
		if n.Listening() != c.listens || n.Watchdog != c.watchdog || (err != nil) != c.fails {
			t.Errorf("%v: %+v, %v", c.env, n, err)
		}
	}
}

func TestNobodyListeningIsNoErrorAndADeadSocketIsOne(t *testing.T) {
	var n Notifier
	if err := n.Send("READY=1"); err != nil {
		t.Error(err)
	}
	dead, err := New([]string{"NOTIFY_SOCKET=" + filepath.Join(t.TempDir(), "gone")})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := NewService(dead, slog.New(slog.NewTextHandler(&log, nil)))
	s.Beat()
	s.Beat()
	if n := strings.Count(log.String(), "isn't told"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}

// TestFullSocketDoesNotHoldUpTheLoop: a service manager that reads nothing.
func TestFullSocketDoesNotHoldUpTheLoop(t *testing.T) {
	name := filepath.Join(t.TempDir(), "n")
	listen(t, name)
	n, err := New([]string{"NOTIFY_SOCKET=" + name})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		began := time.Now()
		if err := n.Send("WATCHDOG=1"); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) || i == 0 {
				t.Errorf("after %d datagrams: %v", i, err)
			}
			return
		}
		if took := time.Since(began); took > time.Second || i > 100_000 {
			t.Fatalf("datagram %d took %s", i, took)
		}
	}
}

func service(t *testing.T, env ...string) (*Service, *manager) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "n")
	m := listen(t, name)
	n, err := New(append(env, "NOTIFY_SOCKET="+name))
	if err != nil {
		t.Fatal(err)
	}
	return NewService(n, slog.New(slog.DiscardHandler)), m
}

func state(phase fsm.Phase, ev events.Kind, status string) *fsm.State {
	s := &fsm.State{Phase: phase}
	s.Last.Event, s.Last.Status = ev, status
	return s
}

func TestLifeOfAService(t *testing.T) {
	s, m := service(t, "WATCHDOG_USEC=9000000")
	if s.Every() != 3*time.Second {
		t.Errorf("a beat every %s", s.Every())
	}
	s.Stepped(state(fsm.Init, "AgentStarted", "starting"))
	m.wants("STATUS=starting\n")
	s.Beat()
	m.wants("WATCHDOG=1\n" + extend + "\n")
	cloning := state(fsm.Cloning, events.KindTick, "bootstrap in progress")
	cloning.Op = &fsm.Flight{Kind: "clone"}
	s.Stepped(cloning)
	m.wants("STATUS=bootstrap in progress\n")
	up := state(fsm.Following, "PostgresObserved", "following")
	up.Postgres.State = events.PostgresState{Running: true}
	s.Stepped(up)
	m.wants("STATUS=following\n")
	up.Postgres.State.Ready = true
	s.Stepped(up)
	m.wants("READY=1\n")
	s.Stepped(up)
	m.wants("")
	s.Beat()
	m.wants("WATCHDOG=1\n")
	up.Shutdown = "SIGTERM"
	s.Stepped(up)
	m.wants("STOPPING=1\n")
	s.Beat()
	m.wants("WATCHDOG=1\n" + extend + "\n")
}

// TestWaitingIsReady: the first member of three has nobody to agree with yet, and the
// second is started only when the first is ready.
func TestWaitingIsReady(t *testing.T) {
	s, m := service(t)
	s.Stepped(state(fsm.Init, "DCSUnavailable", ""))
	m.wants("")
	s.Stepped(state(fsm.Init, events.KindTick, ""))
	m.wants("READY=1\n")
	if s.Every() != extendEvery {
		t.Errorf("a beat every %s", s.Every())
	}
	if every := NewService(&Notifier{}, nil).Every(); every != 0 {
		t.Errorf("a beat every %s for nobody", every)
	}
}
