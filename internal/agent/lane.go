package agent

import (
	"context"
	"sync"

	"github.com/pgregent/regent/events"
)

// lane runs the PostgreSQL operations one after another. A cancelled operation is
// left to return before the next begins, so that two never touch the server at once.
type lane struct {
	mu      sync.Mutex
	queue   []operation
	wake    chan struct{}
	current events.ActionID
	yields  bool
	abort   context.CancelFunc
}

// operation is one turn on the server. One that yields is cancelled when another
// waits: it is to be tried again, and a stop must not stand behind it.
type operation struct {
	id     events.ActionID
	yields bool
	run    func(context.Context)
}

func newLane() *lane { return &lane{wake: make(chan struct{}, 1)} }

func (l *lane) enqueue(op operation) {
	l.mu.Lock()
	l.queue = append(l.queue, op)
	if l.yields && l.abort != nil && !op.yields {
		l.abort()
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// cancel ends the operation if it runs, and forgets it if it waits. The machine
// has dropped its outcome already.
func (l *lane) cancel(id events.ActionID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == id && l.abort != nil {
		l.abort()
		return
	}
	for i, op := range l.queue {
		if op.id == id {
			l.queue = append(l.queue[:i:i], l.queue[i+1:]...)
			return
		}
	}
}

func (l *lane) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		for l.next(ctx) {
		}
	}
}

// next runs the first operation that waits.
func (l *lane) next(ctx context.Context) bool {
	l.mu.Lock()
	if len(l.queue) == 0 || ctx.Err() != nil {
		l.mu.Unlock()
		return false
	}
	op := l.queue[0]
	l.queue = l.queue[1:]
	opCtx, abort := context.WithCancel(ctx)
	l.current, l.yields, l.abort = op.id, op.yields, abort
	l.mu.Unlock()
	op.run(opCtx)
	l.mu.Lock()
	l.current, l.yields, l.abort = events.ActionID{}, false, nil
	l.mu.Unlock()
	abort()
	return true
}
