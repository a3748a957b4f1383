package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// ExitError ends the program with a code of the command's own choosing, as the agent
// does. A nil Err has been told already, or there is nothing to tell.
type ExitError struct {
	Code int
	Err  error
}

// Error is the text of what ended the program.
func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns Err.
func (e *ExitError) Unwrap() error { return e.Err }

// failure is an error in Patroni's words, which begin with a capital letter and may have
// several lines.
type failure string

func (f failure) Error() string { return string(f) }

func fail(format string, args ...any) error { return failure(fmt.Sprintf(format, args...)) }

// errAborted: the operator interrupted a prompt, or ended the input.
var errAborted = errors.New("aborted")

// usageError is a wrong call of a command.
type usageError struct {
	cmd  *cobra.Command
	text string
}

func (u *usageError) Error() string { return u.text }

func usage(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{cmd: cmd, text: fmt.Sprintf(format, args...)}
}

// Execute runs root with the arguments, tells errors on stderr, and returns the exit code.
func (a *App) Execute(ctx context.Context, root *cobra.Command, args []string) int {
	a.prepare(root)
	root.SetArgs(args)
	root.SetIn(a.env.In)
	root.SetOut(a.env.Out)
	root.SetErr(a.env.Err)
	_, err := root.ExecuteContextC(ctx)
	if isFlagError(err) {
		err = flagError(root, err) // before the command's name, cobra hands them on as they are
	}
	var wrong *usageError
	var exit *ExitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &wrong):
		a.errorf("Usage: %s\nTry '%s --help' for help.\n\nError: %s\n", wrong.cmd.UseLine(), wrong.cmd.CommandPath(), wrong.text)
		return exitUsage
	case errors.As(err, &exit):
		if exit.Err != nil {
			a.errorf("Error: %v\n", exit.Err)
		}
		return exit.Code
	case errors.Is(err, errAborted):
		a.errorf("Aborted!\n")
		return exitError
	default:
		a.errorf("Error: %v\n", err)
		return exitError
	}
}

func (a *App) errorf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.env.Err, format, args...)
}

// prepare makes a command and those below it complain the way of patronictl.
func (a *App) prepare(cmd *cobra.Command) {
	cmd.SilenceErrors, cmd.SilenceUsage, cmd.DisableFlagsInUseLine = true, true, true
	cmd.SetFlagErrorFunc(flagError)
	if judge := cmd.Args; judge != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := judge(cmd, args)
			var told *usageError
			if err == nil || errors.As(err, &told) {
				return err
			}
			return usage(cmd, "%v", err)
		}
	}
	for _, sub := range cmd.Commands() {
		a.prepare(sub)
	}
}

// flagError puts what pflag found wrong into click's words.
func flagError(cmd *cobra.Command, err error) error {
	var missing *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return err
	case errors.As(err, &missing):
		return usage(cmd, "Option '%s' requires an argument.", dashed(missing.GetSpecifiedName(), missing.GetSpecifiedShortnames()))
	case errors.As(err, &unknown):
		return usage(cmd, "No such option: %s", dashed(unknown.GetSpecifiedName(), unknown.GetSpecifiedShortnames()))
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		name := "'--" + f.Name + "'"
		if f.Shorthand != "" {
			name = "'-" + f.Shorthand + "' / " + name
		}
		return usage(cmd, "Invalid value for %s: %s", name, invalidValue(f, invalid))
	}
	return usage(cmd, "%v", err)
}

// isFlagError tells an error of pflag that nobody has put into words yet.
func isFlagError(err error) bool {
	var missing *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	return errors.As(err, &missing) || errors.As(err, &unknown) || errors.As(err, &invalid)
}

func invalidValue(f *pflag.Flag, err *pflag.InvalidValueError) string {
	var c choiceError
	if errors.As(err, &c) {
		return c.Error()
	}
	return fmt.Sprintf("'%s' is not a valid %s.", err.GetValue(), f.Value.Type())
}

// dashed is an option as it was written; group are the letters that it stood among.
func dashed(name, group string) string {
	if group != "" {
		return "-" + name
	}
	return "--" + name
}

// choice is a flag with a fixed set of values.
type choice struct {
	value *string
	words []string
	typ   string
}

type choiceError string

func (e choiceError) Error() string { return string(e) }

// String is the flag's present value.
func (c choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

// Set accepts one of the words.
func (c choice) Set(s string) error {
	for _, w := range c.words {
		if s == w {
			*c.value = s
			return nil
		}
	}
	quoted := make([]string, len(c.words))
	for i, w := range c.words {
		quoted[i] = "'" + w + "'"
	}
	return choiceError(fmt.Sprintf("'%s' is not one of %s.", s, strings.Join(quoted, ", ")))
}

// Type is the placeholder in the help.
func (c choice) Type() string { return c.typ }
