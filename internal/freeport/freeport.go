// Package freeport finds TCP ports for servers of tests and sandboxes, several programs of which
// may run at once. A port is reserved by a socket in Linux's abstract namespace, which goes away with
// the process that holds it, so that they don't meet even while none of their servers listens.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"

	"golang.org/x/sys/unix"
)

const tries = 2000

// Port is a reserved port of this host.
type Port struct {
	Number int
	fd     int
}

// Take reserves a port between two, on which nobody listens on 127.0.0.1. It is held until it is
// released, or for as long as the process lives.
func Take(low, high int) (Port, error) {
	for range tries {
		p := Port{Number: low + rand.IntN(high-low+1)}
		if !p.reserve() {
			continue // somebody else has it
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p.Number)); err == nil && l.Close() == nil {
			return p, nil
		}
		_ = p.Release() // nobody connects to it
	}
	return Port{}, fmt.Errorf("reserve a port: none of %d to %d is free in %d tries", low, high, tries)
}

// reserve binds the name. The bare descriptor, unlike a net.Listener, stays open when nobody
// remembers it.
func (p *Port) reserve() bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@regent-port/%d", p.Number)}); err != nil {
		_ = unix.Close(fd) // it was never used
		return false
	}
	p.fd = fd
	return true
}

// Release lets others take the port.
func (p Port) Release() error { return unix.Close(p.fd) }
