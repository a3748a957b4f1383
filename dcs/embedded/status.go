package embedded

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
)

// Status is what one node knows of raft, for operators.
type Status struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Addr string `json:"addr"`
	// Role is "leader", "voter", "non-voter" or "outside" (no part of the cluster).
	Role       string `json:"role"`
	LeaderID   string `json:"leader_id,omitempty"`
	LeaderName string `json:"leader_name,omitempty"`
	LeaderAddr string `json:"leader_addr,omitempty"`
	Term       uint64 `json:"term"`
	Applied    uint64 `json:"applied"`
	// Servers of the cluster, in the configuration's order.
	Servers []Server `json:"servers,omitempty"`
	// Age of the node's view: how long ago it was known to hold everything that is
	// committed. Negative: not since it started.
	Age time.Duration `json:"age"`
	// Write is what storing an entry usually takes here; Slow: too long for a leader.
	Write time.Duration `json:"write,omitempty"`
	Slow  bool          `json:"slow,omitempty"`
	// Trouble with the raft folder, in words; empty if the last write to it succeeded.
	Trouble string `json:"trouble,omitempty"`
}

// Server of the cluster.
type Server struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Addr  string `json:"addr"`
	Voter bool   `json:"voter"`
}

// The roles in a Status.
const (
	RoleLeader   = "leader"
	RoleVoter    = "voter"
	RoleNonVoter = "non-voter"
	RoleOutside  = "outside"
)

// Status of this node. It asks nobody, and fails only on a closed store.
func (s *Store) Status(ctx context.Context) (Status, error) {
	if err := s.alive(ctx); err != nil {
		return Status{}, fmt.Errorf("status: %w", err)
	}
	return s.status(), nil
}

func (s *Store) status() Status {
	addr, id := s.raft.LeaderWithID()
	out := Status{
		ID: string(s.folder.id), Name: string(s.cfg.Name), Addr: s.cfg.SelfAddr, Role: RoleOutside,
		LeaderID: string(id), LeaderAddr: string(addr), Term: s.raft.CurrentTerm(),
		Applied: s.raft.AppliedIndex(), Servers: s.servers(), Age: s.localView().Age,
	}
	if id != "" {
		out.LeaderName = nameOf(id)
	}
	out.Write = s.disk.speed.usual()
	out.Slow = out.Write >= s.disk.speed.slow
	if err := s.disk.ailing(); err != nil {
		out.Trouble = err.Error()
	}
	inside := s.participating()
	for _, server := range out.Servers {
		if server.ID != out.ID || !inside {
			continue
		}
		switch {
		case s.raft.State() == raft.Leader:
			out.Role = RoleLeader
		case server.Voter:
			out.Role = RoleVoter
		default:
			out.Role = RoleNonVoter
		}
	}
	return out
}

func (s *Store) servers() []Server {
	var out []Server
	for _, server := range s.configuration().Servers {
		out = append(out, serverOf(server))
	}
	return out
}

func serverOf(server raft.Server) Server {
	return Server{
		ID: string(server.ID), Name: nameOf(server.ID), Addr: string(server.Address), Voter: server.Suffrage == raft.Voter,
	}
}

// Status of the nodes that this client knows, in the order of its addresses. Nodes
// that don't answer are left out; the error says which and why.
func (c *Client) Status(ctx context.Context) ([]Status, error) {
	var out []Status
	var failed error
	for _, addr := range c.addrs {
		answer, _, err := c.peers.call(ctx, addr, request{Verb: verbStatus})
		if err == nil {
			err = answer.err()
		}
		if err != nil || answer.Status == nil {
			failed = errors.Join(failed, fmt.Errorf("status of %s: %w: %w", addr, dcs.ErrUnavailable, err))
			continue
		}
		out = append(out, *answer.Status)
	}
	return out, failed
}
