package consul

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
)

// mesh carries what servers say to each other, and can cut one off from the others. Each
// server binds to an address of its own and tells the others another one, where the mesh
// listens on the same ports; who is calling shows by the caller's address.
type mesh struct {
	run     sync.WaitGroup
	closers []io.Closer

	mu       sync.Mutex // guards the rest
	isolated map[string]bool
	conns    map[*carried]struct{}
}

// carried is a connection from one server to another.
type carried struct {
	from, to string
	ends     [2]net.Conn
}

func newMesh(t *testing.T) *mesh {
	m := &mesh{isolated: map[string]bool{}, conns: map[*carried]struct{}{}}
	t.Cleanup(m.close)
	return m
}

// bound and told are a server's two addresses.
func bound(i int) string { return fmt.Sprintf("127.77.1.%d", i+1) }
func told(i int) string  { return fmt.Sprintf("127.77.2.%d", i+1) }

// carry listens for server i, on streams at all the ports and for packets at one.
func (m *mesh) carry(i int, packets int, ports ...int) error {
	for _, port := range ports {
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", told(i), port))
		if err != nil {
			return err
		}
		m.closers = append(m.closers, l)
		m.run.Go(func() { m.accept(l, bound(i), port) })
	}
	addr, err := net.ResolveUDPAddr("udp", fmt.Sprintf("%s:%d", told(i), packets))
	if err != nil {
		return err
	}
	in, err := net.ListenUDP("udp", addr)
	if err != nil {
		return err
	}
	m.closers = append(m.closers, in)
	m.run.Go(func() { m.forward(in, bound(i), packets) })
	return nil
}

func (m *mesh) accept(l net.Listener, to string, port int) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed
		}
		m.run.Go(func() { m.stream(conn, to, port) })
	}
}

func (m *mesh) stream(conn net.Conn, to string, port int) {
	defer conn.Close()
	from := hostOf(conn.RemoteAddr())
	other, err := net.Dial("tcp", net.JoinHostPort(to, strconv.Itoa(port)))
	if err != nil {
		return
	}
	defer other.Close()
	c := &carried{from: from, to: to, ends: [2]net.Conn{conn, other}}
	m.mu.Lock()
	cut := m.isolated[from] || m.isolated[to]
	if !cut {
		m.conns[c] = struct{}{}
	}
	m.mu.Unlock()
	if cut {
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(conn, other)
		_ = conn.Close()
	}()
	_, _ = io.Copy(other, conn)
	_ = other.Close()
	<-back
	m.mu.Lock()
	delete(m.conns, c)
	m.mu.Unlock()
}

// forward passes packets on. Answers go where the packet says, not where it came from.
func (m *mesh) forward(in *net.UDPConn, to string, port int) {
	target := &net.UDPAddr{IP: net.ParseIP(to), Port: port}
	packet := make([]byte, 65536)
	for {
		n, from, err := in.ReadFromUDP(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an answer of ICMP
		}
		m.mu.Lock()
		cut := m.isolated[from.IP.String()] || m.isolated[to]
		m.mu.Unlock()
		if !cut {
			_, _ = in.WriteToUDP(packet[:n], target)
		}
	}
}

func (m *mesh) isolate(i int, off bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.isolated[bound(i)] = off
	for c := range m.conns {
		if off && (c.from == bound(i) || c.to == bound(i)) {
			c.hangUp()
		}
	}
}

func (c *carried) hangUp() {
	for _, end := range c.ends {
		_ = end.Close()
	}
}

func (m *mesh) close() {
	for _, c := range m.closers {
		_ = c.Close()
	}
	m.mu.Lock()
	for c := range m.conns {
		c.hangUp()
	}
	m.mu.Unlock()
	m.run.Wait()
}

func hostOf(addr net.Addr) string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return ""
	}
	return host
}
