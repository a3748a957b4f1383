package hosts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func newNet(t *testing.T, names ...string) *Net {
	t.Helper()
	need(t)
	n, err := NewNet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range names {
		if _, err := n.Host(name); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// echo listens on a host and answers each line.
func echo(t *testing.T, h *Host) (addr string) {
	t.Helper()
	l, err := h.listen()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c) // until the test closes it
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return l.Addr().String()
}

// listen is for tests: what runs on a host in earnest is another program.
func (h *Host) listen() (l net.Listener, err error) {
	done := make(chan struct{})
	h.orders <- func() {
		defer close(done)
		l, err = net.Listen("tcp", h.Addr()+":0")
	}
	<-done
	return l, err
}

// ask sends a line over a connection, and returns how long the answer took.
func ask(c net.Conn, patience time.Duration) (time.Duration, error) {
	began := time.Now()
	if err := c.SetDeadline(began.Add(patience)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(c, make([]byte, len("ping\n")))
	return time.Since(began), err
}

func dial(t *testing.T, from *Host, to string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := from.DialContext(ctx, "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // it may be broken
	return c
}

func hostsOf(t *testing.T, n *Net, names ...string) (out []*Host) {
	t.Helper()
	for _, name := range names {
		h, err := n.Host(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h)
	}
	return out
}

// patience is longer than an answer takes, and than TCP takes to repeat what was lost.
const patience = 10 * time.Second

func heard(t *testing.T, what string, c net.Conn) {
	t.Helper()
	if _, err := ask(c, patience); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// unheard also means that nothing else came: no reset, no error of the network.
func unheard(t *testing.T, what string, c net.Conn) {
	t.Helper()
	if _, err := ask(c, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: %v, want no answer at all", what, err)
	}
}

func TestHostsReachEachOtherAndTheProgramReachesAll(t *testing.T) {
	n := newNet(t, "a", "b")
	h := hostsOf(t, n, "a", "b")
	addr := echo(t, h[1])
	heard(t, "a to b", dial(t, h[0], addr))
	direct, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	heard(t, "the program to b", direct)
	if err := direct.Close(); err != nil {
		t.Error(err)
	}
	// A process on the host sees the host's devices only, and has no rights.
	var out strings.Builder
	cmd := exec.Command("/bin/sh", "-c", "cat /proc/net/dev; grep -E 'CapEff|CapAmb' /proc/self/status")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h[0].Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, &out)
	}
	none := strings.Count(out.String(), "0000000000000000")
	if !strings.Contains(out.String(), "eth0") || strings.Contains(out.String(), "h1.") || none != 2 {
		t.Errorf("on the host:\n%s", &out)
	}
}

func TestACutIsSilentAndHeals(t *testing.T) {
	n := newNet(t, "a", "b", "c")
	h := hostsOf(t, n, "a", "b", "c")
	addr := echo(t, h[1])
	ab, cb := dial(t, h[0], addr), dial(t, h[2], addr)
	direct, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = direct.Close() }() // read only: nothing to lose
	heard(t, "before", ab)
	for _, flows := range [][]Flow{
		{{From: "a", To: "b"}, {From: "b", To: "a"}},
		{{From: "a", To: "b"}},
		{{From: "b", To: "a"}},
	} {
		l, err := n.Cut(flows...)
		if err != nil {
			t.Fatal(err)
		}
		unheard(t, fmt.Sprint("cut ", flows), ab)
		heard(t, "c to b", cb)
		heard(t, "the program to b", direct)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if c, err := h[0].DialContext(ctx, "tcp", addr); err == nil || ctx.Err() == nil {
			t.Errorf("cut %v: dialled: %v, %v", flows, c, err)
		}
		cancel()
		for range 2 {
			if err := l.Heal(); err != nil {
				t.Error(err)
			}
		}
		heard(t, fmt.Sprint("healed ", flows), ab)
		ab = dial(t, h[0], addr)
	}
}

func TestACutOfOnePortLeavesTheOthers(t *testing.T) {
	n := newNet(t, "a", "b")
	h := hostsOf(t, n, "a", "b")
	one, two := echo(t, h[1]), echo(t, h[1])
	first, second := dial(t, h[0], one), dial(t, h[0], two)
	port := first.RemoteAddr().(*net.TCPAddr).Port
	for _, f := range []Flow{{From: "a", To: "b", ToPort: port}, {From: "b", To: "a", FromPort: port}} {
		l, err := n.Cut(f)
		if err != nil {
			t.Fatal(err)
		}
		unheard(t, fmt.Sprint("cut ", f), first)
		heard(t, "the other port", second)
		if err := l.Heal(); err != nil {
			t.Error(err)
		}
		first = dial(t, h[0], one)
	}
}

func TestASlowLinkDelaysAndLoses(t *testing.T) {
	n := newNet(t, "a", "b")
	h := hostsOf(t, n, "a", "b")
	addr := echo(t, h[1])
	c := dial(t, h[0], addr)
	l, err := n.Slow(Quality{Delay: 100 * time.Millisecond, Jitter: 10 * time.Millisecond}, Flow{From: "a", To: "b"})
	if err != nil {
		t.Fatal(err)
	}
	took, err := ask(c, patience)
	if err != nil || took < 90*time.Millisecond {
		t.Errorf("one way delayed: %v, %v", took, err)
	}
	if err := l.Heal(); err != nil {
		t.Error(err)
	}
	heard(t, "healed", c)
	lossy, err := n.Slow(Quality{Delay: time.Millisecond, Loss: 0.2}, Flow{From: "a", To: "b"}, Flow{From: "b", To: "a"})
	if err != nil {
		t.Fatal(err)
	}
	// A megabyte there and back: packets are lost, and all bytes come.
	load := strings.Repeat("x", 1<<20)
	sent := make(chan error, 1)
	go func() { _, err := io.WriteString(c, load); sent <- err }()
	if err := c.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	got := make([]byte, len(load))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != load {
		t.Errorf("a megabyte over a lossy link: %v", err)
	}
	t.Logf("a megabyte with a loss of 20 %%: %v", time.Since(began).Round(time.Millisecond))
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if l, s := lossy.slow.lost.Load(), lossy.slow.sent.Load(); l == 0 || s == 0 {
		t.Errorf("%d packets were lost and %d sent", l, s)
	}
	if err := lossy.Heal(); err != nil {
		t.Error(err)
	}
	heard(t, "healed", c)
}
