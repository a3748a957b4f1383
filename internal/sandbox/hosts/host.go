package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Host is a machine of a Net: a network namespace with an address. It is a sandbox.Machine. Its
// methods may be called from several goroutines.
type Host struct {
	name string
	net  *Net
	addr netip.Addr
	ns   int // the namespace's descriptor

	// orders are carried out by a thread that lives on the host and has no rights to give away.
	// It lives as long as the host does: what it starts may die with its parent thread.
	orders chan func()
	done   chan struct{}
}

// Name is the host's.
func (h *Host) Name() string { return h.name }

// Addr is the host's address.
func (h *Host) Addr() string { return h.addr.String() }

// Clients is the network that all hosts and this program are in.
func (h *Host) Clients() string { return h.net.clients() }

// open makes the namespace and the thread on it.
func (h *Host) open() error {
	h.orders, h.done = make(chan func()), make(chan struct{})
	ready := make(chan error)
	go func() {
		defer close(h.done)
		onThread(func() {
			if err := h.arrive(); err != nil {
				ready <- err
				return
			}
			close(ready)
			for order := range h.orders {
				order()
			}
		})
	}()
	return <-ready
}

// onThread is the last thing that a goroutine does: it runs f on a thread that ends with it. The
// process's first thread never ends, and would stay wherever f has put it; it is held until another
// thread has done it.
func onThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() { defer close(done); onThread(f) }()
	<-done
	runtime.UnlockOSThread()
}

// arrive puts the calling thread onto the new host.
func (h *Host) arrive() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	// What this thread starts inherits no rights.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("give up rights: %w", err)
	}
	var err error
	if h.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open the network namespace: %w", err)
	}
	return nil
}

// Start starts a command on the host, with the rights of an ordinary user.
func (h *Host) Start(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	select {
	case h.orders <- func() { started <- cmd.Start() }:
		return <-started
	case <-h.done:
		return fmt.Errorf("start %s on %s: %w", cmd.Path, h.name, net.ErrClosed)
	}
}

// DialContext connects from the host: for writers that run on it. addr must be an address, not a
// name. pgx takes it as its DialFunc, net/http as DialContext.
func (h *Host) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("dial from %s: %w", h.name, err)
	}
	var conn net.Conn
	var err error
	// A thread of its own, as long as the call takes; a socket belongs to where it was made.
	done := make(chan struct{})
	go func() {
		defer close(done)
		onThread(func() {
			if err = unix.Setns(h.ns, unix.CLONE_NEWNET); err == nil {
				var d net.Dialer
				conn, err = d.DialContext(ctx, network, addr)
			}
		})
	}()
	<-done
	if err != nil {
		return nil, fmt.Errorf("dial from %s: %w", h.name, err)
	}
	return conn, nil
}

// close ends the host's thread, and the namespace when nothing runs there.
func (h *Host) close() error {
	close(h.orders)
	<-h.done
	return errors.Join(unix.Close(h.ns))
}
