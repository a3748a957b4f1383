package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/workload"
)

// The lines of the floor.
const (
	floorSwitchover = "floor: switchover of bare PostgreSQL"
	floorStop       = "floor: clean stop of bare PostgreSQL"
	floorCrash      = "floor: postmaster SIGKILL of bare PostgreSQL"
)

// benchFloor measures what PostgreSQL itself takes for what agents do with it: two bare servers under
// the same writer and watcher, driven by somebody who needs neither to detect nor to agree nor to
// fence.
func (o BenchOptions) benchFloor(ctx context.Context) (lines []Line, err error) {
	names := slices.DeleteFunc([]string{floorSwitchover, floorStop, floorCrash}, func(name string) bool { return !o.wanted(name) })
	if len(names) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(1+len(names)*o.Runs)*settleTimeout)
	defer cancel()
	bare, err := sandbox.NewBare(ctx, o.options("floor", 0))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, bare.Tail(15))
		}
		err = errors.Join(err, bare.Close())
	}()
	f := floor{BenchOptions: o, origin: time.Now(), bare: bare}
	f.writer = workload.NewWriter(workload.WriterConfig{DSN: bare.DSN(), Nodes: bare.PortNames(), Origin: f.origin})
	err = underLoad(ctx, []runner{f.writer, workload.NewWatcher(f.origin, bare.Targets())}, func(ctx context.Context) error {
		for _, name := range names {
			line, err := f.measure(ctx, name)
			lines = append(lines, line)
			if err != nil {
				return fmt.Errorf("measure %q: %w", name, err)
			}
		}
		return nil
	})
	return lines, err
}

// floor is a measurement of bare servers under load.
type floor struct {
	BenchOptions
	origin time.Time
	bare   *sandbox.Bare
	writer *workload.Writer
}

// deed returns what is done to the servers, and what makes them whole again.
func (f *floor) deed(name string) (do, heal func(context.Context) error) {
	switch name {
	case floorCrash:
		return f.bare.Crash, f.bare.AwaitStreaming
	case floorStop:
		return f.bare.StopAndPromote, f.bare.Rejoin
	default:
		// The checkpoint comes while it still serves, so that the one of the stop is short.
		return func(ctx context.Context) error {
			return errors.Join(f.bare.Checkpoint(ctx), f.bare.StopAndPromote(ctx))
		}, f.bare.Rejoin
	}
}

func (f *floor) measure(ctx context.Context, name string) (line Line, err error) {
	line = Line{Name: name, Goal: "(the floor)", Unit: "ms"}
	line.busy()
	defer line.busy()
	do, heal := f.deed(name)
	for i := range f.Runs {
		if err := f.writer.Await(ctx, settled, time.Since(f.origin)); err != nil {
			return line, err
		}
		from := time.Since(f.origin)
		if err := do(ctx); err != nil {
			return line, err
		}
		if err := f.writer.Await(ctx, settled, time.Since(f.origin)); err != nil {
			return line, err
		}
		outage := f.writer.Log().LongestGap(from, time.Since(f.origin)).Length()
		line.add(millis(outage))
		f.say(name, i+1, "outage %s", outage.Round(time.Millisecond))
		if err := heal(ctx); err != nil {
			return line, err
		}
	}
	return line, nil
}
