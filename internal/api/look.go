package api

import (
	"context"
	"sync"
	"time"

	"github.com/pgregent/regent/events"
)

const (
	// lookPatience is how long a request waits for PostgreSQL. Members that compare
	// positions give each other 300 ms (safety rule S16).
	lookPatience = 250 * time.Millisecond
	// lookLimit ends an observation that hangs, whoever waits for it.
	lookLimit = 5 * time.Second
)

// looks are the live observations of PostgreSQL. One is made at a time, however many
// ask, and each serves all who asked before it began: a position that was read before
// the question would be a cached vote (S16). Cancelling an observation would cost the
// heartbeat its connection, so those who can't wait leave, and it goes on.
type looks struct {
	observe func(context.Context) (events.PostgresState, error)
	now     func() events.Instant
	asked   chan struct{} // holds one token while somebody waits

	mu   sync.Mutex
	next *look // not begun; nil while nobody waits
}

type look struct {
	done  chan struct{}
	began events.Instant
	state events.PostgresState
	ok    bool
}

func newLooks(observe func(context.Context) (events.PostgresState, error), now func() events.Instant) *looks {
	return &looks{observe: observe, now: now, asked: make(chan struct{}, 1)}
}

// run makes the observations.
func (l *looks) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.asked:
		}
		l.mu.Lock()
		this := l.next
		l.next = nil
		l.mu.Unlock()
		if this == nil {
			continue
		}
		within, cancel := context.WithTimeout(ctx, lookLimit)
		this.began = l.now()
		st, err := l.observe(within)
		cancel()
		// Without its keeper's word, what the server itself answered still counts.
		this.state, this.ok = st, err == nil || st.Ready
		close(this.done)
	}
}

// fresh returns an observation that began after the call, or nil when there is none
// before ctx ends.
func (l *looks) fresh(ctx context.Context) *look {
	l.mu.Lock()
	if l.next == nil {
		l.next = &look{done: make(chan struct{})}
	}
	mine := l.next
	l.mu.Unlock()
	select {
	case l.asked <- struct{}{}:
	default:
	}
	select {
	case <-mine.done:
		if mine.ok {
			return mine
		}
	case <-ctx.Done():
	}
	return nil
}
