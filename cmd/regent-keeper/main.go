package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"github.com/pgregent/regent/pgmgr/keeper"
)

// version is set by the linker when a release is built.
var version = "0.1.0-dev"

// options are the keeper's flags.
type options struct {
	runDir, dataDir, logFile string
	detach                   bool
	readyFD                  int
}

func main() {
	// The kernel sends PostgreSQL its parent-death signal when the thread that
	// forked it ends. This goroutine forks, and never leaves its thread (S4).
	runtime.LockOSThread()
	// A keeper does next to nothing: little memory is worth more than speed, and
	// two threads of Go are enough for a command and a fence side by side.
	debug.SetGCPercent(25)
	runtime.GOMAXPROCS(2)
	opts, code := parseFlags(os.Args[1:], os.Stderr)
	if code >= 0 {
		os.Exit(code)
	}
	if opts.detach {
		os.Exit(detach(opts, os.Stderr))
	}
	err := run(opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, "regent-keeper:", err)
	}
	os.Exit(exitCode(err))
}

// parseFlags returns a code ≥ 0 when the program has nothing more to do.
func parseFlags(args []string, stderr io.Writer) (options, int) {
	var o options
	var showVersion bool
	fs := flag.NewFlagSet("regent-keeper", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.runDir, "run-dir", "", "`directory` of the socket and the lock; outside the data directory")
	fs.StringVar(&o.dataDir, "data-dir", "", "PostgreSQL's data `directory`")
	fs.StringVar(&o.logFile, "log", "", "`file` the keeper logs to (default: its error output)")
	fs.BoolVar(&o.detach, "detach", false, "start the keeper in a session of its own, and end when it serves")
	fs.IntVar(&o.readyFD, "ready-fd", 0, "`descriptor` on which to report that the keeper serves (used by --detach)")
	fs.BoolVar(&showVersion, "version", false, "print the version and end")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, keeper.ExitServing
		}
		return o, keeper.ExitUsage
	}
	if showVersion {
		fmt.Println("regent-keeper", version)
		return o, keeper.ExitServing
	}
	if o.runDir == "" || o.dataDir == "" || fs.NArg() > 0 {
		_, _ = fmt.Fprintln(stderr, "usage: regent-keeper --run-dir DIR --data-dir DIR [--log FILE] [--detach]")
		return o, keeper.ExitUsage
	}
	if err := o.resolve(); err != nil {
		_, _ = fmt.Fprintln(stderr, "regent-keeper:", err)
		return o, keeper.ExitUsage
	}
	return o, -1
}

// resolve makes all paths absolute, since the keeper leaves the folder it was
// started in, and the data directory's the one that the kernel will name.
func (o *options) resolve() error {
	var err error
	if o.dataDir, err = keeper.Resolve(o.dataDir); err != nil {
		return err
	}
	if o.runDir, err = filepath.Abs(o.runDir); err != nil {
		return fmt.Errorf("resolve run directory: %w", err)
	}
	if o.logFile != "" {
		if o.logFile, err = filepath.Abs(o.logFile); err != nil {
			return fmt.Errorf("resolve log file: %w", err)
		}
	}
	return nil
}

// exitCode tells a launcher what kind of failure it was.
func exitCode(err error) int {
	switch {
	case err == nil:
		return keeper.ExitServing
	case errors.Is(err, errOccupied):
		return keeper.ExitOccupied
	case errors.Is(err, errElsewhere):
		return keeper.ExitElsewhere
	default:
		return keeper.ExitFailed
	}
}
