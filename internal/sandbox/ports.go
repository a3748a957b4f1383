package sandbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports lie above the kernel's usual range for outgoing connections and are none that
// well-known servers use.
const (
	lowestPort  = 61000
	highestPort = 65499
	portTries   = 2000
)

// ports are the TCP ports of one sandbox. Each is reserved by a socket in Linux's abstract
// namespace, which goes away with the process that holds it, so that sandboxes of several
// programs don't meet even while none of their servers listens.
type ports struct {
	held []net.Listener
}

// take reserves one more port on which nothing listens.
func (p *ports) take() (int, error) {
	for range portTries {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		reserve, err := net.Listen("unix", fmt.Sprintf("@regent-sandbox/%d", port))
		if err != nil {
			continue // another sandbox has it
		}
		if !free(port) {
			_ = reserve.Close() // nobody connects to it
			continue
		}
		p.held = append(p.held, reserve)
		return port, nil
	}
	return 0, fmt.Errorf("reserve a port: none of %d to %d is free in %d tries", lowestPort, highestPort, portTries)
}

func free(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	return err == nil && l.Close() == nil
}

func (p *ports) release() error {
	var errs []error
	for _, l := range p.held {
		errs = append(errs, l.Close())
	}
	p.held = nil
	return errors.Join(errs...)
}
