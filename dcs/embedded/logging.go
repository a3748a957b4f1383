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
	// Both ends see the end of every connection; it says nothing by itself.
	ending := msg == "failed to accept connection" || msg == "failed to decode incoming command" ||
		msg == "failed to flush response"
	if level >= hclog.Error && !ending {
		s.log.warn("raft: "+msg, "", args...)
		return
	}
	if s.log.logger.Enabled(context.Background(), slog.LevelDebug) {
		s.log.logger.Debug("raft: "+msg, args...)
	}
}

// throttle logs the same message about the same thing at most every so often.
type throttle struct {
	logger *slog.Logger
	now    func() events.Instant
	mu     sync.Mutex // guards last
	last   map[string]events.Instant
}

const throttleEvery = 10 * time.Second

func newThrottle(logger *slog.Logger, now func() events.Instant) *throttle {
	return &throttle{logger: logger, now: now, last: map[string]events.Instant{}}
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
	if last, ok := t.last[key]; ok && now.Sub(last) < throttleEvery {
		return false
	}
	if len(t.last) > 1000 { // messages are few; this is against the unforeseen
		clear(t.last)
	}
	t.last[key] = now
	return true
}
