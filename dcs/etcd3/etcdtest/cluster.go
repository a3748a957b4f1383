package etcdtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pgregent/regent/dcs/dcstest"
)

// Options of a cluster.
type Options struct {
	Version Version
	// Servers is how many; one when zero.
	Servers int
	// Flags are added to each server's command line.
	Flags []string
	// TLS: clients must speak TLS by these files, and show a certificate of CA.
	TLS *Files
}

// Files of a server's TLS.
type Files struct{ Cert, Key, CA string }

// Cluster of running servers. It belongs to one test, which ends it.
type Cluster struct {
	tb      testing.TB
	opt     Options
	binary  string
	servers []*Server
	links   *links
}

// Server of a Cluster.
type Server struct {
	name, dir    string
	client, peer string // host:port
	// peerAt is where the others find it: a link that can be cut.
	peerAt string
	opt    Options

	mu  sync.Mutex // guards the rest
	cmd *exec.Cmd
	// gone is closed when the process has ended.
	gone chan struct{}
}

// patience bounds each wait for a server.
const patience = 30 * time.Second

// Start runs a cluster, and waits until it answers.
func Start(tb testing.TB, opt Options) *Cluster {
	tb.Helper()
	opt.Servers = max(1, opt.Servers)
	c := &Cluster{tb: tb, opt: opt, binary: Binary(tb, opt.Version), links: &links{}}
	dir := tb.TempDir() // first, so that the servers have ended when it is removed
	tb.Cleanup(c.stop)
	for i := range opt.Servers {
		s := &Server{name: fmt.Sprint("etcd", i), opt: opt, client: freeAddr(tb), peer: freeAddr(tb)}
		s.dir = filepath.Join(dir, s.name)
		s.peerAt = s.peer
		if opt.Servers > 1 {
			link, err := c.links.listen(c, i)
			if err != nil {
				tb.Fatal(err)
			}
			s.peerAt = link
		}
		c.servers = append(c.servers, s)
	}
	for i := range c.servers {
		if err := c.Run(i); err != nil {
			tb.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if opt.TLS == nil {
		if _, err := c.Leader(ctx); err != nil {
			tb.Fatalf("etcd doesn't come up: %v\n%s", err, c.servers[0].lastWords())
		}
		return c
	}
	for _, s := range c.servers {
		if err := s.listens(ctx); err != nil {
			tb.Fatalf("etcd doesn't come up: %v\n%s", err, s.lastWords())
		}
	}
	return c
}

func freeAddr(tb testing.TB) string {
	tb.Helper()
	port, err := dcstest.FreePort()
	if err != nil {
		tb.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// Addr is where a server serves clients, host:port.
func (c *Cluster) Addr(i int) string { return c.servers[i].client }

// URLs of all servers for clients.
func (c *Cluster) URLs() []string {
	scheme := "http://"
	if c.opt.TLS != nil {
		scheme = "https://"
	}
	var out []string
	for _, s := range c.servers {
		out = append(out, scheme+s.client)
	}
	return out
}

// Run starts a server that is down, on its old disk.
func (c *Cluster) Run(i int) error {
	s := c.servers[i]
	var members []string
	for _, m := range c.servers {
		members = append(members, m.name+"=http://"+m.peerAt)
	}
	scheme := "http://"
	if s.opt.TLS != nil {
		scheme = "https://"
	}
	args := []string{
		"--name", s.name, "--data-dir", s.dir, "--initial-cluster", strings.Join(members, ","),
		"--listen-client-urls", scheme + s.client, "--advertise-client-urls", scheme + s.client,
		"--listen-peer-urls", "http://" + s.peer, "--initial-advertise-peer-urls", "http://" + s.peerAt,
		"--heartbeat-interval", "50", "--election-timeout", "500", "--log-level", "warn", "--logger", "zap",
	}
	if s.opt.TLS != nil {
		args = append(args, "--cert-file", s.opt.TLS.Cert, "--key-file", s.opt.TLS.Key,
			"--trusted-ca-file", s.opt.TLS.CA, "--client-cert-auth")
	}
	args = append(args, s.opt.Flags...)
	log, err := os.OpenFile(s.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(c.binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = filepath.Dir(s.dir)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	// A test that is killed leaves no server behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	gone := make(chan struct{})
	go func() { defer close(gone); _ = cmd.Wait(); _ = log.Close() }()
	s.mu.Lock()
	s.cmd, s.gone = cmd, gone
	s.mu.Unlock()
	return nil
}

// Kill ends a server at once, and waits for its end.
func (c *Cluster) Kill(i int) {
	s := c.servers[i]
	s.mu.Lock()
	cmd, gone := s.cmd, s.gone
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill() // it may be gone
	<-gone
}

// Signal a server, for SIGSTOP and SIGCONT.
func (c *Cluster) Signal(i int, sig syscall.Signal) error {
	s := c.servers[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Signal(sig)
}

// Isolate cuts a server off from the others, until heal is called.
func (c *Cluster) Isolate(i int) (heal func()) { return c.links.isolate(i) }

func (c *Cluster) pid(i int) int {
	s := c.servers[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

func (c *Cluster) stop() {
	for i := range c.servers {
		c.Kill(i)
	}
	c.links.close()
	if c.tb.Failed() {
		for _, s := range c.servers {
			c.tb.Logf("%s said:\n%s", s.name, s.lastWords())
		}
	}
}

// lastWords are the end of a server's log.
func (s *Server) lastWords() []byte {
	b, err := os.ReadFile(s.dir + ".log")
	if err != nil {
		return []byte(err.Error())
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-12):], []byte("\n"))
}

func (s *Server) listens(ctx context.Context) error {
	for {
		conn, err := net.Dial("tcp", s.client)
		if err == nil {
			return conn.Close()
		}
		if !pause(ctx) {
			return err
		}
	}
}

func pause(ctx context.Context) bool {
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Leader waits until a server leads, by its own word, with a majority that says the same.
func (c *Cluster) Leader(ctx context.Context) (int, error) {
	for {
		says := map[uint64]int{}
		ids := map[uint64]int{}
		for i := range c.servers {
			st, err := c.status(ctx, i)
			if err == nil && st.Leader != 0 {
				says[st.Leader]++
				ids[st.Header.MemberId] = i
			}
		}
		for id, n := range says {
			if i, ok := ids[id]; ok && n > len(c.servers)/2 {
				return i, nil
			}
		}
		if !pause(ctx) {
			return 0, fmt.Errorf("no leader: %w", ctx.Err())
		}
	}
}

func (c *Cluster) status(ctx context.Context, i int) (st *pb.StatusResponse, err error) {
	err = c.Use(ctx, i, func(ctx context.Context, conn *grpc.ClientConn) error {
		st, err = pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
		return err
	})
	return st, err
}

// Use gives a connection to a server, in plain text and without login, for a moment.
func (c *Cluster) Use(ctx context.Context, i int, do func(context.Context, *grpc.ClientConn) error) error {
	conn, err := grpc.NewClient("passthrough:///"+c.servers[i].client,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return errors.Join(do(ctx, conn), conn.Close())
}

// Compact makes etcd forget its past, on all servers that are up.
func (c *Cluster) Compact(ctx context.Context) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	return c.Use(ctx, leader, func(ctx context.Context, conn *grpc.ClientConn) error {
		kv := pb.NewKVClient(conn)
		r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("x"), CountOnly: true})
		if err != nil {
			return err
		}
		_, err = kv.Compact(ctx, &pb.CompactionRequest{Revision: r.Header.Revision, Physical: true})
		if err != nil && strings.Contains(err.Error(), "compacted") {
			return nil
		}
		return err
	})
}

// MoveLeader makes another server lead.
func (c *Cluster) MoveLeader(ctx context.Context) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	st, err := c.status(ctx, (leader+1)%len(c.servers))
	if err != nil {
		return err
	}
	return c.Use(ctx, leader, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := pb.NewMaintenanceClient(conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: st.Header.MemberId})
		return err
	})
}
