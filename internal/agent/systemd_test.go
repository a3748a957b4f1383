package agent_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// notified collects what a service manager is told.
type notified struct {
	t    *testing.T
	conn *net.UnixConn
	told []string
}

func notify(t *testing.T, path string) *notified {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &notified{t: t, conn: c}
}

// await reads until a line has come that begins so, and forgets all before it.
func (n *notified) await(prefix string) string {
	n.t.Helper()
	deadline := time.Now().Add(patience)
	buf := make([]byte, 8192)
	for {
		for i, line := range n.told {
			if strings.HasPrefix(line, prefix) {
				n.told = n.told[i+1:]
				return line
			}
		}
		n.told = nil
		if err := n.conn.SetReadDeadline(deadline); err != nil {
			n.t.Fatal(err)
		}
		size, err := n.conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			n.t.Fatalf("the service manager was never told %q", prefix)
		}
		if err != nil {
			n.t.Fatal(err)
		}
		n.told = append(n.told, strings.Split(strings.TrimSpace(string(buf[:size])), "\n")...)
	}
}

// TestServiceManagerIsTold: ready only when PostgreSQL is up, alive for as long as the loop
// is, the same after an upgrade, and stopping.
func TestServiceManagerIsTold(t *testing.T) {
	needsPostgres(t)
	p := member(t, "pg01")
	manager := notify(t, filepath.Join(p.dir, "notify"))
	p.env = []string{"NOTIFY_SOCKET=" + filepath.Join(p.dir, "notify"), "WATCHDOG_USEC=600000"}
	p.start()
	manager.await("STATUS=bootstrap in progress")
	manager.await("EXTEND_TIMEOUT_USEC=")
	manager.await("READY=1")
	if got := p.sql("select pg_is_in_recovery()"); got != "f" {
		t.Errorf("ready, and PostgreSQL says %q", got)
	}
	for range 3 {
		manager.await("WATCHDOG=1")
	}
	if out, err := p.upgrade(); err != nil {
		t.Fatalf("regent upgrade: %v: %s", err, out)
	}
	manager.await("READY=1")
	manager.await("STATUS=no action. I am (pg01), the leader with the lock")
	manager.await("WATCHDOG=1")
	signal(t, p.cmd.Process.Pid, syscall.SIGTERM)
	manager.await("STOPPING=1")
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
