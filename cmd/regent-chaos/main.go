// Command regent-chaos breaks sandbox clusters on purpose, judges what comes of it, and
// measures how long it takes. It is never linked into the agent.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/chaos"
	"github.com/pgregent/regent/internal/sandbox"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx)
	stop()
	os.Exit(code)
}

// interrupted is the exit code after a signal, as shells have it for Ctrl-C.
const interrupted = 130

// exitError carries the exit code of a run that has already said what there is to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func run(ctx context.Context) int {
	root := &cobra.Command{
		Use: "regent-chaos", Short: "Break throwaway clusters on purpose, judge and measure",
		Version: version, SilenceErrors: true, SilenceUsage: true,
	}
	root.AddCommand(soakCommand(), benchCommand(), compareCommand(), liveCommand(), rowCommand(), stormCommand(), scenariosCommand())
	err := root.ExecuteContext(ctx)
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		if ctx.Err() != nil {
			return interrupted
		}
		return 1
	}
	return 0
}

// inBase runs body in the program's second run, which has the Base, and in the first run waits
// for that and sweeps.
func inBase(p place, outputs map[string]func([]byte) error, body func(*sandbox.Base) error) error {
	if p.programs == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the running program: %w", err)
		}
		p.programs = filepath.Dir(self)
	}
	base, code, err := sandbox.Enter(sandbox.BaseOptions{
		Programs: p.programs, Also: p.also, Keep: p.keep, Outputs: outputs, Inside: p.inside, In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
	})
	switch {
	case err != nil:
		return err
	case base != nil:
		err := body(base)
		if errors.Is(err, chaos.ErrViolation) {
			err = errors.Join(err, base.KeepFolder())
		}
		return errors.Join(err, base.Leave())
	case code != 0:
		return exitError(code)
	default:
		return nil
	}
}

// place is where clusters run, and what of.
type place struct {
	programs string
	also     []string // further programs that are needed there
	keep     bool
	inside   func() (inside bool, code int, err error) // see sandbox.BaseOptions
}

// timings are the cluster's.
type timings struct{ ttl, loopWait, retryTimeout time.Duration }

// flags that every command takes.
func flags(cmd *cobra.Command, t *timings, p *place) {
	cmd.Flags().StringVar(&p.programs, "programs", "", "folder of regent and regent-keeper (default: this program's)")
	cmd.Flags().BoolVar(&p.keep, "keep", false, "leave the clusters' folders in place, whatever comes")
	cmd.Flags().DurationVar(&t.ttl, "ttl", 2*time.Second, "the leader lease")
	cmd.Flags().DurationVar(&t.loopWait, "loop-wait", time.Second, "the heartbeat")
	cmd.Flags().DurationVar(&t.retryTimeout, "retry-timeout", time.Second, "how long calls are tried")
}

func options(b *sandbox.Base, folder string, t timings, p place) sandbox.Options {
	return sandbox.Options{
		Dir: filepath.Join(b.Dir, folder), Bin: b.Bin, PGBin: b.PGBin, Keep: p.keep,
		TTL: t.ttl, LoopWait: t.loopWait, RetryTimeout: t.retryTimeout,
	}
}
