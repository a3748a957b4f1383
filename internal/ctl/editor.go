package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// RunEditor returns an Env.Edit that starts the first of the programs that is there, on
// the terminal of this process. A program may have arguments, as in "code --wait".
func RunEditor(in io.Reader, out, errs io.Writer) func(ctx context.Context, programs []string, file string) (int, error) {
	return func(ctx context.Context, programs []string, file string) (int, error) {
		var missing error
		for _, p := range programs {
			words := append(strings.Fields(p), file)
			path, err := exec.LookPath(words[0])
			if err != nil {
				missing = err
				continue
			}
			cmd := exec.CommandContext(ctx, path, words[1:]...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errs
			err = cmd.Run()
			var ended *exec.ExitError
			if errors.As(err, &ended) {
				return ended.ExitCode(), nil
			}
			if err != nil {
				return 0, fmt.Errorf("run %s: %w", words[0], err)
			}
			return 0, nil
		}
		return 0, missing
	}
}
