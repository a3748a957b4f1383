package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
)

// asyncWriter keeps the log's disk away from everything that fences: lines are
// handed to a goroutine, and dropped and counted when it can't keep up.
type asyncWriter struct {
	to      io.Writer
	lines   chan []byte
	dropped atomic.Int64
	ended   chan struct{}
}

func newAsyncWriter(to io.Writer) *asyncWriter {
	return &asyncWriter{to: to, lines: make(chan []byte, 256), ended: make(chan struct{})}
}

// Write never blocks and never fails.
func (w *asyncWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- append([]byte(nil), line...):
	default:
		w.dropped.Add(1)
	}
	return len(line), nil
}

// run writes until close.
func (w *asyncWriter) run() {
	defer close(w.ended)
	for line := range w.lines {
		if n := w.dropped.Swap(0); n > 0 {
			_, _ = fmt.Fprintf(w.to, "level=WARN msg=\"log lines dropped\" count=%d\n", n)
		}
		// There is nobody to tell that the log can't be written, and nothing
		// depends on it.
		_, _ = w.to.Write(line)
	}
}

// close waits until everything is written. No Write may follow.
func (w *asyncWriter) close() {
	close(w.lines)
	<-w.ended
}

// openLog returns where the keeper logs to.
func openLog(path string) (*os.File, error) {
	if path == "" {
		return os.Stderr, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

func newLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, nil)).With("pid_keeper", os.Getpid())
}
