package ctl

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (a *App) pause() *cobra.Command {
	return a.maintenance(&cobra.Command{
		Use:   "pause [OPTIONS] [CLUSTER_NAME]",
		Short: "Disable auto failover",
		Long: "Turn maintenance mode on: no member is started, stopped, demoted or failed over to automatically, and no deadline\n" +
			"ends a primary. What an operator asks for is done.",
	}, true)
}

func (a *App) resume() *cobra.Command {
	return a.maintenance(&cobra.Command{
		Use:   "resume [OPTIONS] [CLUSTER_NAME]",
		Short: "Resume auto failover",
		Long:  "Turn maintenance mode off.",
	}, false)
}

func (a *App) maintenance(cmd *cobra.Command, on bool) *cobra.Command {
	wait := false
	cmd.Args = atMostOne
	cmd.RunE = a.on(func(ctx context.Context, s *session) error { return s.maintain(ctx, on, wait) })
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until all members know")
	a.Target(cmd)
	return cmd
}

// maintain switches maintenance mode through the first member that answers. Asking a
// second one for the same does no harm.
func (s *session) maintain(ctx context.Context, on, wait bool) error {
	c, err := s.view(ctx)
	if err != nil {
		return err
	}
	word, done := "resume", "resumed"
	if on {
		word, done = "pause", "paused"
	}
	switch {
	case c.paused() && on:
		return fail("Cluster is already paused")
	case !c.paused() && !on:
		return fail("Cluster is not paused")
	}
	caller, err := s.app.env.Dial(s.cfg.Ctl)
	if err != nil {
		return err
	}
	body := []byte(`{"pause": null}`)
	if on {
		body = []byte(`{"pause": true}`)
	}
	for _, m := range c.leaderFirst() {
		r := s.call(ctx, caller, m, http.MethodPatch, "config", body, shortPatience)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case r.status == 0:
			s.app.env.Log.Warn("Member " + string(m.Name) + " is not accessible: " + r.text)
			continue
		case r.status != http.StatusOK:
			s.app.printf("Failed: %s cluster management status code=%d, (%s)\n", word, r.status, r.text)
			return nil
		case wait:
			return s.awaitMaintenance(ctx, c, on, word, done)
		}
		s.app.println("Success: cluster management is " + done)
		return nil
	}
	return fail("Can not find accessible cluster member")
}

// awaitMaintenance waits until every member says of itself that it knows.
func (s *session) awaitMaintenance(ctx context.Context, before cluster, on bool, word, done string) error {
	s.app.println("'" + word + "' request sent, waiting until it is recognized by all nodes")
	patience := before.loopWait() + time.Second
	for waited := time.Duration(0); ; waited += 100 * time.Millisecond {
		c, err := s.view(ctx)
		if err != nil {
			return err
		}
		var open []string
		for _, m := range c.members {
			if _, known := before.member(m.Name); known && m.APIURL != "" && m.Pause != on {
				open = append(open, string(m.Name))
			}
		}
		if len(open) == 0 {
			s.app.println("Success: cluster management is " + done)
			return nil
		}
		if waited >= patience {
			seconds := strconv.FormatFloat(before.loopWait().Seconds(), 'f', -1, 64)
			s.app.printf("%s members didn't recognized %s state after %s seconds\n", strings.Join(open, ", "), word, seconds)
			return nil
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
