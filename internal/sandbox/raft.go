package sandbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded"
)

// RaftStatus is what each node that answers says of raft.
func (c *Cluster) RaftStatus(ctx context.Context) ([]embedded.Status, error) {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, at(n.machine, n.raftPort))
	}
	client, err := embedded.Dial(ctx, embedded.ClientConfig{
		Addrs: addrs, Cluster: dcs.BasePath("/service", c.opt.Scope), Secret: c.secret,
	})
	if err != nil {
		return nil, fmt.Errorf("ask for raft's status: %w", err)
	}
	statuses, err := client.Status(ctx)
	if closed := client.Close(); closed != nil {
		return nil, fmt.Errorf("ask for raft's status: %w", errors.Join(err, closed))
	}
	if len(statuses) == 0 {
		return nil, fmt.Errorf("ask for raft's status: %w", err)
	}
	return statuses, nil
}

// RaftLeader returns the node whose agent leads raft, as most of the nodes that answer see it.
func (c *Cluster) RaftLeader(ctx context.Context) (*Node, error) {
	statuses, err := c.RaftStatus(ctx)
	if err != nil {
		return nil, err
	}
	votes := map[string]int{}
	for _, s := range statuses {
		votes[s.LeaderName]++
		if n := c.Node(s.LeaderName); n != nil && 2*votes[s.LeaderName] > len(statuses) {
			return n, nil
		}
	}
	return nil, fmt.Errorf("ask for the raft leader: %w among %d answers (%v)", errNoRaftLeader, len(statuses), votes)
}

var errNoRaftLeader = errors.New("no majority names one")
