package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/internal/demo"
	"github.com/pgregent/regent/internal/sandbox"
)

func demoCommand() *cobra.Command {
	var (
		exit, keep        bool
		dir, dcs, program string
	)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Three nodes on this machine, broken and repaired before your eyes",
		Long: "Run a cluster of three nodes in one folder of this machine, insert rows all the time, kill the primary's node,\n" +
			"kill an agent, switch over, and show what happens and why. It takes less than 90 seconds, then the cluster stays\n" +
			"up until Ctrl-C. Nothing is left behind. Needs PostgreSQL 12 or newer; run by root it chooses another user.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find the running program: %w", err)
			}
			store := sandbox.StoreKind(dcs)
			var also []string
			if !slices.Contains(sandbox.StoreKinds(), store) {
				return fmt.Errorf("--dcs %s: the demo knows %s", dcs, joined(sandbox.StoreKinds()))
			}
			if !sandbox.Entered() { // inside, the program lies beside this one
				found, err := sandbox.FindStore(store, program)
				if err != nil {
					return fmt.Errorf("%w with --dcs-program", err)
				}
				if found != "" {
					also = []string{found}
				}
			}
			base, code, err := sandbox.Enter(sandbox.BaseOptions{
				Dir: dir, Programs: filepath.Dir(self), Also: also, Keep: keep, In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
			})
			if err != nil {
				return err
			}
			if base == nil {
				os.Exit(code) // the second run has said all there is to say
			}
			o := demo.Options{Exit: exit, Keep: keep, Out: os.Stdout, Color: colourful(os.Stdout), Store: store}
			if program != "" {
				o.StoreProgram = filepath.Base(program)
			}
			err = runDemo(cmd.Context(), base, o)
			return errors.Join(err, base.Leave())
		},
	}
	cmd.Flags().BoolVar(&exit, "exit", false, "end after the script")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the folder in place at the end, to be looked at")
	cmd.Flags().StringVar(&dcs, "dcs", string(sandbox.RaftStore), "the `store`: "+joined(sandbox.StoreKinds())+"; the latter two run a server of their own")
	cmd.Flags().StringVar(&program, "dcs-program", "", "the store server's `program` (default: etcd or consul in PATH)")
	cmd.Flags().StringVar(&dir, "dir", "", "the `folder` to make and work in (default: a new one in the temporary folder)")
	return cmd
}

// joined lists kinds of stores for people.
func joined(kinds []sandbox.StoreKind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

// runDemo plays the demo until it ends or a signal does. The signals are taken before anything
// is started, so that none of them ends the program with something running.
func runDemo(ctx context.Context, base *sandbox.Base, o demo.Options) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return demo.Run(ctx, base, o)
}

// colourful reports whether a file is a terminal whose owner didn't opt out of colours.
func colourful(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
