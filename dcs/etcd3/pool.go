package etcd3

import (
	"crypto/tls"
	"errors"
	"slices"
	"sync"

	"github.com/pgregent/regent/events"
)

// pool knows the servers, and which of them to ask first.
type pool struct {
	tls *tls.Config

	mu   sync.Mutex // guards the rest, and the endpoints' times
	ends []*endpoint
	best *endpoint
	done bool
}

// set makes the pool consist of these addresses, in their order. It keeps connections
// to those that stay.
func (p *pool) set(urls []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return nil
	}
	var next []*endpoint
	var errs []error
	for _, u := range urls {
		if slices.ContainsFunc(next, func(e *endpoint) bool { return e.url == u }) {
			continue
		}
		if i := slices.IndexFunc(p.ends, func(e *endpoint) bool { return e.url == u }); i >= 0 {
			next = append(next, p.ends[i])
			continue
		}
		e, err := newEndpoint(u, p.tls)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		next = append(next, e)
	}
	for _, old := range p.ends {
		if !slices.Contains(next, old) {
			errs = append(errs, old.conn.Close())
		}
	}
	p.ends = next
	if !slices.Contains(next, p.best) {
		p.best = nil
	}
	return errors.Join(errs...)
}

// order is in which order to ask: who answered last, then those without a failure since
// their last answer, then the one whose failure is longest ago.
func (p *pool) order() []*endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := slices.Clone(p.ends)
	trouble := func(e *endpoint) events.Instant {
		if e == p.best || e.badAt <= e.goodAt {
			return 0
		}
		return e.badAt
	}
	slices.SortStableFunc(out, func(a, b *endpoint) int {
		switch {
		case a == b:
			return 0
		case a == p.best:
			return -1
		case b == p.best:
			return 1
		}
		return int(min(1, max(-1, trouble(a)-trouble(b))))
	})
	return out
}

func (p *pool) answered(e *endpoint, now events.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.goodAt = now
	p.best = e
}

func (p *pool) failed(e *endpoint, now events.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.badAt = now
	if p.best == e {
		p.best = nil
	}
}

// steady is the server to which something may be sent that can't be repeated: the only
// one, or one that has answered since.
func (p *pool) steady(since events.Instant) *endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(p.ends) == 1:
		return p.ends[0]
	case p.best != nil && p.best.goodAt >= since:
		return p.best
	default:
		return nil
	}
}

func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	var errs []error
	for _, e := range p.ends {
		errs = append(errs, e.conn.Close())
	}
	return errors.Join(errs...)
}
