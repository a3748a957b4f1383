package live

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/hosts"
)

// lacks is why a row that needs something can't be replayed here.
func (l *lab) lacks(n Need) error {
	switch {
	case n == Cables && l.site == nil:
		return fmt.Errorf("it needs hosts with cables of their own: %w", errNoHosts)
	case n == SmallDisks && l.site == nil:
		return fmt.Errorf("it needs small disks of their own under pg_wal: %w", errNoHosts)
	}
	return nil
}

// errNoHosts is why there are none.
var errNoHosts = errors.New("this user may not have namespaces here")

// hostVerbs are done to hosts, to their cables and disks, and to the store's servers.
func hostVerbs() []Verb {
	on := []Kind{Do}
	return []Verb{
		{Kinds: on, Form: "cut NODE from STORE", Needs: Cables, do: cut,
			Doc: "From now on nothing passes between them, in either direction. Open connections stay open, and silent."},
		{Kinds: on, Form: "cut what NODE sends to NODE", Needs: Cables, Doc: "One way only: what the second sends to the first arrives.",
			do: func(_ context.Context, r *run, a []string) error {
				from, to, err := r.two(a[0], a[1])
				if err != nil {
					return err
				}
				return r.link(from, func(s *hosts.Site) (*hosts.Link, error) {
					return s.Cut(hosts.Partition{Hosts: []string{from.Name()}, Others: []string{to.Name()}, Way: hosts.Out})
				})
			}},
		{Kinds: on, Form: "slow NODE to the store by SPAN losing COUNT percent", Needs: Cables, do: slow,
			Doc: "Every packet between them takes that much longer, and that many of a hundred are lost."},
		{Kinds: on, Form: "heal NODE", Needs: Cables, do: heal, Doc: "Undoes what was done to the cables of that member."},
		{Kinds: on, Form: "fill the disk under pg_wal of NODE", Needs: SmallDisks, Doc: "From now on there is no room for more WAL.", do: disk((*hosts.Site).Fill)},
		{Kinds: on, Form: "free the disk under pg_wal of NODE", Needs: SmallDisks, Doc: "The opposite.", do: disk((*hosts.Site).Free)},
		{Kinds: on, Form: "stop the store", Doc: "All servers of the store stand still; with the embedded store, the agents of both replicas are killed.",
			do: func(ctx context.Context, r *run, _ []string) error { return r.storeFaults().stop(ctx) }},
		{Kinds: on, Form: "start the store", Doc: "The opposite.",
			do: func(ctx context.Context, r *run, _ []string) error { return r.storeFaults().run(ctx) }},
		{Kinds: on, Form: "move the leader of the store", Needs: Servers,
			Doc: "Another of three servers leads, at once; with the embedded store, the agent that leads raft is killed, and started again.",
			do:  func(ctx context.Context, r *run, _ []string) error { return r.storeFaults().moveLeader(ctx) }},
		{Kinds: on, Form: "lose a SHARE of the store", Needs: Servers,
			Doc: "Kills one or two of three servers, those that the replicas' agents ask first; with the embedded store these agents themselves.",
			do:  func(ctx context.Context, r *run, a []string) error { return r.storeFaults().lose(ctx, a[0]) }},
		{Kinds: on, Form: "restore the store", Needs: Servers, Doc: "Starts them again.",
			do: func(ctx context.Context, r *run, _ []string) error { return r.storeFaults().restore(ctx) }},
	}
}

// link changes a cable, and remembers whose it is.
func (r *run) link(n *sandbox.Node, change func(*hosts.Site) (*hosts.Link, error)) error {
	if r.lab.site == nil {
		return errNoHosts
	}
	l, err := change(r.lab.site)
	if err == nil {
		r.lab.links[n.Name()] = append(r.lab.links[n.Name()], l)
	}
	return err
}

func cut(_ context.Context, r *run, a []string) error {
	traffic := map[string]hosts.Traffic{"store": hosts.Store, "peers": hosts.Peers, "everything": hosts.All}[a[1]]
	return r.at(a[0], func(n *sandbox.Node) error {
		return r.link(n, func(s *hosts.Site) (*hosts.Link, error) {
			return s.Cut(hosts.Partition{Hosts: []string{n.Name()}, Traffic: traffic})
		})
	})
}

func slow(_ context.Context, r *run, a []string) error {
	span, err := parseSpan(a[1])
	if err != nil {
		return err
	}
	q := hosts.Quality{Delay: span.Of(r.lab.cluster.TTL()), Loss: float64(count(a[2])) / 100}
	return r.at(a[0], func(n *sandbox.Node) error {
		return r.link(n, func(s *hosts.Site) (*hosts.Link, error) {
			return s.Slow(hosts.Partition{Hosts: []string{n.Name()}, Traffic: hosts.Store}, q)
		})
	})
}

func heal(_ context.Context, r *run, a []string) error {
	return r.at(a[0], func(n *sandbox.Node) error {
		links := r.lab.links[n.Name()]
		if len(links) == 0 {
			return fmt.Errorf("the cables of %s are whole", n.Name())
		}
		var errs []error
		for _, l := range links {
			errs = append(errs, l.Heal())
		}
		delete(r.lab.links, n.Name())
		return errors.Join(errs...)
	})
}

func disk(do func(*hosts.Site, string, sandbox.Disk) error) func(context.Context, *run, []string) error {
	return func(_ context.Context, r *run, a []string) error {
		return r.at(a[0], func(n *sandbox.Node) error {
			if r.lab.site == nil {
				return errNoHosts
			}
			return do(r.lab.site, n.Name(), sandbox.WALDisk)
		})
	}
}
