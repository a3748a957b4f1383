package main

import (
	"net"
	"sync"
	"time"

	"github.com/pgregent/regent/pgmgr/keeper"
)

// maxQueued bounds what waits to be written to a peer that doesn't read. It is far
// more than an agent that is only slow leaves unread; one that hangs for good is
// disconnected, and is told the present state when it connects again.
const maxQueued = 4096

// flushTimeout bounds how long a connection that is being closed may take its last
// lines.
const flushTimeout = time.Second

// conn is one connection: a queue in front of a socket, so that nobody waits for
// a peer.
type conn struct {
	nc   *net.UnixConn
	wake chan struct{}

	mu       sync.Mutex // guards what follows
	queue    [][]byte
	finished bool // close when the queue is written
}

func newConn(nc *net.UnixConn) *conn {
	return &conn{nc: nc, wake: make(chan struct{}, 1)}
}

// push queues a message. It never blocks.
func (c *conn) push(m keeper.Message) {
	line, err := keeper.Line(m)
	if err != nil {
		line = nil // no message can fail to encode; a lost one ends the connection
	}
	c.mu.Lock()
	if line == nil || len(c.queue) >= maxQueued {
		c.queue, c.finished = nil, true
	} else if !c.finished {
		c.queue = append(c.queue, line)
	}
	c.mu.Unlock()
	c.notify()
}

// finish closes the connection after what is queued.
func (c *conn) finish() {
	c.mu.Lock()
	c.finished = true
	c.mu.Unlock()
	_ = c.nc.SetWriteDeadline(time.Now().Add(flushTimeout)) // fails only when closed already
	c.notify()
}

func (c *conn) notify() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write owns the writing side, and closes the connection at its end, which ends
// the reader too.
func (c *conn) write() {
	defer func() { _ = c.nc.Close() }() // whatever was to be said has been said
	for range c.wake {
		c.mu.Lock()
		batch, finished := c.queue, c.finished
		c.queue = nil
		c.mu.Unlock()
		for _, line := range batch {
			if _, err := c.nc.Write(line); err != nil {
				return
			}
		}
		if finished {
			return
		}
	}
}
