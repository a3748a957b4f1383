package embedded

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/pgregent/regent/events"
)

// raftLogger sends raft's own log to ours. Raft speaks to its developers: what it
// calls an error is a peer that can't be reached, many times a second, and is a
// throttled warning here; all else is debug. What operators need to know about raft,
// this package says itself.
func raftLogger(log *throttle) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Trace, Output: io.Discard})
	l.RegisterSink(sink{log})
	return l
}

type sink struct{ log *throttle }

// Accept implements hclog.SinkAdapter.
func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	// Both ends see the end of every connection; it says nothing by itself. An entry that
	// is missing is in a snapshot, which is sent instead.
	ending := msg == "failed to get log" || msg == "failed to accept connection" || msg == "failed to decode incoming command" ||
		msg == "failed to flush response"
	if level >= hclog.Error && !ending {
		s.log.warn("raft: "+msg, "", args...)
		return
	}
	if s.log.logger.Enabled(context.Background(), slog.LevelDebug) {
		s.log.logger.Debug("raft: "+msg, args...)
	}
}

// throttle logs the same message about the same thing less and less often while it goes
// on, and at once again after it had stopped.
type throttle struct {
	logger *slog.Logger
	now    func() events.Instant
	mu     sync.Mutex // guards told
	told   map[string]telling
}

// telling is what became of one message.
type telling struct {
	logged events.Instant
	asked  events.Instant // when it last came, logged or not
	gap    time.Duration  // until it may be logged again
}

const (
	throttleFirst = 10 * time.Second
	throttleMax   = time.Hour
	throttleQuiet = time.Minute // without it, and it is news again
)

func newThrottle(logger *slog.Logger, now func() events.Instant) *throttle {
	return &throttle{logger: logger, now: now, told: map[string]telling{}}
}

func (t *throttle) warn(msg, about string, args ...any) {
	if t.due(msg, about) {
		t.logger.Warn(msg, args...)
	}
}

func (t *throttle) info(msg, about string, args ...any) {
	if t.due(msg, about) {
		t.logger.Info(msg, args...)
	}
}

func (t *throttle) due(msg, about string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, key := t.now(), msg+"\x00"+about
	last, ok := t.told[key]
	if !ok || now.Sub(last.asked) > throttleQuiet {
		last.gap = 0
	}
	last.asked = now
	due := last.gap == 0 || now.Sub(last.logged) >= last.gap
	if due {
		last.logged, last.gap = now, min(max(throttleFirst, 6*last.gap), throttleMax)
	}
	if len(t.told) > 1000 { // messages are few; this is against the unforeseen
		clear(t.told)
	}
	t.told[key] = last
	return due
}
