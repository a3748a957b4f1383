package keeper

import "sync"

// eventQueue hands events on without loss and without making the reader of the
// connection wait for whoever consumes them. Events are few (a handful per life of
// a postmaster), so it may grow.
type eventQueue struct {
	out       chan Event
	abandoned chan struct{}
	once      sync.Once
	wake      chan struct{}

	mu       sync.Mutex // guards pending and finished
	pending  []Event
	finished bool
}

func newEventQueue() *eventQueue {
	return &eventQueue{
		out:       make(chan Event),
		abandoned: make(chan struct{}),
		wake:      make(chan struct{}, 1),
	}
}

// push never blocks.
func (q *eventQueue) push(e Event) {
	q.mu.Lock()
	q.pending = append(q.pending, e)
	q.mu.Unlock()
	q.notify()
}

// finish says that no push follows; out is closed after the last pending event.
func (q *eventQueue) finish() {
	q.mu.Lock()
	q.finished = true
	q.mu.Unlock()
	q.notify()
}

// abandon makes run return although nobody reads.
func (q *eventQueue) abandon() { q.once.Do(func() { close(q.abandoned) }) }

func (q *eventQueue) notify() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run moves events to out until it is finished or abandoned.
func (q *eventQueue) run() {
	defer close(q.out)
	for {
		q.mu.Lock()
		batch, finished := q.pending, q.finished
		q.pending = nil
		q.mu.Unlock()
		for _, e := range batch {
			select {
			case q.out <- e:
			case <-q.abandoned:
				return
			}
		}
		if finished && len(batch) == 0 {
			return
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-q.wake:
		case <-q.abandoned:
			return
		}
	}
}
