package live

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// Hosts is the layer below, in which every node is a host with a cable of its own. What it takes
// is the words of the vocabulary, with members by their names.
type Hosts interface {
	// Cut drops what goes between the member and the store, its peers, or everything, both ways.
	Cut(ctx context.Context, member, from string) error
	// CutOneWay drops what one member sends to another; what comes back still arrives.
	CutOneWay(ctx context.Context, from, to string) error
	// Slow delays what goes between the member and the store, and loses that many of a hundred.
	Slow(ctx context.Context, member string, delay time.Duration, percent int) error
	// Heal mends all cables of the member.
	Heal(ctx context.Context, member string) error
}

// Disks are small ones under a folder of each member.
type Disks interface {
	// Fill leaves no room on the disk under pg_wal, Free gives it back.
	Fill(ctx context.Context, member string) error
	Free(ctx context.Context, member string) error
}

// StoreFaults is what can be done to a store's servers, or to the voters of the embedded one.
type StoreFaults interface {
	// Stop has all servers stand still, Go lets them run on.
	Stop(ctx context.Context) error
	Go(ctx context.Context) error
	// MoveLeader has another server lead.
	MoveLeader(ctx context.Context) error
	// Lose kills a minority or a majority of the servers, Restore starts them again.
	Lose(ctx context.Context, share string) error
	Restore(ctx context.Context) error
}

// errNoHosts is why a row fails that needs cables.
var errNoHosts = errors.New("this needs hosts with cables of their own, and the cluster was made without")

// errNoServers is why a row fails that needs a store's servers.
var errNoServers = errors.New("this needs several servers of the store that can be told apart, and the cluster was made without")

// errNoDisks is why a row fails that needs small disks.
var errNoDisks = errors.New("this needs small disks of their own under pg_wal, and the cluster was made without")

// hostVerbs need the layer of hosts.
func hostVerbs() []Verb {
	on := []Kind{Do}
	return []Verb{
		{Kinds: on, Form: "cut NODE from STORE", Needs: Cables, Doc: "From now on nothing passes between them, in either direction.",
			do: cable(func(ctx context.Context, h Hosts, member string, a []string) error { return h.Cut(ctx, member, a[1]) })},
		{Kinds: on, Form: "slow NODE to the store by SPAN losing COUNT percent", Needs: Cables, Doc: "Every packet takes that much longer, and some are lost.",
			do: cable(func(ctx context.Context, h Hosts, member string, a []string) error {
				span, _ := parseSpan(a[1]) // it was checked when it was read
				return h.Slow(ctx, member, span.Fixed, count(a[2]))
			})},
		{Kinds: on, Form: "heal NODE", Needs: Cables, Doc: "All cables of that member are whole again.",
			do: cable(func(ctx context.Context, h Hosts, member string, _ []string) error { return h.Heal(ctx, member) })},
		{Kinds: on, Form: "cut what NODE sends to NODE", Needs: Cables, Doc: "One way only: what the second sends to the first arrives.",
			do: func(ctx context.Context, r *run, a []string) error {
				from, to, err := r.two(a[0], a[1])
				switch {
				case err != nil:
					return err
				case r.lab.hosts == nil:
					return errNoHosts
				}
				return r.lab.hosts.CutOneWay(ctx, from.Name(), to.Name())
			}},
		{Kinds: on, Form: "stop the store", do: servers(StoreFaults.Stop),
			Doc: "All servers of the store stand still; with the embedded store, the agents of both replicas are killed, which leaves no majority."},
		{Kinds: on, Form: "start the store", do: servers(StoreFaults.Go), Doc: "The opposite."},
		{Kinds: on, Form: "move the leader of the store", do: servers(StoreFaults.MoveLeader), Doc: "Another server of the store leads, at once."},
		{Kinds: on, Form: "lose a SHARE of the store", Needs: Servers, Doc: "Kills that many of the store's servers.",
			do: func(ctx context.Context, r *run, a []string) error {
				return servers(func(s StoreFaults, ctx context.Context) error { return s.Lose(ctx, a[0]) })(ctx, r, nil)
			}},
		{Kinds: on, Form: "fill the disk under pg_wal of NODE", Needs: SmallDisks, Doc: "From now on there is no room for more WAL.", do: disk(Disks.Fill)},
		{Kinds: on, Form: "free the disk under pg_wal of NODE", Needs: SmallDisks, Doc: "The opposite.", do: disk(Disks.Free)},
		{Kinds: on, Form: "restore the store", Needs: Servers, do: servers(StoreFaults.Restore), Doc: "Starts them again."},
	}
}

func cable(do func(context.Context, Hosts, string, []string) error) func(context.Context, *run, []string) error {
	return func(ctx context.Context, r *run, a []string) error {
		n, err := r.node(a[0])
		if err != nil {
			return err
		}
		if r.lab.hosts == nil {
			return errNoHosts
		}
		return do(ctx, r.lab.hosts, n.Name(), a)
	}
}

func disk(do func(Disks, context.Context, string) error) func(context.Context, *run, []string) error {
	return func(ctx context.Context, r *run, a []string) error {
		return r.at(a[0], func(n *sandbox.Node) error {
			if r.lab.disks == nil {
				return errNoDisks
			}
			return do(r.lab.disks, ctx, n.Name())
		})
	}
}

func servers(do func(StoreFaults, context.Context) error) func(context.Context, *run, []string) error {
	return func(ctx context.Context, r *run, _ []string) error {
		f, err := r.storeFaults()
		if err != nil {
			return err
		}
		if err := do(f, ctx); err != nil {
			return fmt.Errorf("the store of %s: %w", r.lab.key.store, err)
		}
		return nil
	}
}
