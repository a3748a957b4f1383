package etcdtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// links stand between the servers of a cluster, one in front of each server's peer port.
// Which server a connection comes from shows in /proc: whose socket it is.
type links struct {
	cluster *Cluster
	run     sync.WaitGroup

	mu        sync.Mutex // guards the rest
	listeners []net.Listener
	off       map[int]int
	conns     map[net.Conn][2]int // from, to
	done      bool
}

// listen begins a link to a server and returns its address.
func (l *links) listen(c *Cluster, to int) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.off == nil {
		l.cluster, l.off, l.conns = c, map[int]int{}, map[net.Conn][2]int{}
	}
	l.listeners = append(l.listeners, listener)
	l.run.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			l.run.Go(func() { l.serve(conn, to) })
		}
	})
	return listener.Addr().String(), nil
}

// isolate cuts all links of a server, both ways.
func (l *links) isolate(i int) (heal func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.off[i]++
	for conn, ends := range l.conns {
		if ends[0] == i || ends[1] == i {
			_ = conn.Close()
		}
	}
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.off[i]--
	})
}

func (l *links) serve(in net.Conn, to int) {
	defer in.Close()
	from, err := l.whose(in)
	if err != nil {
		return // nobody of ours
	}
	ends := [2]int{from, to}
	if !l.track(in, ends) {
		return
	}
	defer l.forget(in)
	out, err := net.Dial("tcp", l.cluster.servers[to].peer)
	if err != nil {
		return
	}
	defer out.Close()
	if !l.track(out, ends) {
		return
	}
	defer l.forget(out)
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(in, out)
		_ = in.Close()
	}()
	_, _ = io.Copy(out, in)
	_ = out.Close()
	<-back
}

func (l *links) track(conn net.Conn, ends [2]int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done || l.off[ends[0]] > 0 || l.off[ends[1]] > 0 {
		return false
	}
	l.conns[conn] = ends
	return true
}

func (l *links) forget(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}

func (l *links) close() {
	l.mu.Lock()
	l.done = true
	for _, listener := range l.listeners {
		_ = listener.Close()
	}
	for conn := range l.conns {
		_ = conn.Close()
	}
	l.mu.Unlock()
	l.run.Wait()
}

// whose is the server whose process has the other end of a connection.
func (l *links) whose(conn net.Conn) (int, error) {
	far, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("not a TCP connection")
	}
	inode, err := inodeOf(far)
	if err != nil {
		return 0, err
	}
	want := "socket:[" + inode + "]"
	for i := range l.cluster.servers {
		dir := fmt.Sprintf("/proc/%d/fd", l.cluster.pid(i))
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // it is down
		}
		for _, e := range entries {
			if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && target == want {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("nobody has socket %s", inode)
}

// inodeOf finds a socket by its own address in /proc/net/tcp.
func inodeOf(addr *net.TCPAddr) (string, error) {
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	ip := addr.IP.To4()
	local := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], addr.Port)
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 9 && f[1] == local {
			return f[9], nil
		}
	}
	return "", fmt.Errorf("no socket of %s", addr)
}
