package hosts

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Flow names packets: those that one host sends to another. With a port, only TCP ones of
// connections to that port; where the port is, at From or at To, tells which side listens.
type Flow struct {
	From, To         string
	FromPort, ToPort int
}

// Quality is how bad a link is. The zero Quality drops everything.
type Quality struct {
	// Delay is how long each packet takes more, and Jitter by how much that varies. Packets keep their order.
	Delay, Jitter time.Duration
	// Loss is the part of the packets that is lost, 0 to 1.
	Loss float64
	// Rand decides which, and by how much they vary; a seeded one repeats itself.
	Rand *rand.Rand
}

// Link is a change to some flows, until it is healed.
type Link struct {
	net   *Net
	rules []*netlink.Rule
	slow  *forwarder // nil: they are cut
}

// Preferences of the router's rules: what is cut is cut, also on its way out of a slow link.
const (
	preferCut  = 1000
	preferOut  = 2000
	preferSlow = 3000
	firstTable = 10000
)

// Cut drops the packets of the flows.
func (n *Net) Cut(flows ...Flow) (*Link, error) {
	l := &Link{net: n}
	if err := n.change(l, flows, netlink.Rule{Priority: preferCut, Type: unix.RTN_BLACKHOLE}); err != nil {
		return nil, fmt.Errorf("cut: %w", errors.Join(err, l.Heal()))
	}
	return l, nil
}

// Slow delays and loses packets of the flows. A flow that is slow twice has what comes first.
func (n *Net) Slow(q Quality, flows ...Flow) (*Link, error) {
	n.mu.Lock()
	n.next++
	number := n.number*1000 + n.next
	n.mu.Unlock()
	l := &Link{net: n}
	var err error
	if l.slow, err = newForwarder(q, number); err != nil {
		return nil, fmt.Errorf("slow: %w", err)
	}
	if err := n.change(l, flows, netlink.Rule{Priority: preferSlow, Table: firstTable + number}); err != nil {
		return nil, fmt.Errorf("slow: %w", errors.Join(err, l.Heal()))
	}
	return l, nil
}

// change adds a rule like this one for each of the flows.
func (n *Net) change(l *Link, flows []Flow, like netlink.Rule) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[l] = true
	for _, f := range flows {
		from, to := n.find(f.From), n.find(f.To)
		if from == nil || to == nil {
			return fmt.Errorf("from %s to %s: no such host", f.From, f.To)
		}
		r := netlink.NewRule()
		r.Family, r.Priority, r.Table, r.Type = unix.AF_INET, like.Priority, like.Table, like.Type
		r.Src, r.Dst = only(from.addr), only(to.addr)
		if f.FromPort != 0 {
			r.Sport, r.IPProto = netlink.NewRulePortRange(uint16(f.FromPort), uint16(f.FromPort)), unix.IPPROTO_TCP
		}
		if f.ToPort != 0 {
			r.Dport, r.IPProto = netlink.NewRulePortRange(uint16(f.ToPort), uint16(f.ToPort)), unix.IPPROTO_TCP
		}
		// The same may be cut twice, and is healed twice then.
		if err := netlink.RuleAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("from %s to %s: %w", f.From, f.To, err)
		}
		l.rules = append(l.rules, r)
	}
	return nil
}

// Heal undoes the change. Healing twice does nothing.
func (l *Link) Heal() error {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	return l.heal()
}

func (l *Link) heal() error {
	var errs []error
	for _, r := range l.rules {
		if err := netlink.RuleDel(r); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("heal %s: %w", r, err))
		}
	}
	l.rules = nil
	if l.slow != nil {
		errs = append(errs, l.slow.close())
		l.slow = nil
	}
	delete(l.net.links, l)
	return errors.Join(errs...)
}

// HealAll undoes all changes.
func (n *Net) HealAll() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for l := range n.links {
		errs = append(errs, l.heal())
	}
	return errors.Join(errs...)
}
