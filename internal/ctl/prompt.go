package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// lines reads the operator's answers. It reads no byte beyond a line, because what
// follows may be for the next command of a script.
type lines struct {
	from io.Reader
}

// next returns one line without its end. It ends with errAborted when the input ends
// or ctx does: a prompt without an answer has no default.
func (l *lines) next(ctx context.Context) (string, error) {
	var line []byte
	one := make([]byte, 1)
	for {
		if err := l.wait(ctx); err != nil {
			return "", err
		}
		n, err := l.from.Read(one)
		switch {
		case n == 1 && one[0] == '\n':
			return strings.TrimSuffix(string(line), "\r"), nil
		case n == 1:
			line = append(line, one[0])
		case err != nil:
			// Half a line that nobody ended is no answer.
			return "", errAborted
		}
	}
}

// wait waits until a file has something to read. Go can't interrupt a read from a
// terminal, so it is not begun before there is something.
func (l *lines) wait(ctx context.Context) error {
	f, ok := l.from.(*os.File)
	for {
		if ctx.Err() != nil {
			return errAborted
		}
		if !ok {
			return nil
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, 100)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for input: %w", err)
		case ready > 0:
			return nil
		}
	}
}

// ask prompts for a line; an empty answer means the default.
func (a *App) ask(ctx context.Context, text, def string) (string, error) {
	a.printf("%s [%s]: ", text, def)
	answer, err := a.in.next(ctx)
	if err != nil {
		return "", err
	}
	if answer == "" {
		return def, nil
	}
	return answer, nil
}

// confirm asks a question until the answer is yes or no; empty means no.
func (a *App) confirm(ctx context.Context, question string) (bool, error) {
	for {
		a.printf("%s [y/N]: ", question)
		answer, err := a.in.next(ctx)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "y", "yes":
			return true, nil
		case "", "n", "no":
			return false, nil
		}
		a.println("Error: invalid input")
	}
}
