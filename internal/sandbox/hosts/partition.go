package hosts

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pgregent/regent/internal/sandbox"
)

// Traffic says what of what hosts send to each other is meant.
type Traffic string

// The kinds of traffic.
const (
	// All is everything.
	All Traffic = "all"
	// Store is what agents and their store send to each other; with the embedded store, raft.
	Store Traffic = "store"
	// Peers is everything between nodes; with the embedded store also raft.
	Peers Traffic = "peers"
	// Members is PostgreSQL and the REST API between nodes, and never the store.
	Members Traffic = "members"
)

// Way says who is not heard.
type Way string

// The ways. With Out, what the partition's Hosts send is dropped, and what is sent to them arrives.
const (
	Both Way = "both"
	Out  Way = "out"
	In   Way = "in"
)

// Partition separates some hosts from others. Its zero Traffic and Way are All and Both.
type Partition struct {
	// Hosts are on one side, Others on the other; empty: all other hosts.
	Hosts, Others []string
	Traffic       Traffic
	Way           Way
}

// String is for reports.
func (p Partition) String() string {
	return fmt.Sprintf("%v from %v (%s, %s)", p.Hosts, p.Others, p.Traffic, p.Way)
}

var (
	errNothing = errors.New("no hosts have such traffic with each other")
	errNoWord  = errors.New("no such word")
)

// Cut drops the partition's packets until the link is healed. Connections stay open on both ends,
// and nothing comes through.
func (s *Site) Cut(p Partition) (*Link, error) {
	flows, err := s.Flows(p)
	if err != nil {
		return nil, err
	}
	return s.Net.Cut(flows...)
}

// Slow delays and loses the partition's packets until the link is healed.
func (s *Site) Slow(p Partition, q Quality) (*Link, error) {
	flows, err := s.Flows(p)
	if err != nil {
		return nil, err
	}
	return s.Net.Slow(q, flows...)
}

// Heal undoes all cuts and slow links.
func (s *Site) Heal() error { return s.Net.HealAll() }

// Flows are the packets that the partition is about.
func (s *Site) Flows(p Partition) ([]Flow, error) {
	if p.Traffic == "" {
		p.Traffic = All
	}
	if p.Way == "" {
		p.Way = Both
	}
	if !slices.Contains([]Way{Both, Out, In}, p.Way) || !slices.Contains([]Traffic{All, Store, Peers, Members}, p.Traffic) {
		return nil, fmt.Errorf("partition %s: %w", p, errNoWord)
	}
	others := p.Others
	if len(others) == 0 {
		others = slices.DeleteFunc(s.Names(), func(name string) bool { return slices.Contains(p.Hosts, name) })
	}
	for _, name := range slices.Concat(p.Hosts, others) {
		if !slices.Contains(s.Names(), name) {
			return nil, fmt.Errorf("partition %s: there is no host %s", p, name)
		}
	}
	var flows []Flow
	for _, a := range p.Hosts {
		for _, b := range others {
			if a == b {
				continue
			}
			if p.Way != In {
				flows = append(flows, s.between(a, b, p.Traffic)...)
			}
			if p.Way != Out {
				flows = append(flows, s.between(b, a, p.Traffic)...)
			}
		}
	}
	if len(flows) == 0 {
		return nil, fmt.Errorf("partition %s: %w", p, errNothing)
	}
	return flows, nil
}

// between are the packets of one kind of traffic that one host sends to another.
func (s *Site) between(from, to string, what Traffic) []Flow {
	a, b := s.Cluster.Node(from), s.Cluster.Node(to)
	nodes := a != nil && b != nil
	whole := []Flow{{From: from, To: to}}
	switch {
	case what == All, what == Peers && nodes:
		return whole
	case what == Store && s.Stores != nil && (a == nil) != (b == nil):
		return whole
	case what == Store && s.Stores == nil && nodes:
		return onPorts(a, b, func(n *sandbox.Node) []int { _, _, raft := n.Ports(); return []int{raft} })
	case what == Members && nodes:
		return onPorts(a, b, func(n *sandbox.Node) []int { postgres, rest, _ := n.Ports(); return []int{postgres, rest} })
	default:
		return nil
	}
}

// onPorts are the packets that one node sends to another on connections to some ports of either.
func onPorts(from, to *sandbox.Node, ports func(*sandbox.Node) []int) []Flow {
	var flows []Flow
	for _, p := range ports(to) {
		flows = append(flows, Flow{From: from.Name(), To: to.Name(), ToPort: p})
	}
	for _, p := range ports(from) {
		flows = append(flows, Flow{From: from.Name(), To: to.Name(), FromPort: p})
	}
	return flows
}
