package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// stage prints. Times are seconds since the demo began.
type stage struct {
	out   io.Writer
	began time.Time
	color bool
}

const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	plain = "\x1b[0m"
)

// paint gives text a colour where there are colours.
func (s *stage) paint(color, text string) string {
	if !s.color {
		return text
	}
	return color + text + plain
}

// print writes as it is; that nobody may be reading any more is no reason to stop.
func (s *stage) print(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format, args...) }

// act begins a part of the script.
func (s *stage) act(title string) {
	s.print("\n%s\n\n", s.paint(bold, "── "+title+" "+strings.Repeat("─", max(0, 76-len([]rune(title))))))
}

// step says what happens now.
func (s *stage) step(format string, args ...any) { s.stepAt(time.Now(), format, args...) }

// stepAt says what happened at a moment.
func (s *stage) stepAt(at time.Time, format string, args ...any) {
	s.print("%s  %s\n", s.paint(dim, fmt.Sprintf("%6.2f s", at.Sub(s.began).Seconds())), fmt.Sprintf(format, args...))
}

// note explains the step above it.
func (s *stage) note(format string, args ...any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		s.print("          %s\n", line)
	}
}

// block prints the output of a command as it is.
func (s *stage) block(text string) {
	s.print("\n")
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		s.print("  %s\n", line)
	}
	s.print("\n")
}

// duration is for people: milliseconds below ten seconds, tenths above.
func duration(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.3f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// rows is a counted noun.
func rows(n int) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}
