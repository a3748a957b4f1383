package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/chaos"
	"github.com/pgregent/regent/internal/sandbox"
)

type soakFlags struct {
	timings
	place
	strikes int
	minutes float64
	seed    uint64
	only    []string
	sync    bool
	storeChoice
	report string
}

func soakCommand() *cobra.Command {
	var f soakFlags
	cmd := &cobra.Command{
		Use: "soak", Short: "Random faults in a loop, under a writer and a judge", Args: cobra.NoArgs,
		Long: "Kill and freeze agents, keepers, postmasters and whole nodes of a three-node cluster at random, stop, restart,\n" +
			"switch over and reconfigure it, under a writer and a watcher of every member's role. After each strike the\n" +
			"cluster must be whole again within 30 seconds (at a ttl of 2 s), with never two primaries (except for 50 ms\n" +
			"after the thaw of a whole node), and with no acknowledged row lost except where a primary was cut off at once.\n" +
			"What agents and keepers use is measured against a budget. The first violation ends the soak and keeps the\n" +
			"cluster's folder. At the end every journal is replayed. An interrupt ends it with a report too.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.findStore(cmd); err != nil {
				return err
			}
			var outputs map[string]func([]byte) error
			if f.report != "" {
				if err := placeForFigures(f.report); err != nil && !sandbox.Entered() {
					return err
				}
				outputs = map[string]func([]byte) error{soakFile: func(figures []byte) error { return putFigures(f.report, figures) }}
			}
			return inBase(f.place, outputs, func(b *sandbox.Base) error { return f.soak(cmd.Context(), b) })
		},
	}
	flags(cmd, &f.timings, &f.place)
	cmd.Flags().IntVar(&f.strikes, "strikes", 0, "end after so many strikes")
	cmd.Flags().Float64Var(&f.minutes, "minutes", 0, "end after so long (default, without --strikes: 10)")
	cmd.Flags().Uint64Var(&f.seed, "seed", 0, "which strikes (default: random, and printed)")
	cmd.Flags().StringSliceVar(&f.only, "only", nil, "strike only in these ways, by parts of their names")
	cmd.Flags().BoolVar(&f.sync, "sync", false, "in synchronous mode: no acknowledged row may be lost, whatever is struck")
	cmd.Flags().StringVar(&f.store, "store", string(sandbox.RaftStore), "raft, or etcd3 or consul on a server of its own (ttl 3 s and 20 s by default then)")
	cmd.Flags().StringVar(&f.server, "server", "", "the store server's `program` (default: etcd or consul in PATH)")
	cmd.Flags().StringVar(&f.report, "report", "", "put the figures into this Markdown file, between its marks")
	return cmd
}

// soakFile is the figures' name in the base.
const soakFile = "soak.md"

// findStore looks for the store's server, and takes the shortest timings that the store allows
// unless others are asked for.
func (f *soakFlags) findStore(cmd *cobra.Command) error {
	kind, err := f.kind()
	if err != nil {
		return err
	}
	set := cmd.Flags().Changed
	if !set("ttl") && !set("loop-wait") && !set("retry-timeout") {
		f.ttl, f.loopWait, f.retryTimeout = kind.Timings()
	}
	if !sandbox.Entered() {
		f.also, err = f.find()
	}
	return err
}

func (f *soakFlags) soak(ctx context.Context, b *sandbox.Base) (err error) {
	section, store := "", "embedded store"
	server, err := f.start(ctx, b)
	if err != nil {
		return err
	}
	if server != nil {
		defer func() { err = errors.Join(err, server.Close()) }()
		section, store = server.Section(), "one server of "+sandbox.StoreKind(f.store).Program()
	}
	o := chaos.SoakOptions{
		Strikes: f.strikes, For: time.Duration(f.minutes * float64(time.Minute)), Seed: f.seed, Only: f.only,
		Cluster: options(b, "soak", f.timings, f.place), Out: os.Stdout,
	}
	o.Cluster.Sync, o.Cluster.Store, o.Store = f.sync, section, store
	if o.Strikes == 0 && o.For == 0 {
		o.For = 10 * time.Minute
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	machine := chaos.ThisMachine(programVersion(ctx, filepath.Join(b.PGBin, "postgres")), version)
	result, err := chaos.Soak(ctx, o)
	if f.report == "" || errors.Is(err, chaos.ErrInterrupted) {
		return err
	}
	var figures bytes.Buffer
	result.Markdown(&figures, machine)
	return errors.Join(err, os.WriteFile(filepath.Join(b.Dir, soakFile), figures.Bytes(), 0o644))
}
