package hosts

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forwarder is a bad wire: what the router sends into its one end is read at the other, held
// back or lost, and sent back through the same pair of devices, as if it came from elsewhere.
type forwarder struct {
	quality Quality
	out     string   // the router's end
	end     *os.File // sees and sends the frames of the other end
	rule    *netlink.Rule
	route   *netlink.Route
	queue   chan frame
	work    sync.WaitGroup
	// lost and sent count packets.
	lost, sent atomic.Int64
}

type frame struct {
	due  time.Time
	data []byte
}

const (
	// longestQueue is how many packets are on their way at most; more are lost.
	longestQueue = 8192
	// longestFrame is more than the device's.
	longestFrame = 2048
)

func newForwarder(q Quality, number int) (*forwarder, error) {
	if q.Rand == nil {
		q.Rand = rand.New(rand.NewPCG(uint64(number), 0))
	}
	f := &forwarder{quality: q, out: fmt.Sprintf("slow%d", number), queue: make(chan frame, longestQueue)}
	if err := f.open("end"+f.out[4:], firstTable+number); err != nil {
		return nil, fmt.Errorf("make a slow link: %w", errors.Join(err, f.close()))
	}
	f.work.Go(f.read)
	f.work.Go(f.send)
	return f, nil
}

func (f *forwarder) open(end string, table int) error {
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: end}
	pair.Name = f.out
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make the pair of devices: %w", err)
	}
	out, err := netlink.LinkByName(f.out)
	if err != nil {
		return err
	}
	other, err := netlink.LinkByName(end)
	if err != nil {
		return err
	}
	// Nobody answers at the other end, and what is read there must be whole packets.
	if err := errors.Join(netlink.LinkSetARPOff(out), asOnAWire(f.out), netlink.LinkSetUp(out), netlink.LinkSetUp(other)); err != nil {
		return fmt.Errorf("set up the devices: %w", err)
	}
	if f.end, err = tap(other.Attrs().Index); err != nil {
		return fmt.Errorf("read the device: %w", err)
	}
	f.route = &netlink.Route{LinkIndex: out.Attrs().Index, Scope: netlink.SCOPE_LINK, Table: table, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}}
	if err := netlink.RouteAdd(f.route); err != nil {
		return fmt.Errorf("route into the slow link: %w", err)
	}
	rule := netlink.NewRule()
	rule.Family, rule.Priority, rule.IifName, rule.Table = unix.AF_INET, preferOut, f.out, unix.RT_TABLE_MAIN
	if err := netlink.RuleAdd(rule); err != nil {
		return fmt.Errorf("route out of the slow link: %w", err)
	}
	f.rule = rule
	return nil
}

// read takes what the router sends, and puts down when each packet is due.
func (f *forwarder) read() {
	defer close(f.queue)
	buffer := make([]byte, longestFrame)
	var last time.Time
	for {
		n, err := f.end.Read(buffer)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if f.quality.Rand.Float64() < f.quality.Loss {
			f.lost.Add(1)
			continue
		}
		due := time.Now().Add(f.quality.Delay)
		if f.quality.Jitter > 0 {
			due = due.Add(time.Duration(f.quality.Rand.Int64N(int64(2*f.quality.Jitter))) - f.quality.Jitter)
		}
		if due.Before(last) {
			due = last
		}
		last = due
		select {
		case f.queue <- frame{due, append([]byte(nil), buffer[:n]...)}:
		default: // the queue is full
			f.lost.Add(1)
		}
	}
}

// send puts the packets back when they are due.
func (f *forwarder) send() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for p := range f.queue {
		if wait := time.Until(p.due); wait > 0 {
			timer.Reset(wait)
			<-timer.C
		}
		if _, err := f.end.Write(p.data); err != nil { // the link is being healed
			f.lost.Add(1)
			continue
		}
		f.sent.Add(1)
	}
}

func (f *forwarder) close() error {
	var errs []error
	if f.end != nil {
		errs = append(errs, f.end.Close())
	}
	f.work.Wait()
	if f.rule != nil {
		errs = append(errs, netlink.RuleDel(f.rule))
	}
	if out, err := netlink.LinkByName(f.out); err == nil {
		errs = append(errs, netlink.LinkDel(out)) // its routes go with it
	}
	return errors.Join(errs...)
}

// tap opens a socket that sees the IPv4 frames that a device receives, and sends some through it.
func tap(device int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	// Its own frames aren't for it.
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		if err != nil { // only who owns the machine may; the usual buffer holds 200 KB
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20)
		}
	}
	if err == nil {
		const ipv4 = unix.ETH_P_IP<<8&0xff00 | unix.ETH_P_IP>>8 // in network order
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: device})
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "tap"), nil
}

// asOnAWire has the kernel compute checksums and cut packets to size before they get to the device.
func asOnAWire(device string) error {
	const setTxChecksums = 0x17 // ETHTOOL_STXCSUM, which ends segmentation by the device, too
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	value := struct{ cmd, data uint32 }{cmd: setTxChecksums}
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:], device)
	request.data = unsafe.Pointer(&value)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		err = errno
	}
	return errors.Join(err, unix.Close(fd))
}
