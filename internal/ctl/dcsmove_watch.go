package ctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/stores"
)

// watchMove tells how far the members are until all have arrived. The members that the
// command knew when it began are asked themselves: the store that is left may be gone by then.
func (s *session) watchMove(ctx context.Context, c cluster, to string, patience time.Duration) error {
	said := map[events.NodeName]bool{}
	for begun := s.app.env.Now(); ; {
		key, err := drawHex(16)
		if err != nil {
			return err
		}
		reports, err := s.targetReports(ctx, c, key)
		if err != nil {
			return err
		}
		var waits, files []string
		for _, m := range c.members {
			switch r := reports[m.Name]; {
			case r.InForce == to:
				if !said[m.Name] {
					s.app.printf("%s works on %s\n", m.Name, to)
				}
				said[m.Name] = true
				if r.File != to {
					files = append(files, string(m.Name))
				}
			case r.Problem != "":
				waits = append(waits, string(m.Name)+" ("+r.Problem+")")
			default:
				waits = append(waits, string(m.Name))
			}
		}
		if m := c.Move; m.Is(events.MoveIncoming) || m.Is(events.MoveSettled) {
			for _, n := range m.Members { // the view is the target's, and they aren't here yet
				if _, here := c.Member(n); !here {
					waits = append(waits, string(n))
				}
			}
		}
		if len(waits) == 0 {
			s.app.println("Success: the cluster has been moved to " + to)
			if len(files) > 0 {
				s.app.printf("Put the section of %s in the place of the old one now, and reload, in the files of: %s\n", to, strings.Join(files, ", "))
			}
			return nil
		}
		now, err := s.view(ctx)
		switch {
		case err != nil: // the store that is left may be gone
		case now.Move.Is(events.MoveIncoming), now.Move.Is(events.MoveSettled):
			c = now
		case now.Move == nil && len(said) == 0:
			return fail("The move was taken back, by --abort, or because the leader key had become free: the cluster is where it was")
		}
		if s.app.env.Now().Sub(begun) >= patience {
			return fail("The move goes on without this command. It waits for: %s\nGive the command again to watch it, or --abort", strings.Join(waits, ", "))
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// moveStatus shows where each member is.
func (s *session) moveStatus(ctx context.Context) error {
	c, err := s.view(ctx)
	if err != nil {
		return err
	}
	switch m := c.Move; {
	case m.Is(events.MoveBoth):
		s.app.printf("A move to %s is under way\n", m.To)
	case m.Is(events.MoveTarget):
		s.app.printf("The cluster was moved to %s\n", m.To)
		s.follow(ctx, &c)
	case m.Is(events.MoveIncoming):
		s.app.println("This store is the target of a move that has not ended")
	}
	key, err := drawHex(16)
	if err != nil {
		return err
	}
	reports, err := s.targetReports(ctx, c, key)
	if err != nil {
		return err
	}
	t := table{title: "Cluster: " + s.name, header: []string{"Member", "Works on", "File", "Target", "Problem"}, right: make([]bool, 5)}
	for _, m := range c.members {
		r := reports[m.Name]
		file := "as it should be"
		if r.err != "" {
			file = ""
		} else if r.File != r.InForce {
			file = "names " + r.File + ": change it"
		}
		problem := r.err
		if r.Target != "" && r.Problem != "" {
			problem = r.Problem
		}
		t.rows = append(t.rows, []string{string(m.Name), r.InForce, file, r.Target, problem})
	}
	s.app.printf("%s", t.String())
	return nil
}

// openConfig connects to the store that a configuration names.
func (a *App) openConfig(ctx context.Context, c *config.Config, cluster string) (dcs.Store, error) {
	at, err := a.addressIn(c, cluster)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	store, err := a.env.Open(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("open the store %s: %w", strings.Join(at.Addrs, ","), err)
	}
	return store, nil
}

// follow goes on in the store that the cluster was moved to, if the file knows how to
// reach it.
func (s *session) follow(ctx context.Context, c *cluster) bool {
	to, ok := s.cfg.Target()
	if !ok || stores.Describe(to) != c.Move.To {
		return false
	}
	store, err := s.app.openConfig(ctx, to, s.name)
	if err != nil {
		s.app.env.Log.Warn("the store that the cluster was moved to can't be reached", "err", err)
		return false
	}
	read, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	v, err := store.View(read, dcs.Linearizable)
	if err != nil {
		s.app.env.Log.Warn("the store that the cluster was moved to can't be read", "err", err)
		_ = store.Close() // it was only read
		return false
	}
	s.close()
	s.store, *c = store, readCluster(s.name, v)
	return true
}
