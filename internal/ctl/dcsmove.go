package ctl

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/stores"
)

func (a *App) dcsGroup() *cobra.Command {
	g := group(&cobra.Command{
		Use:   "dcs COMMAND [ARGS]...",
		Short: "Move a running cluster to another store",
	})
	g.AddCommand(a.dcsMove())
	return g
}

// moveToStore is what the operator asked for.
type moveToStore struct {
	to            string // a file with the target's section; empty: regent.dcs_target
	abort, status bool
	force         bool
	patience      time.Duration
}

func (a *App) dcsMove() *cobra.Command {
	o := moveToStore{}
	cmd := &cobra.Command{
		Use:   "move [OPTIONS] [CLUSTER_NAME]",
		Short: "Move the running cluster to the store of regent.dcs_target",
		Long: "Move the running cluster to another store, without an outage. Every member's file must have the target's section\n" +
			"below regent.dcs_target, and be reloaded; that is checked before anything is written. An interrupted move goes on by\n" +
			"itself, and is watched again by the same command. While it is under way nobody fails over automatically: if the\n" +
			"primary is lost, the move is taken back first.",
		Args: atMostOne,
		RunE: a.on(func(ctx context.Context, s *session) error { return s.dcsMove(ctx, o) }),
	}
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", "a file with the section of the store to move to (default: regent.dcs_target of the file)")
	f.BoolVar(&o.status, "status", false, "only show where each member is, and which files are to be changed")
	f.BoolVar(&o.abort, "abort", false, "take back a move that has not ended")
	f.BoolVar(&o.force, "force", false, "do not ask for confirmation")
	f.DurationVar(&o.patience, "wait", time.Minute, "how long to watch the move; it goes on without the command")
	a.Target(cmd)
	return cmd
}

func (s *session) dcsMove(ctx context.Context, o moveToStore) error {
	s.stays = true
	switch {
	case o.status && o.abort:
		return fail("Only one of --status and --abort can be given")
	case o.status:
		return s.moveStatus(ctx)
	}
	c, err := s.view(ctx)
	if err != nil {
		return err
	}
	if o.abort {
		return s.abortMove(ctx, c)
	}
	to, err := s.moveTarget(o.to)
	if err != nil {
		return err
	}
	switch m := c.Move; {
	case (m.Is(events.MoveBoth) || m.Is(events.MoveTarget)) && m.To != stores.Describe(to):
		return fail("A move to %q has begun already. Give that one's section to go on with it, or --abort", m.To)
	case m.Is(events.MoveBoth), m.Is(events.MoveTarget):
		s.app.printf("The move to %s has begun already\n", m.To)
		return s.watchMove(ctx, c, m.To, o.patience)
	case (m.Is(events.MoveIncoming) || m.Is(events.MoveSettled)) && m.To == stores.Describe(to):
		return s.watchMove(ctx, c, m.To, o.patience) // it is this store
	case m.Is(events.MoveIncoming):
		return fail("This store is the target of a move that has not ended: give the file of the store that is being left")
	}
	if err := s.mayMove(ctx, c, to); err != nil {
		return err
	}
	if !o.force {
		yes, err := s.app.confirm(ctx, fmt.Sprintf("Are you sure you want to move cluster %s to %s?", s.name, stores.Describe(to)))
		if err != nil {
			return err
		}
		if !yes {
			return failure("Aborted move")
		}
	}
	epoch, err := drawHex(8)
	if err != nil {
		return err
	}
	m := events.StoreMove{Epoch: epoch, Phase: events.MoveBoth, To: stores.Describe(to)}
	for _, member := range c.members {
		m.Members = append(m.Members, member.Name)
	}
	if err := s.markMove(ctx, c, &m); err != nil {
		return err
	}
	s.app.printf("The move to %s has begun\n", m.To)
	return s.watchMove(ctx, c, m.To, o.patience)
}

// moveTarget is the store that the operator wants, as part of this cluster.
func (s *session) moveTarget(file string) (*config.Config, error) {
	if file == "" {
		c, ok := s.cfg.Target()
		if !ok {
			return nil, fail("Name a file with the target's section by --to, or give a member's file with regent.dcs_target by -c")
		}
		return c, nil
	}
	c, err := config.Load(file, nil)
	if err != nil {
		return nil, err
	}
	to := *c
	to.Scope, to.Namespace = s.name, s.cfg.Namespace
	if len(to.Stores) != 1 {
		return nil, fail("%s must have the section of exactly one store, it has %d", file, len(to.Stores))
	}
	return &to, nil
}

// mayMove checks everything that can be checked before anything is written.
func (s *session) mayMove(ctx context.Context, c cluster, to *config.Config) error {
	switch {
	case c.paused():
		return fail("A cluster in maintenance mode can't be moved: give the command resume first")
	case c.synchronous() || c.Sync.Leader != "":
		return fail("A cluster in synchronous mode can't be moved in this version: switch the mode off for the time of the move")
	case c.Failover.Pending():
		return fail("A switchover or failover is asked for: wait for it, or flush it")
	case !c.Leader.Locked():
		return fail("Nobody leads: a cluster is moved while it runs")
	}
	key, err := drawHex(16)
	if err != nil {
		return err
	}
	want := stores.Digest(to, key)
	reports, err := s.targetReports(ctx, c, key)
	if err != nil {
		return err
	}
	var wrong []string
	for _, m := range c.members {
		r := reports[m.Name]
		say := func(format string, a ...any) { wrong = append(wrong, string(m.Name)+": "+fmt.Sprintf(format, a...)) }
		switch {
		case m.Regent == "":
			say("is a Patroni, which can't be moved")
		case r.err != "":
			say("doesn't answer: %s", r.err)
		case r.Target == "":
			say("%s; add it, and reload", r.Problem)
		case r.Target != stores.Describe(to):
			say("its regent.dcs_target is %q, not %q", r.Target, stores.Describe(to))
		case r.Digest != want:
			say("its regent.dcs_target has another user, password, token, scope or namespace")
		case strings.HasPrefix(r.InForce, "raft ") && to.Store == "raft":
			say("the embedded store can't be moved to another embedded store")
		case r.InForce == r.Target:
			say("it works on %s already", r.Target)
		case r.InForce != r.File:
			say("its file names %s still, which the cluster has left; change that first", r.File)
		case r.Problem != "":
			say("doesn't reach the target: %s", r.Problem)
		}
	}
	if len(wrong) > 0 {
		return fail("The cluster can't be moved, and nothing was changed:\n  %s", strings.Join(wrong, "\n  "))
	}
	return s.targetTakes(ctx, to)
}

// targetTakes looks at the target itself: another cluster's is refused by the members too,
// but later.
func (s *session) targetTakes(ctx context.Context, to *config.Config) error {
	from, err := s.store.View(ctx, dcs.Linearizable)
	if err != nil {
		return fmt.Errorf("read cluster %s: %w", s.name, err)
	}
	target, err := s.app.openConfig(ctx, to, s.name)
	if err != nil {
		return err
	}
	defer func() { _ = target.Close() }() // it was only read
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	there, err := target.View(ctx, dcs.Linearizable)
	if err != nil {
		return fmt.Errorf("read the target: %w", err)
	}
	if _, err := dcs.CopyMove(from, there, "none"); err != nil {
		return fail("The cluster can't be moved, and nothing was changed: %v", err)
	}
	return nil
}

// markMove changes what the config key says of a move.
func (s *session) markMove(ctx context.Context, c cluster, m *events.StoreMove) error {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	_, err := s.store.Commit(ctx, dcs.MarkMove(c.Config, m))
	switch {
	case errors.Is(err, dcs.ErrRefused):
		return fail("The configuration has changed meanwhile; nothing was written. Give the command again")
	case errors.Is(err, dcs.ErrUnknown):
		return fail("It isn't known whether the store took it (%v). Give the command again: it goes on where the move is", err)
	case err != nil:
		return fail("Could not write to the store: %v", err)
	}
	return nil
}

func (s *session) abortMove(ctx context.Context, c cluster) error {
	switch m := c.Move; {
	case m.Is(events.MoveTarget):
		return fail("The cluster works on %s already: it can only be moved back, by another move", m.To)
	case !m.Is(events.MoveBoth):
		return fail("No move is under way in this store")
	}
	if err := s.markMove(ctx, c, nil); err != nil {
		return err
	}
	s.app.println("The move was taken back; the cluster is where it was")
	return nil
}

func drawHex(bytes int) (string, error) {
	b := make([]byte, bytes)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("draw a random number: %w", err)
	}
	return hex.EncodeToString(b), nil
}

// targetReport is a member's answer, or why there is none.
type targetReport struct {
	InForce string `json:"in_force"`
	File    string `json:"file"`
	Epoch   string `json:"epoch"`
	Target  string `json:"target"`
	Digest  string `json:"digest"`
	Problem string `json:"problem"`
	err     string
}

// targetReports asks every member about its target.
func (s *session) targetReports(ctx context.Context, c cluster, key string) (map[events.NodeName]targetReport, error) {
	caller, err := s.app.env.Dial(s.cfg.Ctl)
	if err != nil {
		return nil, err
	}
	out := map[events.NodeName]targetReport{}
	// All at once: the members may be each other's target, and none reaches it alone.
	replies := make([]memberReply, len(c.members))
	var asked sync.WaitGroup
	for i, m := range c.members {
		asked.Go(func() {
			replies[i] = s.call(ctx, caller, m, http.MethodPost, "dcs-target", []byte(`{"key":"`+key+`"}`), shortPatience)
		})
	}
	asked.Wait()
	for i, m := range c.members {
		r := targetReport{}
		if reply := replies[i]; reply.status != http.StatusOK {
			r.err = fmt.Sprintf("status code=%d, (%s)", reply.status, reply.text)
		} else if err := json.Unmarshal([]byte(reply.text), &r); err != nil {
			r.err = err.Error()
		}
		out[m.Name] = r
	}
	return out, nil
}
