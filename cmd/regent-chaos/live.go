package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/chaos"
	"github.com/pgregent/regent/chaos/live"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/hosts"
)

type liveFlags struct {
	place
	stores, servers []string
	row, fencing    string
	ci, slow        bool
	patroni         string
	rotation        int
	budget          time.Duration
	report, json    string
	again           string
}

// The reports' names in the base.
const (
	liveTable = "failure-table.md"
	liveJSON  = "failure-table.json"
)

func liveCommand() *cobra.Command {
	var f liveFlags
	cmd := &cobra.Command{
		Use: "live", Short: "Replay the failure table on all stores", Args: cobra.NoArgs,
		Long: "Replay every row of the failure table on real clusters, on every store, and print what came of it. Rows are scripts\n" +
			"(docs/operations/scenarios.md). A row that couldn't be run counts as broken: nothing is left out without a word.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.report != "" && (f.ci || len(f.stores) > 0 || f.row != "") {
				if !sandbox.Entered() {
					_, _ = fmt.Fprintln(os.Stderr, "The report is about all rows on all stores: it isn't written.")
				}
				f.report = ""
			}
			if f.patroni != "" {
				if _, err := exec.LookPath(f.patroni); err != nil {
					return fmt.Errorf("find Patroni: %w", err)
				}
				f.stores = []string{string(sandbox.Etcd3Store)}
			}
			return f.enter(cmd.Context())
		},
	}
	liveFlagsOf(cmd, &f)
	cmd.Flags().StringSliceVar(&f.stores, "store", nil, "only on these: raft, etcd3, consul")
	cmd.Flags().BoolVar(&f.ci, "ci", false, "each row on one store, in a rotation that touches all stores")
	cmd.Flags().StringVar(&f.row, "row", "", "only this row, by its number or its script's name")
	cmd.Flags().BoolVar(&f.slow, "slow", false, "with ttl 30, loop_wait 10 and retry_timeout 10 on every store")
	cmd.Flags().StringVar(&f.again, "again", "", "only the rows that failed in the run whose --json wrote this `file`; the others are taken over")
	cmd.Flags().StringVar(&f.patroni, "beside", "", "on etcd, by Regent and by Patroni, which is this `program`, with Patroni's shortest timings")
	cmd.Flags().IntVar(&f.rotation, "rotation", int(time.Now().Unix()/86400), "which rotation (default: the day's)")
	cmd.Flags().DurationVar(&f.budget, "budget", 0, "rows for which this leaves no time fail")
	cmd.Flags().StringVar(&f.report, "report", "", "write the table as Markdown to this file, unless a part of the rows was chosen")
	return cmd
}

func rowCommand() *cobra.Command {
	var f liveFlags
	var store string
	cmd := &cobra.Command{
		Use: "row ROW", Short: "Replay one row of the failure table", Args: cobra.ExactArgs(1),
		Long: "Replay one row of the failure table, by its number (8) or its script's name (08-fencing-off), on one store. What a\n" +
			"broken row left is kept; with --keep, whatever comes.",
		RunE: func(cmd *cobra.Command, args []string) error {
			f.row, f.stores = args[0], []string{store}
			return f.enter(cmd.Context())
		},
	}
	liveFlagsOf(cmd, &f)
	cmd.Flags().StringVar(&store, "store", string(sandbox.RaftStore), "raft, etcd3 or consul")
	cmd.Flags().StringVar(&f.fencing, "fencing", "", "keeper or off: only the scripts with that")
	return cmd
}

func liveFlagsOf(cmd *cobra.Command, f *liveFlags) {
	cmd.Flags().StringVar(&f.programs, "programs", "", "folder of regent and regent-keeper (default: this program's)")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "leave the clusters' folders in place, whatever comes")
	cmd.Flags().StringVar(&f.json, "json", "", "write all figures as JSON to this file")
	cmd.Flags().StringArrayVar(&f.servers, "server", nil, "a store's server, as `KIND=PROGRAM` (default: etcd or consul in PATH)")
}

// enter replays the failure table.
func (f *liveFlags) enter(ctx context.Context) error { return f.enterWith(ctx, f.live) }

// enterWith runs in the second run what the first has prepared.
func (f *liveFlags) enterWith(ctx context.Context,
	body func(context.Context, *sandbox.Base, []sandbox.StoreKind, map[string]string) error,
) error {
	kinds, err := f.kinds()
	if err != nil {
		return err
	}
	f.inside = onHosts
	named := map[string]string{}
	for _, s := range f.servers {
		kind, program, _ := strings.Cut(s, "=")
		named[kind] = program
	}
	if sandbox.Entered() {
		return inBase(f.place, nil, func(b *sandbox.Base) error { return body(ctx, b, kinds, named) })
	}
	for _, k := range kinds {
		server, err := sandbox.FindStore(k, named[string(k)])
		if err != nil {
			return fmt.Errorf("%w with --server %s=…", err, k)
		}
		if server != "" {
			f.also = append(f.also, server)
		}
	}
	if f.again != "" {
		f.also = append(f.also, f.again)
	}
	outputs := map[string]func([]byte) error{}
	for name, file := range map[string]string{liveTable: f.report, liveJSON: f.json} {
		if file != "" {
			outputs[name] = func(text []byte) error { return os.WriteFile(file, text, 0o644) }
		}
	}
	return inBase(f.place, outputs, nil)
}

// onHosts goes on in namespaces, and without them where there can be none: then the rows that need
// them say so.
func onHosts() (inside bool, code int, err error) {
	inside, code, err = hosts.Enter()
	if errors.Is(err, hosts.ErrUnavailable) {
		_, _ = fmt.Fprintf(os.Stderr, "Members have no cables of their own: %v\n", err)
		return true, 0, nil
	}
	return inside, code, err
}

func (f *liveFlags) kinds() ([]sandbox.StoreKind, error) {
	if len(f.stores) == 0 {
		return sandbox.StoreKinds(), nil
	}
	var out []sandbox.StoreKind
	for _, name := range f.stores {
		k, err := storeChoice{store: name}.kind()
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

func (f *liveFlags) pace() live.Pace {
	switch {
	case f.patroni != "":
		return live.Beside
	case f.slow:
		return live.Slow
	default:
		return live.Fast
	}
}

// options are what clusters are made of.
func (f *liveFlags) options(b *sandbox.Base, kinds []sandbox.StoreKind, named map[string]string) live.Options {
	o := live.Options{
		Dir: b.Dir, Bin: b.Bin, PGBin: b.PGBin, Programs: map[sandbox.StoreKind]string{}, Row: f.row, Fencing: f.fencing,
		Stores: kinds, Rotate: f.ci, Rotation: f.rotation, Budget: f.budget, Pace: f.pace(), Patroni: f.patroni, Keep: f.keep, Out: os.Stdout,
	}
	for _, k := range kinds {
		program := k.Program()
		if named[string(k)] != "" {
			program = filepath.Base(named[string(k)])
		}
		o.Programs[k] = filepath.Join(b.Bin, program)
	}
	return o
}

func (f *liveFlags) live(ctx context.Context, b *sandbox.Base, kinds []sandbox.StoreKind, named map[string]string) error {
	o := f.options(b, kinds, named)
	if f.ci {
		_, _ = fmt.Printf("Each row on one store: rotation %d\n", f.rotation)
	}
	if f.again != "" {
		text, err := os.ReadFile(filepath.Join(b.Bin, filepath.Base(f.again)))
		if err == nil {
			o.Earlier = &live.Report{}
			err = json.Unmarshal(text, o.Earlier)
		}
		if err != nil {
			return fmt.Errorf("read the earlier run: %w", err)
		}
	}
	report, err := live.Run(ctx, o)
	report.Machine = chaos.ThisMachine(programVersion(ctx, filepath.Join(b.PGBin, "postgres")), version)
	report.Text(os.Stdout)
	err = errors.Join(err, f.write(ctx, b, report))
	failed := slices.DeleteFunc(report.Failed(), func(x live.Result) bool { return x.Program == sandbox.Patroni }) // its own affair
	if len(failed) > 0 && err == nil {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
		err = fmt.Errorf("%w: %d of %d rows failed", chaos.ErrViolation, len(failed), len(report.Results))
	}
	return err
}

func (f *liveFlags) write(ctx context.Context, b *sandbox.Base, report live.Report) error {
	var table, figures bytes.Buffer
	markdown := report.Markdown
	if f.patroni != "" {
		markdown = func(w io.Writer) error { return report.Beside(w, programVersion(ctx, f.patroni)) }
	}
	if err := errors.Join(markdown(&table), report.JSON(&figures)); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(b.Dir, liveTable), table.Bytes(), 0o644),
		os.WriteFile(filepath.Join(b.Dir, liveJSON), figures.Bytes(), 0o644))
}
