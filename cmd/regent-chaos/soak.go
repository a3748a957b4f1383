package main

import (
	"math/rand/v2"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/chaos"
	"github.com/pgregent/regent/internal/sandbox"
)

func soakCommand() *cobra.Command {
	var (
		t       timings
		kills   int
		minutes float64
		seed    uint64
		where   place
	)
	cmd := &cobra.Command{
		Use: "soak", Short: "Random kills in a loop, under a writer and a judge", Args: cobra.NoArgs,
		Long: "Kill agents, keepers, postmasters, whole nodes and the raft leader of a three-node cluster at random, under a\n" +
			"writer and a watcher of every member's role. After each strike the cluster must be whole again within a minute,\n" +
			"with never two primaries, and with no acknowledged row lost except where a primary's whole node was killed.\n" +
			"The first violation ends the soak and keeps the cluster's folder. At the end every journal is replayed.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return inBase(where, nil, func(b *sandbox.Base) error {
				o := chaos.SoakOptions{
					Kills: kills, For: time.Duration(minutes * float64(time.Minute)), Seed: seed,
					Cluster: options(b, "soak", t, where), Out: os.Stdout,
				}
				if o.For > 0 && !cmd.Flags().Changed("kills") {
					o.Kills = 0
				}
				if o.Seed == 0 {
					o.Seed = rand.Uint64()
				}
				return chaos.Soak(cmd.Context(), o)
			})
		},
	}
	flags(cmd, &t, &where)
	cmd.Flags().IntVar(&kills, "kills", 50, "how many strikes")
	cmd.Flags().Float64Var(&minutes, "minutes", 0, "strike for so long instead")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "which strikes (default: random, and printed)")
	return cmd
}
