package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/chaos"
	"github.com/pgregent/regent/chaos/live"
	"github.com/pgregent/regent/internal/sandbox"
)

type stormFlags struct {
	liveFlags
	store       string
	sync        bool
	seed        uint64
	gust, gusts uint64
	minutes     float64
}

func stormCommand() *cobra.Command {
	var f stormFlags
	cmd := &cobra.Command{
		Use: "storm", Short: "Random faults that overlap, on one store, under the judge of the failure table", Args: cobra.NoArgs,
		Long: "Play random scripts (gusts) of up to three faults that overlap, in the words of docs/operations/scenarios.md, on one\n" +
			"cluster, until a promise is broken or the time is over. A seed gives the same gusts; what the cluster makes of them\n" +
			"isn't repeatable. The script of a gust that broke a promise is printed, and kept with the cluster's folder.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.seed == 0 {
				f.seed = rand.Uint64()
			}
			if f.minutes == 0 && f.gusts == 0 {
				f.minutes = 10
			}
			f.stores = []string{f.store}
			return f.enterWith(cmd.Context(), f.storm)
		},
	}
	liveFlagsOf(cmd, &f.liveFlags)
	cmd.Flags().StringVar(&f.store, "store", string(sandbox.RaftStore), "raft, etcd3 or consul")
	cmd.Flags().BoolVar(&f.sync, "sync", false, "in synchronous mode: no acknowledged row may be lost, whatever comes")
	cmd.Flags().Uint64Var(&f.seed, "seed", 0, "which gusts (default: random, and printed)")
	cmd.Flags().Uint64Var(&f.gust, "gust", 1, "the first gust's number")
	cmd.Flags().Uint64Var(&f.gusts, "gusts", 0, "end after so many gusts")
	cmd.Flags().Float64Var(&f.minutes, "minutes", 0, "end after so long (default, without --gusts: 10)")
	return cmd
}

func (f *stormFlags) storm(ctx context.Context, b *sandbox.Base, kinds []sandbox.StoreKind, named map[string]string) error {
	o := live.StormOptions{
		Options: f.options(b, kinds, named), Store: kinds[0], Sync: f.sync, Seed: f.seed, Gust: f.gust, Gusts: f.gusts,
		For: time.Duration(f.minutes * float64(time.Minute)),
	}
	_, _ = fmt.Printf("Storm on %s, seed %d\n", f.store, f.seed)
	result, err := live.Storm(ctx, o)
	result.Text(os.Stdout)
	var figures bytes.Buffer
	enc := json.NewEncoder(&figures)
	enc.SetIndent("", "  ")
	err = errors.Join(err, enc.Encode(result), os.WriteFile(filepath.Join(b.Dir, liveJSON), figures.Bytes(), 0o644))
	if result.Script != "" && err == nil {
		err = fmt.Errorf("%w: see the broken gust above; again: regent-chaos storm --store %s --seed %d --gust %d --gusts 1", chaos.ErrViolation,
			f.store, f.seed, max(f.gust, 1)+uint64(len(result.Results))-1)
	}
	return err
}
