package sandbox

import (
	"errors"

	"github.com/pgregent/regent/internal/freeport"
)

// Ports lie above the kernel's usual range for outgoing connections and are none that
// well-known servers use.
const (
	lowestPort  = 61000
	highestPort = 65499
)

// ports are the TCP ports of one sandbox.
type ports struct {
	held []freeport.Port
}

// take reserves one more port on which nothing listens.
func (p *ports) take() (int, error) {
	port, err := freeport.Take(lowestPort, highestPort)
	if err != nil {
		return 0, err
	}
	p.held = append(p.held, port)
	return port.Number, nil
}

func (p *ports) release() error {
	var errs []error
	for _, port := range p.held {
		errs = append(errs, port.Release())
	}
	p.held = nil
	return errors.Join(errs...)
}
