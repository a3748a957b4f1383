package ctl

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

// NewLogger returns a logger for Env.Log: warnings and errors only, each a line in
// patronictl's form, `TIME - LEVEL - MESSAGE`, in the zone that now gives.
func NewLogger(w io.Writer, now func() time.Time) *slog.Logger {
	return slog.New(logHandler{w: w, now: now})
}

type logHandler struct {
	w      io.Writer
	now    func() time.Time
	fields string
}

// Enabled implements slog.Handler.
func (h logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements slog.Handler.
func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	level := "WARNING"
	if r.Level >= slog.LevelError {
		level = "ERROR"
	}
	fields := h.fields
	r.Attrs(func(a slog.Attr) bool {
		fields += " " + a.String()
		return true
	})
	t := h.now()
	_, err := fmt.Fprintf(h.w, "%s,%03d - %s - %s%s\n", t.Format(time.DateTime), t.Nanosecond()/1e6, level, printable(r.Message), strings.ReplaceAll(fields, "\n", " "))
	if err != nil {
		return fmt.Errorf("write log line: %w", err)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		h.fields += " " + a.String()
	}
	return h
}

// WithGroup implements slog.Handler. Groups would only lengthen an operator's line.
func (h logHandler) WithGroup(string) slog.Handler { return h }
