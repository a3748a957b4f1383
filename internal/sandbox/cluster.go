package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Options of a cluster. Zero values mean the defaults.
type Options struct {
	// Dir is the cluster's folder, which is made. Its path must be short: sockets lie in it.
	Dir string
	// Bin holds regent and regent-keeper, PGBin PostgreSQL's programs. Both are needed.
	Bin, PGBin string
	// Patroni is the path of Patroni's program, for nodes that run it (Node.RunAs). The
	// configurations then also say what Patronis of one host would otherwise share.
	Patroni string
	// Scope is the cluster's name; "demo" by default.
	Scope string
	// Nodes is how many; 3 by default.
	Nodes int
	// Store is the section of the configurations that names a store outside of the agents, as
	// YAML; empty: the embedded one.
	Store string
	// StoreOf, when set, is Store for each node, by its number from 0.
	StoreOf func(node int) string
	// Hosts, when set, gives the machine that a node runs on, by its name; otherwise all run here.
	Hosts func(name string) (Machine, error)
	// Disks, when set, gives the folder in which a node keeps what belongs on a disk of its own, by
	// the node's name; empty: where it lies otherwise.
	Disks func(name string, d Disk) string
	// TTL, LoopWait and RetryTimeout: 2 s, 1 s and 1 s by default.
	TTL, LoopWait, RetryTimeout time.Duration
	// Sync: synchronous mode is on from the start.
	Sync bool
	// RestartAfter is how long after its end an agent is started again; 1 s by default.
	RestartAfter time.Duration
	// Keep leaves the folder in place at the end.
	Keep bool
}

func (o Options) withDefaults() Options {
	if o.Scope == "" {
		o.Scope = "demo"
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.TTL == 0 {
		o.TTL, o.LoopWait, o.RetryTimeout = 2*time.Second, time.Second, time.Second
	}
	if o.RestartAfter == 0 {
		o.RestartAfter = time.Second
	}
	return o
}

// Cluster is one throwaway cluster. New makes its folders, Node.PowerOn starts what runs in
// them, Close ends it all. Its methods may be called from several goroutines, Close once.
type Cluster struct {
	opt    Options
	secret string
	nodes  []*Node
	ports  ports

	// closing ends the nodes' supervision; work counts it.
	closing context.Context
	close   context.CancelFunc
	work    sync.WaitGroup
}

// New makes the folders and configurations of a cluster. Nothing runs yet.
func New(o Options) (*Cluster, error) {
	o = o.withDefaults()
	if err := os.Mkdir(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cluster's folder: %w", err)
	}
	real, err := filepath.EvalSymlinks(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("make the cluster's folder: %w", err)
	}
	o.Dir = real // as the kernel names working directories
	c := &Cluster{opt: o, secret: strings.ToLower(rand.Text())}
	c.closing, c.close = context.WithCancel(context.Background())
	if err := c.lay(); err != nil {
		return nil, errors.Join(fmt.Errorf("lay out the cluster: %w", err), c.Close())
	}
	return c, nil
}

// lay makes the nodes, then their configurations, which name each other's ports.
func (c *Cluster) lay() error {
	for i := range c.opt.Nodes {
		n := &Node{c: c, name: fmt.Sprintf("n%d", i+1), program: Regent}
		n.dir = filepath.Join(c.opt.Dir, n.name)
		c.nodes = append(c.nodes, n)
		if err := n.settle(i); err != nil {
			return err
		}
		for _, port := range []*int{&n.port, &n.restPort, &n.raftPort} {
			var err error
			if *port, err = c.ports.take(); err != nil {
				return err
			}
		}
	}
	for _, n := range c.nodes {
		if err := errors.Join(os.Mkdir(n.dir, 0o700), os.Mkdir(filepath.Join(n.dir, "run"), 0o700)); err != nil {
			return fmt.Errorf("make node %s: %w", n.name, err)
		}
		if err := os.WriteFile(n.ConfigFile(), []byte(n.configuration(n.store, "")), 0o600); err != nil {
			return fmt.Errorf("make node %s: %w", n.name, err)
		}
	}
	return nil
}

// Nodes returns the nodes in the order of their names.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Node returns the node of that name, nil if there is none.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// Dir returns the cluster's folder.
func (c *Cluster) Dir() string { return c.opt.Dir }

// TTL returns the lease's length.
func (c *Cluster) TTL() time.Duration { return c.opt.TTL }

// Synchronous reports whether synchronous mode is on from the start.
func (c *Cluster) Synchronous() bool { return c.opt.Sync }

// DSN names all members and finds the one that takes writes, with libpq and with pgx.
func (c *Cluster) DSN() string {
	hosts := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		hosts[i] = at(n.machine, n.port)
	}
	return c.dsn(strings.Join(hosts, ",")) + "&target_session_attrs=read-write"
}

// DSNAt leads to whatever listens at an address, host:port, in front of the members.
func (c *Cluster) DSNAt(addr string) string { return c.dsn(addr) }

func (c *Cluster) dsn(hosts string) string {
	return fmt.Sprintf("postgres://postgres:%s@%s/postgres?sslmode=disable&connect_timeout=2", c.secret, hosts)
}

// PortNames maps each node's PostgreSQL port to its name.
func (c *Cluster) PortNames() map[int]string {
	names := map[int]string{}
	for _, n := range c.nodes {
		names[n.port] = n.name
	}
	return names
}

// PowerOn starts all nodes.
func (c *Cluster) PowerOn() error {
	var errs []error
	for _, n := range c.nodes {
		errs = append(errs, n.PowerOn())
	}
	return errors.Join(errs...)
}

// StopAll ends all agents as an operator would, one after the other with the primary last,
// so that each has written its journal to the end. Nodes whose agents don't end until ctx
// does are left to Close.
func (c *Cluster) StopAll(ctx context.Context) error {
	var errs []error
	primary, _ := c.Primary(ctx) // no primary: any order will do
	for _, n := range c.nodes {
		if n != primary {
			errs = append(errs, n.StopAgent(ctx))
		}
	}
	if primary != nil {
		errs = append(errs, primary.StopAgent(ctx))
	}
	return errors.Join(errs...)
}

// endTimeout bounds how long killed processes may take to disappear.
const endTimeout = 15 * time.Second

// Close ends everything that runs in the cluster's folder, at once and without asking, and
// removes the folder unless it is to be kept.
func (c *Cluster) Close() error {
	c.close()
	for _, n := range c.nodes {
		n.PowerOff()
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	err := killAll(ctx, func() []process { return processesOf(c.opt.Dir, c.programs()) })
	c.work.Wait()
	freeSharedMemory(c.opt.Dir)
	errs := []error{err, c.ports.release()}
	if !c.opt.Keep {
		if err := os.RemoveAll(c.opt.Dir); err != nil {
			errs = append(errs, fmt.Errorf("remove the cluster's folder: %w", err))
		}
	}
	return errors.Join(errs...)
}

// KeepFolder makes Close leave the folder in place, for somebody to look at.
func (c *Cluster) KeepFolder() { c.opt.Keep = true }

// programs are the folders of what runs in a cluster.
func (c *Cluster) programs() []string { return []string{c.opt.Bin, c.opt.PGBin} }
