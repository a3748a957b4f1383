package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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
	store   string
	server  string
	report  string
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
	kind := sandbox.StoreKind(f.store)
	if !slices.Contains(sandbox.StoreKinds(), kind) {
		return fmt.Errorf("--store %s: the stores are %v", f.store, sandbox.StoreKinds())
	}
	set := cmd.Flags().Changed
	if !set("ttl") && !set("loop-wait") && !set("retry-timeout") {
		f.ttl, f.loopWait, f.retryTimeout = kind.Timings()
	}
	if sandbox.Entered() {
		return nil
	}
	server, err := sandbox.FindStore(kind, f.server)
	if err != nil {
		return fmt.Errorf("%w with --server", err)
	}
	if server != "" {
		f.also = []string{server}
	}
	return nil
}

// startStore starts the store's server, if it has one, and returns the section that names it.
func (f *soakFlags) startStore(ctx context.Context, b *sandbox.Base) (section string, stop func() error, err error) {
	kind := sandbox.StoreKind(f.store)
	name := kind.Program()
	if name == "" {
		return "", func() error { return nil }, nil
	}
	if f.server != "" {
		name = filepath.Base(f.server)
	}
	store, err := sandbox.StartStore(ctx, kind, filepath.Join(b.Bin, name), filepath.Join(b.Dir, "store"))
	if err != nil {
		return "", nil, err
	}
	return store.Section(), store.Close, nil
}

func (f *soakFlags) soak(ctx context.Context, b *sandbox.Base) (err error) {
	section, stop, err := f.startStore(ctx, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	o := chaos.SoakOptions{
		Strikes: f.strikes, For: time.Duration(f.minutes * float64(time.Minute)), Seed: f.seed, Only: f.only,
		Cluster: options(b, "soak", f.timings, f.place), Out: os.Stdout,
	}
	o.Cluster.Sync, o.Cluster.Store, o.Store = f.sync, section, "embedded store"
	if section != "" {
		o.Store = "one server of " + sandbox.StoreKind(f.store).Program()
	}
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
