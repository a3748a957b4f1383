package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/chaos"
	"github.com/pgregent/regent/internal/sandbox"
)

type compareFlags struct {
	place
	storeChoice
	runs                  int
	patroni, only, report string
}

// compareFile is the table's name in the base.
const compareFile = "compare.md"

func compareCommand() *cobra.Command {
	var f compareFlags
	cmd := &cobra.Command{
		Use: "compare", Short: "Do the same to Patroni and to Regent, on the same store", Args: cobra.NoArgs,
		Long: "Do the same faults to three members of Patroni and to three of Regent, on one server of etcd or Consul and under the\n" +
			"same writer and judge, with the shortest timings that Patroni allows; and to Regent once more with the shortest\n" +
			"of its own. Prints a table: outage p50 (max), the most rows lost, the longest time with two primaries, and how\n" +
			"long until all streamed again.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if sandbox.Entered() {
				return inBase(f.place, nil, func(b *sandbox.Base) error { return f.compare(cmd.Context(), b) })
			}
			var err error
			if f.also, err = f.find(); err != nil {
				return err
			}
			if f.also == nil {
				return fmt.Errorf("--store %s: Patroni and Regent share %s and %s", f.store, sandbox.Etcd3Store, sandbox.ConsulStore)
			}
			var outputs map[string]func([]byte) error
			if f.report != "" {
				outputs = map[string]func([]byte) error{compareFile: func(text []byte) error { return os.WriteFile(f.report, text, 0o644) }}
			}
			return inBase(f.place, outputs, nil)
		},
	}
	cmd.Flags().StringVar(&f.programs, "programs", "", "folder of regent and regent-keeper (default: this program's)")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "leave the clusters' folders in place, whatever comes")
	cmd.Flags().IntVar(&f.runs, "runs", 3, "trials a fault")
	cmd.Flags().StringVar(&f.only, "only", "", "only the faults whose name contains this")
	cmd.Flags().StringVar(&f.store, "store", string(sandbox.Etcd3Store), "etcd3 or consul")
	cmd.Flags().StringVar(&f.server, "server", "", "the store server's `program` (default: etcd or consul in PATH)")
	cmd.Flags().StringVar(&f.patroni, "patroni", "patroni", "Patroni's `program`")
	cmd.Flags().StringVar(&f.report, "report", "", "write the table as Markdown to this file")
	return cmd
}

func (f *compareFlags) compare(ctx context.Context, b *sandbox.Base) (err error) {
	kind := sandbox.StoreKind(f.store)
	patroni, err := exec.LookPath(f.patroni)
	if err != nil {
		return fmt.Errorf("find Patroni: %w; install it (Debian: apt-get install patroni python3-etcd python3-consul)", err)
	}
	store, err := f.start(ctx, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	o := chaos.CompareOptions{
		Runs: f.runs, Only: f.only, Out: os.Stdout, Contestants: contestants(kind, programVersion(ctx, patroni)),
		Cluster: sandbox.Options{Dir: filepath.Join(b.Dir, "m"), Bin: b.Bin, PGBin: b.PGBin, Keep: f.keep, Patroni: patroni, Store: store.Section()},
	}
	if kind == sandbox.Etcd3Store {
		o.Requests = store.Requests
	}
	rows, traffic, err := chaos.Compare(ctx, o)
	var table bytes.Buffer
	machine := chaos.ThisMachine(programVersion(ctx, filepath.Join(b.PGBin, "postgres")), version)
	fmt.Fprintf(&table, "# Patroni and Regent beside each other, on %s\n\nWritten by `make compare STORE=%s`. The same is done to three members of each, by the same "+
		"judge, one after the other.\n\n", f.store, f.store)
	fmt.Fprintf(&table, "Measured on %s, %d cores, load average %s; %s; one server of %s; %d trials a fault. Each cell: outage p50 (max) · most rows\n"+
		"lost · longest time with two primaries · longest time until all streamed again.\n\n",
		machine.CPU, machine.Cores, machine.Load, machine.Postgres, kind.Program(), f.runs)
	chaos.ComparisonTable(&table, o.Contestants, rows, traffic)
	_, printed := fmt.Printf("\n%s", table.String())
	if f.report != "" {
		printed = errors.Join(printed, os.WriteFile(filepath.Join(b.Dir, compareFile), table.Bytes(), 0o644))
	}
	return errors.Join(err, printed)
}

// contestants have the shortest timings that Patroni allows; Regent also the shortest of its own.
func contestants(kind sandbox.StoreKind, patroni string) []chaos.Contestant {
	const loopWait, retryTimeout, ttl = time.Second, 3 * time.Second, 20 * time.Second
	out := []chaos.Contestant{
		{Name: "Regent, ttl 20", Program: sandbox.Regent, TTL: ttl, LoopWait: loopWait, RetryTimeout: retryTimeout},
		{Name: patroni + ", ttl 20", Program: sandbox.Patroni, TTL: ttl, LoopWait: loopWait, RetryTimeout: retryTimeout},
	}
	if least, wait, retry := kind.Timings(); least < ttl {
		name := fmt.Sprintf("Regent, ttl %g", least.Seconds())
		out = append(out, chaos.Contestant{Name: name, Program: sandbox.Regent, TTL: least, LoopWait: wait, RetryTimeout: retry})
	}
	return out
}
