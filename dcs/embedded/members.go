package embedded

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
)

// Member is a server of the cluster, and what it answered when it was asked.
type Member struct {
	Server
	// Status is nil when it didn't answer; Error then says why.
	Status *Status
	Error  error
}

// change of the cluster's servers. Twice is as good as once.
type change struct {
	// Add names the address of a node to add, with a vote if Voter.
	Add   string `json:"add,omitempty"`
	Voter bool   `json:"voter,omitempty"`
	// Remove names a server to remove, by id, name or address; Force, although the
	// others may not be a majority then.
	Remove string `json:"remove,omitempty"`
	Force  bool   `json:"force,omitempty"`
}

// Members lists the cluster's servers as the leader knows them (or some node, when there
// is no leader), and asks each one for its state. It fails when no node answers.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	servers, err := c.servers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the store's members: %w", err)
	}
	out := make([]Member, len(servers))
	var wg sync.WaitGroup
	for i, server := range servers {
		out[i].Server = server
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, helloMax)
			defer cancel()
			answer, _, err := c.peers.call(ctx, server.Addr, request{Verb: verbStatus})
			if err == nil {
				err = answer.err()
			}
			switch {
			case err != nil:
				out[i].Error = err
			case answer.Status == nil || answer.Status.ID != server.ID:
				out[i].Error = errOtherServer
			default:
				out[i].Status = answer.Status
			}
		})
	}
	wg.Wait()
	return out, nil
}

// servers asks the nodes in turn, and then the leader that one of them names, because a
// follower may not have the newest configuration. Nodes outside don't count.
func (c *Client) servers(ctx context.Context) ([]Server, error) {
	var servers []Server
	err := c.each(ctx, func(ctx context.Context, addr string) (bool, error) {
		answer, _, err := c.peers.call(ctx, addr, request{Verb: verbStatus})
		if err == nil {
			err = answer.err()
		}
		if err != nil {
			return false, err
		}
		if answer.Status == nil || answer.Status.Role == RoleOutside {
			return false, errOutside()
		}
		if servers == nil {
			servers = answer.Status.Servers
		}
		if answer.Status.LeaderAddr == "" {
			return false, errNoLeader
		}
		leader, _, err := c.peers.call(ctx, answer.Status.LeaderAddr, request{Verb: verbStatus})
		if err != nil || leader.Status == nil || leader.Status.Role != RoleLeader {
			return false, fmt.Errorf("ask the leader at %s: %w", answer.Status.LeaderAddr, errors.Join(errNoLeader, err))
		}
		servers = leader.Status.Servers
		return true, nil
	})
	switch {
	case len(servers) > 0:
		return servers, nil
	case err != nil && settingsError(err):
		return nil, fmt.Errorf("%w: %w", dcs.ErrBroken, err)
	default:
		return nil, fmt.Errorf("%w: %w", dcs.ErrUnavailable, errors.Join(err, errors.New("no node of the store's cluster answers")))
	}
}

// AddMember adds the node that runs at addr, spelled as in its self_addr. It joins
// without a vote, and gets one, if voter, when it has caught up; ErrUnavailable may mean
// that it hasn't yet: repeat the call. ErrRefused says what is in the way: the node
// doesn't answer the leader, has a former life in its raft folder, or takes the name or
// address of a server that must be removed first.
func (c *Client) AddMember(ctx context.Context, addr string, voter bool) (Server, error) {
	return c.change(ctx, change{Add: addr, Voter: voter})
}

// RemoveMember removes a server by id, name or address. Without force it is ErrRefused
// when those who answer wouldn't be a majority of those who are left. A server that is
// removed goes on without a vote and uses the store through the others.
func (c *Client) RemoveMember(ctx context.Context, which string, force bool) (Server, error) {
	return c.change(ctx, change{Remove: which, Force: force})
}

func (c *Client) change(ctx context.Context, ch change) (Server, error) {
	var out Server
	err := c.each(ctx, func(ctx context.Context, addr string) (bool, error) {
		answer, _, err := c.peers.call(ctx, addr, request{Verb: verbChange, Change: &ch, Relay: true})
		if err == nil {
			err = answer.err()
		}
		if err == nil && answer.Server != nil {
			out = *answer.Server
			return true, nil
		}
		return errors.Is(err, dcs.ErrRefused), err
	})
	switch {
	case err == nil, errors.Is(err, dcs.ErrRefused):
		return out, err
	case settingsError(err):
		return out, fmt.Errorf("%w: %w", dcs.ErrBroken, err)
	case errors.Is(err, dcs.ErrUnknown), errors.Is(err, dcs.ErrUnavailable), errors.Is(err, dcs.ErrBroken):
		return out, err
	default: // the connection ended, or time did: it may have happened
		return out, fmt.Errorf("change the store's members: %w: %w", dcs.ErrUnknown, err)
	}
}

// serveChange carries out a change on the leader, or passes it on to it.
func (s *Store) serveChange(ctx context.Context, ch change, relay bool) (Server, error) {
	if s.current() != nil {
		if !s.changing.TryLock() {
			return Server{}, fmt.Errorf("%w: another change of the store's members is under way", dcs.ErrUnavailable)
		}
		defer s.changing.Unlock()
		if ch.Add != "" {
			return s.addMember(ctx, ch.Add, ch.Voter)
		}
		return s.removeMember(ctx, ch.Remove, ch.Force)
	}
	addr, id := s.raft.LeaderWithID()
	if !relay || addr == "" || id == s.folder.id {
		return Server{}, fmt.Errorf("%w: %w", dcs.ErrUnavailable, errNoLeader)
	}
	answer, sent, err := s.peers.call(ctx, string(addr), request{Verb: verbChange, Change: &ch})
	switch {
	case err != nil && sent:
		return Server{}, fmt.Errorf("%w: %w", dcs.ErrUnknown, err)
	case err != nil:
		return Server{}, fmt.Errorf("%w: %w", dcs.ErrUnavailable, err)
	case answer.err() != nil:
		return Server{}, answer.err()
	case answer.Server == nil:
		return Server{}, fmt.Errorf("%w: %w", dcs.ErrUnknown, errNoResult)
	}
	return *answer.Server, nil
}

func (s *Store) addMember(ctx context.Context, addr string, voter bool) (Server, error) {
	h, err := s.ask(ctx, addr)
	if err != nil {
		return Server{}, fmt.Errorf("add %s: %w: the leader %s can't reach it: %w", addr, dcs.ErrRefused, s.cfg.SelfAddr, err)
	}
	servers := s.configuration().Servers
	known := slices.IndexFunc(servers, func(server raft.Server) bool { return server.ID == h.ID })
	if known < 0 {
		if why := unfit(h, addr, servers); why != "" {
			return Server{}, fmt.Errorf("add %s: %w: %s", addr, dcs.ErrRefused, why)
		}
		if err := s.configure(ctx, func() raft.Future {
			return s.raft.AddNonvoter(h.ID, raft.ServerAddress(addr), 0, queueTime(ctx))
		}); err != nil {
			return Server{}, fmt.Errorf("add %s: %w", addr, err)
		}
		s.log.Info("added a server to the store's cluster", "id", string(h.ID), "addr", addr)
	}
	added := Server{ID: string(h.ID), Name: nameOf(h.ID), Addr: addr}
	added.Voter = known >= 0 && servers[known].Suffrage == raft.Voter
	if !voter || added.Voter {
		return added, nil
	}
	// Raft would give it the vote at once. Were it the second of two and behind, nothing
	// could be committed until it has the whole log.
	if err := s.caughtUp(ctx, raft.Server{ID: h.ID, Address: raft.ServerAddress(addr)}); err != nil {
		return Server{}, fmt.Errorf("give %s a vote: %w: it is added, but hasn't caught up: repeat the command: %w", addr, dcs.ErrUnavailable, err)
	}
	if err := s.configure(ctx, func() raft.Future {
		return s.raft.AddVoter(h.ID, raft.ServerAddress(addr), 0, queueTime(ctx))
	}); err != nil {
		return Server{}, fmt.Errorf("give %s a vote: %w", addr, err)
	}
	s.log.Info("a server of the store's cluster has a vote now", "id", string(h.ID), "addr", addr)
	added.Voter = true
	return added, nil
}

// unfit says why a node that is no server can't become one; "" if it can.
func unfit(h hello, addr string, servers []raft.Server) string {
	if h.Addr != addr {
		return fmt.Sprintf("that node calls itself %s (its self_addr): add it under that address", h.Addr)
	}
	for _, server := range servers {
		if nameOf(server.ID) == nameOf(h.ID) || string(server.Address) == addr {
			return fmt.Sprintf("%s at %s is a server already, under another id (%s): its raft folder was replaced. "+
				"Remove that one first: regent raft member remove %s", nameOf(server.ID), server.Address, server.ID, server.ID)
		}
	}
	if !h.Fresh {
		return "that node's raft folder holds a former life, which may contradict this cluster: stop the node, " +
			"move its raft folder (raft.data_dir) away, start it, and add it then"
	}
	return ""
}

// catchUpPoll is how often a server that catches up is asked how far it is.
const catchUpPoll = 50 * time.Millisecond

// caughtUp waits until the server follows this leader closely.
func (s *Store) caughtUp(ctx context.Context, server raft.Server) error {
	for {
		answers := s.askStatus(ctx, []raft.Server{server})
		if _, ok := fittest([]raft.Server{server}, answers, s.healthy()); ok {
			return nil
		}
		if !pause(ctx, catchUpPoll) {
			return ctx.Err()
		}
	}
}

func (s *Store) removeMember(ctx context.Context, which string, force bool) (Server, error) {
	servers := s.configuration().Servers
	at := slices.IndexFunc(servers, func(server raft.Server) bool {
		return string(server.ID) == which || nameOf(server.ID) == which || string(server.Address) == which
	})
	if at < 0 {
		return Server{}, fmt.Errorf("remove %s: %w: no server has that id, name or address", which, dcs.ErrRefused)
	}
	gone := servers[at]
	// Raft shares its configuration: it must not be changed in place.
	rest := slices.DeleteFunc(slices.Clone(servers), func(server raft.Server) bool {
		return server.ID == gone.ID || server.Suffrage != raft.Voter
	})
	if len(rest) == 0 {
		return Server{}, fmt.Errorf("remove %s: %w: it is the last one that votes", which, dcs.ErrRefused)
	}
	if gone.Suffrage == raft.Voter && !force {
		if silent := s.tooFew(ctx, rest); silent != nil {
			return Server{}, fmt.Errorf("remove %s: %w: %s, and the others alone are no majority of the %d voters that would be left: "+
				"the store would stand still. Repair or remove those first", which, dcs.ErrRefused, strings.Join(silent, "; "), len(rest))
		}
	}
	if err := s.configure(ctx, func() raft.Future { return s.raft.RemoveServer(gone.ID, 0, queueTime(ctx)) }); err != nil {
		return Server{}, fmt.Errorf("remove %s: %w", which, err)
	}
	s.log.Info("removed a server from the store's cluster", "id", string(gone.ID), "addr", string(gone.Address))
	return serverOf(gone), nil
}

// recovering is how long voters may take to become healthy, for instance under a leader
// that was just elected, before a removal is refused for their sake.
const recovering = time.Second

// tooFew returns nil when a majority of the voters is healthy, soon at least; else those
// that are not, in words.
func (s *Store) tooFew(ctx context.Context, voters []raft.Server) []string {
	ctx, cancel := context.WithTimeout(ctx, recovering)
	defer cancel()
	for {
		silent := s.silent(ctx, voters)
		if len(voters)-len(silent) > len(voters)/2 {
			return nil
		}
		if !pause(ctx, catchUpPoll) {
			return silent
		}
	}
}

// silent lists the voters that don't follow this leader closely, in words.
func (s *Store) silent(ctx context.Context, voters []raft.Server) []string {
	voters = slices.DeleteFunc(slices.Clone(voters), func(v raft.Server) bool { return v.ID == s.folder.id })
	answers := s.askStatus(ctx, voters)
	var out []string
	for i, voter := range voters {
		if _, ok := fittest(voters[i:i+1], answers[i:i+1], s.healthy()); !ok {
			out = append(out, fmt.Sprintf("%s at %s isn't healthy", nameOf(voter.ID), voter.Address))
		}
	}
	return out
}

// configure waits for a change of raft's configuration.
func (s *Store) configure(ctx context.Context, start func() raft.Future) error {
	err := s.wait(ctx, start)
	switch {
	case err == nil:
		s.health.notify()
		return nil
	case certainlyNot(err):
		return fmt.Errorf("%w: %w", dcs.ErrUnavailable, err)
	default:
		return fmt.Errorf("%w: %w", dcs.ErrUnknown, err)
	}
}
