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

// Making a cluster without ever making two.
//
// Every node asks every other in its member list who it is. A cluster is made only
// when all have answered, all show the same list, and none has ever had raft state.
// Each node then writes the same first entry by itself: the same servers, sorted, with
// the ids that they told each other and keep in their folders. It doesn't matter who
// does it first, or whether somebody dies in between: the entry is the same.
//
// A node with an empty folder that finds a cluster doesn't touch it. If the cluster's
// configuration names its id, it is one that missed the beginning, and the leader will
// bring it up. If not, its folder was lost: it is another server now, uses the store
// through the others, and says what an operator has to do.

const (
	helloEvery = 200 * time.Millisecond
	helloMax   = time.Second
	// helloSlow is the pace once questions have brought nothing for a while. A node that
	// is added to an existing cluster learns it from the leader, not from questions.
	helloSlow = 2 * time.Second
)

// findCluster runs while this node is no part of a cluster.
func (s *Store) findCluster(ctx context.Context) {
	every := helloEvery
	for {
		standing := s.standing.wait()
		if s.participating() {
			break
		}
		found := s.askAround(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case found.cluster != nil:
			s.meet(*found.cluster)
		case found.missing != "":
			s.quiet.info("waiting for all members before the store's cluster is made", found.missing, "reason", found.missing)
		default:
			s.bootstrap(found.servers)
		}
		timer := time.NewTimer(every)
		select {
		case <-ctx.Done():
		case <-standing:
		case <-timer.C:
		}
		timer.Stop()
		every = min(every*5/4, helloSlow)
	}
	for _, server := range s.servers() {
		if server.ID == string(s.folder.id) && server.Addr != s.cfg.SelfAddr {
			s.log.Warn("the store's cluster knows this node by another address than self_addr; the others use theirs",
				"addr", server.Addr, "self_addr", s.cfg.SelfAddr)
		}
	}
}

// findings of one round of questions. Exactly one field is set.
type findings struct {
	// cluster: this peer knows one.
	cluster *hello
	// missing says why a cluster can't be made yet.
	missing string
	// servers: everyone is there and nobody has a cluster.
	servers []raft.Server
}

func (s *Store) askAround(ctx context.Context) findings {
	partners := s.cfg.partners()
	answers := make([]hello, len(partners))
	failures := make([]error, len(partners))
	var wg sync.WaitGroup
	for i, addr := range partners {
		wg.Go(func() { answers[i], failures[i] = s.ask(ctx, addr) })
	}
	wg.Wait()
	for i := range answers {
		if failures[i] == nil && len(answers[i].Servers) > 0 {
			return findings{cluster: &answers[i]}
		}
	}
	servers := []raft.Server{{ID: s.folder.id, Address: raft.ServerAddress(s.cfg.SelfAddr)}}
	var missing []string
	for i, addr := range partners {
		why := s.objection(answers[i], failures[i], addr, servers)
		if why != "" {
			missing = append(missing, addr+": "+why)
			continue
		}
		servers = append(servers, raft.Server{ID: answers[i].ID, Address: raft.ServerAddress(addr)})
	}
	if len(missing) > 0 {
		return findings{missing: strings.Join(missing, "; ")}
	}
	if !s.folder.fresh {
		// It once voted, and forgot or never learned for whom: only a leader that
		// knows it can bring it in.
		return findings{missing: "this node has voted in a cluster that it doesn't know"}
	}
	return findings{servers: servers}
}

// objection says why a partner's answer doesn't let the cluster be made; "" if it does.
func (s *Store) objection(h hello, failure error, addr string, known []raft.Server) string {
	switch {
	case failure != nil && settingsError(failure):
		return failure.Error()
	case failure != nil:
		return "doesn't answer"
	case h.Addr != addr:
		return fmt.Sprintf("calls itself %s: spell addresses the same everywhere", h.Addr)
	case !slices.Equal(h.Members, s.cfg.members()):
		return fmt.Sprintf("has another member list: %s; ours: %s", strings.Join(h.Members, ", "), strings.Join(s.cfg.members(), ", "))
	case !h.Fresh:
		return "has voted in a cluster that it doesn't know"
	}
	for _, other := range known {
		if nameOf(other.ID) == nameOf(h.ID) {
			return fmt.Sprintf("has the name of %s: names must differ", other.Address)
		}
	}
	return ""
}

func (s *Store) ask(ctx context.Context, addr string) (hello, error) {
	ctx, cancel := context.WithTimeout(ctx, helloMax)
	defer cancel()
	answer, _, err := s.peers.call(ctx, addr, request{Verb: verbHello})
	if err == nil {
		err = answer.err()
	}
	if err == nil && answer.Hello == nil {
		err = fmt.Errorf("%w: an empty answer", dcs.ErrUnavailable)
	}
	if err != nil {
		return hello{}, err
	}
	return *answer.Hello, nil
}

func (s *Store) hello() hello {
	_, leader := s.raft.LeaderWithID()
	return hello{
		Leader: leader,
		ID:     s.folder.id, Addr: s.cfg.SelfAddr, Members: s.cfg.members(),
		Fresh:   s.folder.fresh && s.raft.LastIndex() == 0,
		Servers: s.servers(), Replaced: s.folder.replaced,
	}
}

// bootstrap writes the first entry. That it is there already is as good.
func (s *Store) bootstrap(servers []raft.Server) {
	slices.SortFunc(servers, func(a, b raft.Server) int { return strings.Compare(string(a.Address), string(b.Address)) })
	err := s.raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error()
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		s.quiet.warn("make the store's cluster", "", "err", err)
		return
	}
	s.log.Info("made the store's cluster", "members", len(servers), "self", string(s.folder.id))
}

// meet looks at a cluster that a peer knows.
func (s *Store) meet(h hello) {
	for _, server := range h.Servers {
		if server.ID == string(s.folder.id) {
			s.quiet.info("found the store's cluster, which knows this node; waiting for its leader", "", "through", h.Addr)
			return
		}
	}
	for _, server := range h.Servers {
		if server.Name == string(s.cfg.Name) {
			s.quiet.warn("this node's raft folder is new, and the cluster knows another one under its name: it can't vote "+
				"in the old one's place, and uses the store through the others. Remove the old id and add the new one "+
				"(regent raft member remove, regent raft member add)", "", "old", server.ID, "new", string(s.folder.id))
			return
		}
	}
	s.quiet.warn("the store's cluster exists and doesn't know this node: it uses the store through the others. "+
		"Add it (regent raft member add) if it should vote", "", "new", string(s.folder.id), "through", h.Addr)
}
