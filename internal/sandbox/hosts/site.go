package hosts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/pgregent/regent/internal/sandbox"
)

// Options of a site. Zero values mean the defaults.
type Options struct {
	// Dir is the site's folder, which is made. Its path must be short: sockets lie in it.
	Dir string
	// Cluster are the cluster's options. Dir, Store, StoreOf, Hosts and Disks are the site's business.
	Cluster sandbox.Options
	// Store is where the agents keep their state; in themselves by default. Program is the path of
	// its server, Members how many of them run, each on a host; 1 by default.
	Store   sandbox.StoreKind
	Program string
	Members int
	// Disks are small file systems of their own on each node.
	Disks []sandbox.Disk
}

// Site is a cluster, and the servers of its store, on hosts: n1, n2, …, s1, s2, …
// Its methods may be called from several goroutines, Close once.
type Site struct {
	Net     *Net
	Cluster *sandbox.Cluster
	// Stores is nil when the agents are their own store.
	Stores *sandbox.Stores

	dir   string
	keep  bool
	disks map[diskOf]*disk
}

// Raise makes the hosts and the cluster's folders, and starts the store; Cluster.PowerOn starts
// the rest. The program must be Inside.
func Raise(ctx context.Context, o Options) (_ *Site, err error) {
	s := &Site{dir: o.Dir, keep: o.Cluster.Keep, disks: map[diskOf]*disk{}}
	if s.Net, err = NewNet(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the site's folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.dir, err = filepath.EvalSymlinks(o.Dir); err != nil {
		return nil, fmt.Errorf("make the site's folder: %w", err)
	}
	c := o.Cluster
	c.Dir, c.Store, c.StoreOf, c.Disks, c.Hosts = filepath.Join(s.dir, "c"), "", nil, nil, s.machine
	if o.Store != "" && o.Store != sandbox.RaftStore {
		s.Stores, err = sandbox.StartStores(ctx, sandbox.StoreOptions{
			Kind: o.Store, Program: o.Program, Dir: filepath.Join(s.dir, "s"), Members: o.Members, Hosts: s.machine,
		})
		if err != nil {
			return nil, err
		}
		c.StoreOf = s.Stores.SectionOf
	}
	c.Disks = func(node string, d sandbox.Disk) string {
		if !slices.Contains(o.Disks, d) {
			return ""
		}
		return filepath.Join(mountPoint(c.Dir, node, d), "d")
	}
	if s.Cluster, err = sandbox.New(c); err != nil {
		return nil, err
	}
	for _, n := range s.Cluster.Nodes() {
		for _, d := range o.Disks {
			if err := s.mount(n.Name(), d); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

func (s *Site) machine(name string) (sandbox.Machine, error) { return s.Net.Host(name) }

// Host returns the host of that name, nil if there is none.
func (s *Site) Host(name string) *Host {
	s.Net.mu.Lock()
	defer s.Net.mu.Unlock()
	return s.Net.find(name)
}

// Names are those of all hosts: the nodes, then the store's servers.
func (s *Site) Names() []string {
	var names []string
	for _, n := range s.Cluster.Nodes() {
		names = append(names, n.Name())
	}
	if s.Stores != nil {
		for _, m := range s.Stores.Members {
			names = append(names, m.Name())
		}
	}
	return names
}

// KeepFolder makes Close leave the folder in place, for somebody to look at. What lies on small
// disks goes with them.
func (s *Site) KeepFolder() {
	s.keep = true
	s.Cluster.KeepFolder()
}

// Close ends everything that runs on the hosts, and removes them and the folder, unless that is to
// be kept.
func (s *Site) Close() error {
	var errs []error
	if s.Cluster != nil {
		for _, n := range s.Cluster.Nodes() {
			errs = append(errs, n.KillNode()) // disks can be removed only when nobody works on them
		}
	}
	for _, d := range s.disks {
		errs = append(errs, d.unmount())
	}
	if s.Cluster != nil {
		errs = append(errs, s.Cluster.Close())
	}
	if s.Stores != nil {
		errs = append(errs, s.Stores.Close())
	}
	errs = append(errs, s.Net.Close())
	if !s.keep {
		if err := os.RemoveAll(s.dir); err != nil {
			errs = append(errs, fmt.Errorf("remove the site's folder: %w", err))
		}
	}
	return errors.Join(errs...)
}
