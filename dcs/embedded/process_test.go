package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/dcstest"
)

// nodeEnv holds the settings of a node that this program is to be.
const nodeEnv = "REGENT_TEST_NODE"

// runAsNode makes this process a node of the store until its stdin ends, if it was started
// for that. Tests use it to have nodes that can be killed and stopped for real.
func runAsNode() bool {
	settings := os.Getenv(nodeEnv)
	if settings == "" {
		return false
	}
	var cfg Config
	err := json.Unmarshal([]byte(settings), &cfg)
	if err == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
		var s *Store
		if s, err = Open(context.Background(), cfg); err == nil {
			_, _ = io.Copy(io.Discard, os.Stdin)
			err = s.Close()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// The store keeps the contract as the command line and nodes without a vote use it, while
// its nodes, which are processes, are killed and stopped, and its clients' links suffer.
func TestConformanceOfProcesses(t *testing.T) {
	slow(t)
	dcstest.Run(t, func(t *testing.T) dcstest.Env {
		p := newProcesses(t, 3)
		env := dcstest.Env{
			Backend: "embedded, as processes", NoElsewhere: noElsewhere,
			Bounds: storeBounds(), ChosenIDs: true, Faults: p,
			Open:  func() (dcs.Store, error) { return p.dial(p.addrs()...) },
			Homes: []int{0, 1, 2, dcstest.AnyServer},
		}
		for _, targets := range [][]string{p.addrs()[0:1], p.addrs()[1:2], p.addrs()[2:3], p.addrs()} {
			env.Stores = append(env.Stores, p.behindProxies(t, targets))
		}
		return env
	})
}

// processes are nodes in processes of their own, and the links of clients to them.
type processes struct {
	nodes []*process
	// observers ask one node each, directly.
	observers []*Client
	// links of each client.
	links [][]*dcstest.Proxy
}

type process struct {
	cfg  Config
	logs *logs
	cmd  *exec.Cmd
	in   io.Closer
}

func newProcesses(t *testing.T, n int) *processes {
	c := &cluster{t: t, net: newWires(), secret: "conformance"}
	p := &processes{}
	for i := range n {
		c.addNode(fmt.Sprintf("pg%02d", i+1))
	}
	c.setPartners()
	t.Cleanup(func() {
		for _, node := range p.nodes {
			if err := node.kill(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Logf("--- %s\n%s", node.cfg.Name, node.logs.buf.String())
			}
		}
	})
	for _, n := range c.nodes {
		node := &process{cfg: n.cfg, logs: n.logs}
		p.nodes = append(p.nodes, node)
		if err := node.start(); err != nil {
			t.Fatal(err)
		}
		observer := p.observe(t, node)
		t.Cleanup(func() { observer.Close() })
		p.observers = append(p.observers, observer)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := p.Leader(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// observe connects to a node as soon as it listens.
func (p *processes) observe(t *testing.T, n *process) (observer *Client) {
	eventually(t, "a node that was started answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var err error
		observer, err = Dial(ctx, ClientConfig{Addrs: []string{n.cfg.SelfAddr}, Secret: n.cfg.Secret})
		return err == nil
	})
	return observer
}

func (n *process) start() error {
	// Only what can be written down goes along; network and clock are the real ones.
	settings, err := json.Marshal(struct {
		Name, Cluster, SelfAddr, DataDir, Secret string
		PartnerAddrs                             []string
	}{string(n.cfg.Name), n.cfg.Cluster, n.cfg.SelfAddr, n.cfg.DataDir, n.cfg.Secret, n.cfg.PartnerAddrs})
	if err != nil {
		return err
	}
	n.cmd = exec.Command("/proc/self/exe")
	n.cmd.Env = append(os.Environ(), nodeEnv+"="+string(settings))
	n.cmd.Stderr = n.logs
	in, err := n.cmd.StdinPipe()
	if err != nil {
		return err
	}
	n.in = in
	return n.cmd.Start()
}

// kill ends the process and waits until it is gone. One that was ended is left alone.
func (n *process) kill() error {
	if n.cmd == nil || n.cmd.Process == nil || n.cmd.ProcessState != nil {
		return nil
	}
	if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	var killed *exec.ExitError
	if err := n.cmd.Wait(); err != nil && !errors.As(err, &killed) {
		return err
	}
	return nil
}

func (n *process) signal(s unix.Signal) error { return n.cmd.Process.Signal(s) }

func (p *processes) addrs() []string {
	var out []string
	for _, n := range p.nodes {
		out = append(out, n.cfg.SelfAddr)
	}
	return out
}

func (p *processes) dial(addrs ...string) (dcs.Store, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return Dial(ctx, ClientConfig{Addrs: addrs, Cluster: "service/test", Secret: p.nodes[0].cfg.Secret})
}

// behindProxies makes a client whose links to the targets can be broken.
func (p *processes) behindProxies(t *testing.T, targets []string) dcs.Store {
	var links []*dcstest.Proxy
	var addrs []string
	for _, target := range targets {
		proxy, err := dcstest.NewProxy(target)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { proxy.Close() })
		links, addrs = append(links, proxy), append(addrs, proxy.Addr())
	}
	store, err := p.dial(addrs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	p.links = append(p.links, links)
	return store
}

func (p *processes) Servers() int { return len(p.nodes) }

// Leader implements dcstest.Faults. A thawed node may still believe that it leads, so the
// newest term counts.
func (p *processes) Leader(ctx context.Context) (int, error) {
	for {
		found, term := -1, uint64(0)
		for i, observer := range p.observers {
			ask, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			all, err := observer.Status(ask)
			cancel()
			if err == nil && all[0].Role == RoleLeader && all[0].Term > term {
				found, term = i, all[0].Term
			}
		}
		if found >= 0 {
			return found, nil
		}
		if !pause(ctx, 10*time.Millisecond) {
			return 0, fmt.Errorf("no leader: %w", ctx.Err())
		}
	}
}

func (p *processes) Lacks(k dcstest.Kind) string {
	switch k {
	case dcstest.IsolateServer:
		return "processes dial each other directly; see the other column of the embedded store"
	case dcstest.Compact:
		return "no command makes another process take a snapshot; see the other column of the embedded store"
	default:
		return ""
	}
}

func (p *processes) Inflict(k dcstest.Kind, target int) (heal func() error, err error) {
	each := func(do func(link *dcstest.Proxy)) error {
		for _, link := range p.links[target] {
			do(link)
		}
		return nil
	}
	switch k {
	case dcstest.KillServer:
		return p.nodes[target].start, p.nodes[target].kill()
	case dcstest.PauseServer:
		return func() error { return p.nodes[target].signal(unix.SIGCONT) }, p.nodes[target].signal(unix.SIGSTOP)
	case dcstest.CutClient:
		return func() error { return each(func(l *dcstest.Proxy) { l.Cut(false) }) },
			each(func(l *dcstest.Proxy) { l.Cut(true) })
	case dcstest.LoseReplies:
		return func() error { return each(func(l *dcstest.Proxy) { l.LoseReplies(false) }) },
			each(func(l *dcstest.Proxy) { l.LoseReplies(true) })
	default:
		return nil, errors.New(p.Lacks(k))
	}
}
