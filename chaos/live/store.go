package live

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgregent/regent/internal/sandbox"
)

// storeFaults is what can be done to a store's servers, or to the voters of the embedded one.
type storeFaults interface {
	// stop has all servers stand still, run lets them run on.
	stop(ctx context.Context) error
	run(ctx context.Context) error
	// moveLeader has another server lead.
	moveLeader(ctx context.Context) error
	// lose kills a minority or a majority of the servers, restore starts them again.
	lose(ctx context.Context, share string) error
	restore(ctx context.Context) error
}

// storeFaults is what can be done to the store of this run.
func (r *run) storeFaults() storeFaults {
	if r.lab.stores != nil {
		return servers{r}
	}
	return voters{r}
}

// servers are those of etcd or Consul.
type servers struct{ r *run }

func (s servers) each(do func(*sandbox.StoreServer) error) error {
	var errs []error
	for _, m := range s.r.lab.stores.Members {
		errs = append(errs, do(m))
	}
	return errors.Join(errs...)
}

func (s servers) stop(context.Context) error { return s.each((*sandbox.StoreServer).Freeze) }
func (s servers) run(context.Context) error  { return s.each((*sandbox.StoreServer).Thaw) }

func (s servers) moveLeader(ctx context.Context) error {
	_, _, err := s.r.lab.stores.MoveLeader(ctx)
	return err
}

// lose kills the servers that the replicas' agents would ask first: with Consul, member i asks
// server i alone.
func (s servers) lose(_ context.Context, share string) error {
	names := []string{"other"}
	if share == "majority" {
		names = []string{"replica", "other"}
	}
	for _, name := range names {
		n, err := s.r.node(name)
		if err != nil {
			return err
		}
		for i, m := range s.r.lab.cluster.Nodes() {
			if m != n {
				continue
			}
			server := s.r.lab.stores.Members[i]
			if err := server.Kill(); err != nil {
				return err
			}
			s.r.lostServers = append(s.r.lostServers, server)
		}
	}
	return nil
}

func (s servers) restore(ctx context.Context) error {
	if len(s.r.lostServers) == 0 {
		return errors.New("no server was lost")
	}
	for _, m := range s.r.lostServers {
		if err := m.Start(); err != nil {
			return err
		}
	}
	s.r.lostServers = nil
	return s.r.lab.stores.Await(ctx)
}

// voters are the agents of the embedded store.
type voters struct{ r *run }

// stop leaves the primary's agent alone, without a majority.
func (v voters) stop(ctx context.Context) error { return v.lose(ctx, "majority") }
func (v voters) run(ctx context.Context) error  { return v.restore(ctx) }

func (v voters) lose(ctx context.Context, share string) error {
	err := kill(ctx, v.r, []string{string(sandbox.Agent), "other"})
	if share == "majority" {
		err = errors.Join(err, kill(ctx, v.r, []string{string(sandbox.Agent), "replica"}))
	}
	return err
}

func (v voters) restore(ctx context.Context) error {
	return errors.Join(startAgent(ctx, v.r, []string{"replica"}), startAgent(ctx, v.r, []string{"other"}))
}

// moveLeader kills the agent that leads raft, which is started again; the others elect.
func (v voters) moveLeader(ctx context.Context) error {
	for {
		n, err := v.r.lab.cluster.RaftLeader(ctx)
		if err == nil {
			return n.KillAgent()
		}
		if pause(ctx, pollEvery) != nil {
			return fmt.Errorf("find the leader of raft: %w", err)
		}
	}
}
