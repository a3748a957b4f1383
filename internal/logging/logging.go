// Package logging gives the agent's log its form: Patroni's line, which monitoring
// greps, with the structured fields behind the message; or one JSON object a line.
package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
)

// New returns a logger that writes to w. Level is one of Python's level names; an
// unknown one counts as INFO.
func New(w io.Writer, level string, asJSON bool) *slog.Logger {
	min := slog.LevelInfo
	switch strings.ToUpper(level) {
	case "DEBUG":
		min = slog.LevelDebug
	case "WARN", "WARNING":
		min = slog.LevelWarn
	case "ERROR", "FATAL", "CRITICAL":
		min = slog.LevelError
	}
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: min}))
	}
	return slog.New(&handler{out: &output{w: w}, min: min})
}

// output serialises lines.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

type handler struct {
	out    *output
	min    slog.Level
	fields string // of With, formatted
	group  string // prefix of the fields' keys
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.min }

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	var b strings.Builder
	for _, a := range attrs {
		next.field(&b, a)
	}
	next.fields += b.String()
	return &next
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	next := *h
	next.group += name + "."
	return &next
}

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	t := r.Time
	if t.IsZero() {
		t = time.Now()
	}
	fmt.Fprintf(&b, "%s,%03d %s: %s", t.Format("2006-01-02 15:04:05"), t.Nanosecond()/1e6, levelName(r.Level), r.Message)
	b.WriteString(h.fields)
	r.Attrs(func(a slog.Attr) bool {
		h.field(&b, a)
		return true
	})
	b.WriteByte('\n')
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	if _, err := io.WriteString(h.out.w, b.String()); err != nil {
		return fmt.Errorf("write log line: %w", err)
	}
	return nil
}

func (h *handler) field(b *strings.Builder, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		inner := *h
		inner.group += a.Key + "."
		for _, x := range v.Group() {
			inner.field(b, x)
		}
		return
	}
	text := v.String()
	if a.Equal(slog.Attr{}) {
		return
	}
	if text == "" || strings.ContainsAny(text, " \t\n\"=") {
		text = strconv.Quote(text)
	}
	fmt.Fprintf(b, " %s%s=%s", h.group, a.Key, text)
}

func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "ERROR"
	case l >= slog.LevelWarn:
		return "WARNING"
	case l >= slog.LevelInfo:
		return "INFO"
	default:
		return "DEBUG"
	}
}
