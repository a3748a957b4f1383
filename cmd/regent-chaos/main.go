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

// exitError carries the exit code of a run that has already said what there is to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func run(ctx context.Context) int {
	root := &cobra.Command{
		Use: "regent-chaos", Short: "Break throwaway clusters on purpose, judge and measure",
		Version: version, SilenceErrors: true, SilenceUsage: true,
	}
	root.AddCommand(soakCommand(), benchCommand())
	err := root.ExecuteContext(ctx)
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		return 1
	}
	return 0
}

// inBase runs body in the program's second run, which has the Base, and in the first run waits
// for that and sweeps.
func inBase(programs string, outputs map[string]string, body func(*sandbox.Base) error) error {
	if programs == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the running program: %w", err)
		}
		programs = filepath.Dir(self)
	}
	base, code, err := sandbox.Enter(sandbox.BaseOptions{Programs: programs, Outputs: outputs, In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
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

// timings are the flags that every cluster takes.
type timings struct{ ttl, loopWait, retryTimeout time.Duration }

func (t *timings) flags(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&t.ttl, "ttl", 2*time.Second, "the leader lease")
	cmd.Flags().DurationVar(&t.loopWait, "loop-wait", time.Second, "the heartbeat")
	cmd.Flags().DurationVar(&t.retryTimeout, "retry-timeout", time.Second, "how long calls are tried")
}

func (t *timings) options(b *sandbox.Base, folder string) sandbox.Options {
	return sandbox.Options{
		Dir: filepath.Join(b.Dir, folder), Bin: b.Bin, PGBin: b.PGBin,
		TTL: t.ttl, LoopWait: t.loopWait, RetryTimeout: t.retryTimeout,
	}
}
