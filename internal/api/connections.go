package api

import (
	"context"
	"net"
	"sync"
	"time"
)

// connections bounds how many clients there are. When all places are taken, clients
// that have been silent for silentFor make room, the longest silent first: whoever
// opens connections and says nothing can't keep out those who ask, and the other
// members' probes are among them (safety rule S16). A client that has only just
// connected is not touched, so a burst of honest ones waits its turn.
type connections struct {
	places chan struct{}

	mu       sync.Mutex // guards the rest
	open     map[*connection]struct{}
	stopping bool
}

// connection is one client.
type connection struct {
	conn  net.Conn
	since time.Time
	// asked: its request was read; it waits for us now.
	asked bool
	// evicted: it was closed to make room.
	evicted bool
	once    sync.Once
}

func newConnections(limit int) *connections {
	return &connections{places: make(chan struct{}, limit), open: map[*connection]struct{}{}}
}

// silentFor is how long a client may take to say what it wants while others wait.
const silentFor = 300 * time.Millisecond

// admit gives the client a place, waiting for one if it must. Nil: the server is
// stopping, and conn is closed.
func (cs *connections) admit(ctx context.Context, conn net.Conn) *connection {
	for !cs.take(ctx) {
		if ctx.Err() != nil {
			_ = conn.Close() // nothing was written to it
			return nil
		}
	}
	c := &connection{conn: conn, since: time.Now()}
	cs.mu.Lock()
	cs.open[c] = struct{}{}
	cs.mu.Unlock()
	return c
}

// take takes a place, or waits for one until making room again is of use.
func (cs *connections) take(ctx context.Context) bool {
	select {
	case cs.places <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(cs.evict())
	defer t.Stop()
	select {
	case cs.places <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// evict closes the client that has been silent for longest, if that is long enough;
// its goroutine notices. It returns when the next one will have been.
func (cs *connections) evict() (again time.Duration) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var oldest *connection
	for c := range cs.open {
		if !c.asked && !c.evicted && (oldest == nil || c.since.Before(oldest.since)) {
			oldest = c
		}
	}
	if oldest == nil {
		return silentFor
	}
	if left := silentFor - time.Since(oldest.since); left > 0 {
		return left
	}
	oldest.evicted = true
	oldest.close()
	return silentFor
}

// busy notes that the client's request was read. False: the server is stopping, and
// nothing new is begun.
func (cs *connections) busy(c *connection) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.asked = true
	return !cs.stopping
}

// leave ends the connection and frees its place.
func (cs *connections) leave(c *connection) {
	c.close()
	cs.mu.Lock()
	delete(cs.open, c)
	cs.mu.Unlock()
	<-cs.places
}

// closeIdle begins the end: clients that have not asked yet are let go.
func (cs *connections) closeIdle() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.stopping = true
	for c := range cs.open {
		if !c.asked {
			c.close()
		}
	}
}

// closeAll ends the rest.
func (cs *connections) closeAll() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		c.close()
	}
}

func (c *connection) close() {
	c.once.Do(func() { _ = c.conn.Close() }) // the answer is out; there is nothing to do about an error
}
