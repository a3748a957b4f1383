package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/chaos"
	"github.com/pgregent/regent/internal/sandbox"
)

// reportFile is the report's name in the base.
const reportFile = "performance.md"

type benchFlags struct {
	timings
	place
	runs         int
	only, report string
	asJSON       bool
}

func benchCommand() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure outage and loss of every kind of fail-over", Args: cobra.NoArgs,
		Long: "Measure each line of the speed goals on clusters of their own and print p50 and max beside the goal.\n" +
			"The exit code tells whether promises were kept, not whether goals were met: figures depend on the machine.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var outputs map[string]func([]byte) error
			if f.report != "" {
				outputs = map[string]func([]byte) error{reportFile: func(text []byte) error { return os.WriteFile(f.report, text, 0o644) }}
			}
			return inBase(f.place, outputs, func(b *sandbox.Base) error { return f.bench(cmd.Context(), b) })
		},
	}
	flags(cmd, &f.timings, &f.place)
	cmd.Flags().IntVar(&f.runs, "runs", 5, "trials a line")
	cmd.Flags().StringVar(&f.only, "only", "", "measure only the lines whose name contains this")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print the report as JSON on stdout, progress on stderr")
	cmd.Flags().StringVar(&f.report, "report", "", "write the report as Markdown to this file")
	return cmd
}

func (f *benchFlags) bench(ctx context.Context, b *sandbox.Base) error {
	var progress io.Writer = os.Stdout
	if f.asJSON {
		progress = os.Stderr
	}
	machine := chaos.ThisMachine(programVersion(ctx, filepath.Join(b.PGBin, "postgres")), version)
	lines, err := chaos.Bench(ctx, chaos.BenchOptions{Runs: f.runs, Only: f.only, Cluster: options(b, "b", f.timings, f.place), Out: progress})
	r := chaos.Report{Machine: machine, Runs: f.runs, TTL: f.ttl, Lines: lines}
	if f.asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = errors.Join(err, enc.Encode(r))
	} else {
		r.Text(os.Stdout)
	}
	if err != nil {
		return err
	}
	for _, l := range lines {
		if len(l.Broken) > 0 {
			return fmt.Errorf("%w: %s: %s", chaos.ErrViolation, l.Name, strings.Join(l.Broken, "; "))
		}
	}
	return f.write(b, r)
}

func (f *benchFlags) write(b *sandbox.Base, r chaos.Report) error {
	if f.report == "" {
		return nil
	}
	file, err := os.Create(filepath.Join(b.Dir, reportFile))
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	r.Markdown(file)
	if err := file.Close(); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// programVersion is what a program says of itself.
func programVersion(ctx context.Context, path string) string {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}
