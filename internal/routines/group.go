// Package routines counts the goroutines of something that can be closed.
package routines

import "sync"

// Group is a sync.WaitGroup that can be closed to new goroutines before it is waited for,
// which a WaitGroup alone leaves to its users: adding to it beside Wait is a race. The zero
// value is ready.
type Group struct {
	mu     sync.Mutex // guards closed, and orders Start before Wait
	closed bool
	wg     sync.WaitGroup
}

// Start runs f in a goroutine, and reports whether it does: not after Close.
func (g *Group) Start(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.wg.Go(f)
	}
	return !g.closed
}

// Close lets nobody start any more, and doesn't wait.
func (g *Group) Close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

// Wait waits for all that were started. Call it after Close.
func (g *Group) Wait() { g.wg.Wait() }
