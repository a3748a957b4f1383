package main

import (
	"context"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/internal/ctl"
)

//go:generate go run . docs cli -o ../../docs/reference/cli.md
//go:generate go run . docs config -o ../../docs/reference/configuration.md
//go:generate go run . docs fsm -o ../../docs/fsm.md

// commands lists what regent can do beside the operator's commands of package ctl.
func commands() []*cobra.Command {
	return []*cobra.Command{agentCommand(), witnessCommand(), upgradeCommand(), demoCommand()}
}

// environment is the process as the commands see it.
func environment() ctl.Env {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // then there is no file in it either
	}
	return ctl.Env{
		Program:  "regent",
		Version:  version,
		In:       os.Stdin,
		Out:      os.Stdout,
		Err:      os.Stderr,
		Environ:  os.Environ(),
		Home:     home,
		Terminal: isTerminal(os.Stdout),
		Now:      time.Now,
		Open:     ctl.OpenStore,
		Dial:     ctl.NewCaller,
		Edit:     ctl.RunEditor(os.Stdin, os.Stdout, os.Stderr),
		Interrupts: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return signal.NotifyContext(ctx, os.Interrupt)
		},
		Log: ctl.NewLogger(os.Stderr, time.Now),
	}
}

// isTerminal: a character device is close enough; what is at stake is clearing a screen.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
