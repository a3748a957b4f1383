package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/sandbox"
)

// storeFaults is what can be done to the store of this run.
func (r *run) storeFaults() (StoreFaults, error) {
	switch {
	case r.lab.faults != nil:
		return r.lab.faults, nil
	case r.lab.server != nil:
		return loneServer{r.lab}, nil
	default:
		return voters{r}, nil
	}
}

// loneServer is one server, alone: it can stand still.
type loneServer struct{ l *lab }

func (s loneServer) Stop(context.Context) error { return signalIn(s.l.server.Dir(), unix.SIGSTOP) }
func (s loneServer) Go(context.Context) error   { return signalIn(s.l.server.Dir(), unix.SIGCONT) }
func (loneServer) MoveLeader(context.Context) error {
	return errNoServers
}
func (loneServer) Lose(context.Context, string) error { return errNoServers }
func (loneServer) Restore(context.Context) error      { return errNoServers }

// signalIn reaches the server that works in a folder.
func signalIn(dir string, sig unix.Signal) error {
	found, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return err
	}
	sent := 0
	for _, link := range found {
		if at, err := os.Readlink(link); err != nil || at != dir {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil {
			return err
		}
		if err := unix.Kill(pid, sig); err != nil {
			return fmt.Errorf("send %s to the store's server: %w", unix.SignalName(sig), err)
		}
		sent++
	}
	if sent == 0 {
		return fmt.Errorf("send %s to the store's server: none runs in %s", unix.SignalName(sig), dir)
	}
	return nil
}

// voters are the agents of the embedded store.
type voters struct{ r *run }

// Stop leaves the primary's agent alone, without a majority.
func (v voters) Stop(ctx context.Context) error {
	return v.each(func(name string) error { return kill(ctx, v.r, []string{string(sandbox.Agent), name}) })
}

func (v voters) Go(ctx context.Context) error {
	return v.each(func(name string) error { return startAgent(ctx, v.r, []string{name}) })
}

func (v voters) each(do func(name string) error) error {
	return errors.Join(do("replica"), do("other"))
}

// MoveLeader kills the agent that leads raft; the other two elect, and it is started again.
func (v voters) MoveLeader(ctx context.Context) error {
	for {
		n, err := v.r.lab.cluster.RaftLeader(ctx)
		if err == nil {
			return n.KillAgent()
		}
		if pause(ctx, pollEvery) != nil {
			return err
		}
	}
}

func (voters) Lose(context.Context, string) error { return errNoServers }
func (voters) Restore(context.Context) error      { return errNoServers }
