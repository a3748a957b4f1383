package hosts

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Net is a network of hosts around this program, which is their router. Its methods may be called
// from several goroutines, Close once.
type Net struct {
	number  int
	gateway netip.Addr

	mu    sync.Mutex // guards what follows
	hosts []*Host
	links map[*Link]bool // those that are changed now
	// next numbers rules, tables and devices of this network.
	next int
}

// networks counts the networks of this program: each has addresses of its own.
var networks atomic.Int64

// longest bounds the numbers of networks and hosts, which are bytes of addresses.
const longest = 250

// NewNet returns a network without hosts. The program must be Inside.
func NewNet() (*Net, error) {
	if !Inside() {
		return nil, fmt.Errorf("make a network: %w: the program didn't Enter any", ErrUnavailable)
	}
	number := int(networks.Add(1))
	if number > longest {
		return nil, fmt.Errorf("make a network: %d were made already", longest)
	}
	n := &Net{number: number, links: map[*Link]bool{}}
	n.gateway = n.address(longest + 1)
	return n, nil
}

func (n *Net) address(host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, byte(n.number), byte(host)})
}

// clients is the network as pg_hba.conf takes it.
func (n *Net) clients() string { return netip.PrefixFrom(n.address(0), 24).String() }

// Host returns the host of that name, which is made if there is none.
func (n *Net) Host(name string) (*Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.find(name); h != nil {
		return h, nil
	}
	number := len(n.hosts) + 1
	if number > longest {
		return nil, fmt.Errorf("make host %s: there are %d already", name, longest)
	}
	h := &Host{name: name, net: n, addr: n.address(number)}
	if err := h.open(); err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	n.hosts = append(n.hosts, h)
	if err := n.connect(h, fmt.Sprintf("h%d.%d", n.number, number)); err != nil {
		return nil, fmt.Errorf("connect host %s: %w", name, err)
	}
	return h, nil
}

func (n *Net) find(name string) *Host {
	i := slices.IndexFunc(n.hosts, func(h *Host) bool { return h.name == name })
	if i < 0 {
		return nil
	}
	return n.hosts[i]
}

// connect joins the host and the router by a pair of devices. There is no common wire: each
// host has a wire of its own to the router, and reaches all others through that.
func (n *Net) connect(h *Host, device string) error {
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsFd(h.ns)}
	pair.Name = device
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make the pair of devices: %w", err)
	}
	router, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer router.Close()
	if err := set(router, device, n.gateway, h.addr); err != nil {
		return err
	}
	there, err := netlink.NewHandleAt(netns.NsHandle(h.ns), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer there.Close()
	lo, err := there.LinkByName("lo")
	if err == nil {
		err = there.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set up its loopback interface: %w", err)
	}
	if err := set(there, "eth0", h.addr, n.gateway); err != nil {
		return err
	}
	if err := there.RouteAdd(&netlink.Route{Gw: net.IP(n.gateway.AsSlice())}); err != nil {
		return fmt.Errorf("set its default route: %w", err)
	}
	return nil
}

// set gives one end of a wire its address, and a route to the other end.
func set(at *netlink.Handle, device string, own, other netip.Addr) error {
	link, err := at.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find device %s: %w", device, err)
	}
	err = errors.Join(at.AddrAdd(link, &netlink.Addr{IPNet: only(own)}), at.LinkSetUp(link))
	if err != nil {
		return fmt.Errorf("set up device %s: %w", device, err)
	}
	if err := at.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: only(other)}); err != nil {
		return fmt.Errorf("set the route of device %s: %w", device, err)
	}
	return nil
}

// only is the network that has one address.
func only(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: net.IP(a.AsSlice()), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// Close heals all links and removes the hosts. What still runs on one keeps its namespace, without
// a wire.
func (n *Net) Close() error {
	errs := []error{n.HealAll()}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, h := range n.hosts {
		if link, err := netlink.LinkByName(fmt.Sprintf("h%d.%d", n.number, i+1)); err == nil {
			errs = append(errs, netlink.LinkDel(link))
		}
		errs = append(errs, h.close())
	}
	n.hosts = nil
	return errors.Join(errs...)
}
