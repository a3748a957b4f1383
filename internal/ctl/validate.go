package ctl

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/stores"
)

// Support is what this build has, for judging configurations.
func Support() config.Support { return config.Support{Stores: stores.Names()} }

func (a *App) configGroup() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "config COMMAND",
		Short: "Check a configuration file",
	})
	validate := &cobra.Command{
		Use:   "validate [OPTIONS] FILE",
		Short: "Print everything that is wrong with an agent's configuration",
		Long: "Print every problem of a configuration file (or folder of files) at once, each with its place and what to do.\n" +
			"Exits with 1 if there is an error, with which the agent would not start, or a warning, with which it would run\n" +
			"otherwise than the file asks for. Notices name what is ignored. PATRONI_* variables count, as for the agent.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(cmd, "Missing argument 'FILE'.")
			}
			return atMostOne(cmd, args)
		},
		RunE: a.run(func(_ context.Context, args []string) error { return a.validate(args[0]) }),
	}
	cmd.AddCommand(validate)
	return cmd
}

func (a *App) validate(path string) error {
	c, err := config.Load(path, a.env.Environ)
	var problems config.Problems
	switch {
	case errors.As(err, &problems):
	case err != nil:
		return err
	default:
		problems = config.Validate(c, Support())
	}
	counts := map[config.Severity]int{}
	for _, p := range problems {
		counts[p.Severity]++
		a.println(p.Severity.String() + ": " + p.String())
	}
	if n, m := counts[config.Error], counts[config.Warning]; n+m > 0 {
		return fail("%s has %d error%s and %d warning%s", path, n, plural(n), m, plural(m))
	}
	a.println(path + " is valid.")
	return nil
}
