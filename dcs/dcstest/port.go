package dcstest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"

	"golang.org/x/sys/unix"
)

// Ports of test servers lie below the kernel's range for outgoing connections, so that none
// of those takes one between its choice and the server's start.
const (
	lowestPort  = 11000
	highestPort = 31999
	portTries   = 500
)

// FreePort returns a port of 127.0.0.1 on which nobody listens and which no other test program
// that asks here is given while this one runs.
func FreePort() (int, error) {
	for range portTries {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		if !reserve(port) {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("release port %d: %w", port, err)
		}
		return port, nil
	}
	return 0, errors.New("no free port was found")
}

// reserve takes a name in Linux's abstract namespace of sockets for as long as this process lives:
// the descriptor is never closed.
func reserve(port int) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@regent-test/%d", port)}); err != nil {
		_ = unix.Close(fd) // it was never used
		return false
	}
	return true
}
