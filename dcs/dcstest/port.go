package dcstest

import "github.com/pgregent/regent/internal/freeport"

// FreePort returns a port of 127.0.0.1 for a test's server, reserved for as long as this program
// runs. It lies below the kernel's range for outgoing connections, so that none of those takes it
// before the server has started.
func FreePort() (int, error) {
	p, err := freeport.Take(11000, 31999)
	return p.Number, err
}
