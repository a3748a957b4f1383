package ctl

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/ctl/pyfmt"
)

// restarting is an operator's wish that servers are restarted.
type restarting struct {
	selection
	any       bool
	pending   bool
	scheduled string
	version   string
	timeout   string
	asked     struct{ scheduled, version bool } // given on the command line
}

func (a *App) restart() *cobra.Command {
	var o restarting
	cmd := &cobra.Command{
		Use:   "restart [OPTIONS] CLUSTER_NAME [MEMBER_NAMES]...",
		Short: "Restart cluster member",
		Long:  "Restart the PostgreSQL of the named members, or of all, one after another; their roles stay.",
		Args:  atLeastCluster,
	}
	f := cmd.Flags()
	f.VarP(choice{&o.role, roles(), "ROLE"}, "role", "r", "members with this role: "+strings.Join(roles()[:6], ", "))
	f.BoolVar(&o.any, "any", false, "one of them, whichever")
	f.StringVar(&o.scheduled, "scheduled", "", "`TIME` of the restart; now, when it isn't given")
	f.StringVar(&o.version, "pg-version", "", "only servers older than this `VERSION`")
	f.BoolVar(&o.pending, "pending", false, "only servers for which a restart is pending")
	f.StringVar(&o.timeout, "timeout", "", "`SECONDS` that a server may take to start")
	f.BoolVar(&o.force, "force", false, "ask nothing")
	cmd.RunE = a.onMembers(func(ctx context.Context, s *session, names []string) error {
		o.action, o.names = "restart", names
		o.asked.scheduled, o.asked.version = f.Changed("scheduled"), f.Changed("pg-version")
		return s.restart(ctx, o)
	})
	a.Target(cmd)
	return cmd
}

// onMembers wraps the work of a command on a cluster and, if they are named, members.
func (a *App) onMembers(work func(ctx context.Context, s *session, names []string) error) func(*cobra.Command, []string) error {
	return a.run(func(ctx context.Context, args []string) error {
		s, err := a.open(ctx, args[0])
		if err != nil {
			return err
		}
		defer s.close()
		return work(ctx, s, args[1:])
	})
}

func (s *session) restart(ctx context.Context, o restarting) error {
	c, err := s.view(ctx)
	if err != nil {
		return err
	}
	ms, err := s.choose(ctx, c, o.selection)
	if err != nil {
		return err
	}
	if o.pending && !s.legacy {
		ms = flagged(ms)
	}
	body, at, err := s.completeRestart(ctx, c, &o, ms)
	if err != nil {
		return err
	}
	if o.any && len(ms) > 1 {
		// The choice is nobody's business; the clock is as good as dice.
		i := int(uint64(s.app.env.Now().UnixNano()) % uint64(len(ms)))
		ms = ms[i : i+1]
	}
	caller, err := s.app.env.Dial(s.cfg.Ctl)
	if err != nil {
		return err
	}
	patience := 10 * time.Minute
	if at != "" {
		patience = shortPatience
	}
	for _, m := range ms {
		if at != "" && o.force && m.scheduledRestart() != "" {
			s.tell(s.call(ctx, caller, m, http.MethodDelete, "restart", nil, shortPatience), m.Name, "flush scheduled restart")
		}
		r := s.call(ctx, caller, m, http.MethodPost, "restart", body, patience)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch r.status {
		case http.StatusOK:
			s.app.printf("Success: restart on member %s\n", m.Name)
		case http.StatusAccepted:
			s.app.printf("Success: restart scheduled on member %s\n", m.Name)
		case http.StatusConflict:
			s.app.printf("Failed: another restart is already scheduled on member %s\n", m.Name)
		default:
			s.tell(memberReply{r.status, r.text}, m.Name, "restart")
		}
	}
	return nil
}

// flagged are the members for which a restart is pending.
func flagged(ms []member) []member {
	var out []member
	for _, m := range ms {
		if m.PendingRestart {
			out = append(out, m)
		}
	}
	return out
}

// completeRestart asks for what the options leave open, and makes the request; at is when
// the restart is scheduled for, empty for now.
func (s *session) completeRestart(ctx context.Context, c cluster, o *restarting, ms []member) (body []byte, at string, err error) {
	if !o.asked.scheduled && !o.force {
		example := s.app.env.Now().Add(time.Hour).Format("2006-01-02T15:04")
		if o.scheduled, err = s.app.ask(ctx, "When should the restart take place (e.g. "+example+") ", "now"); err != nil {
			return nil, "", err
		}
	}
	shown := ""
	if o.scheduled != "" && o.scheduled != "now" {
		t, err := s.app.parseTime(o.scheduled)
		if err != nil {
			return nil, "", err
		}
		at = isoTime(t)
		shown = strings.Replace(at, "T", " ", 1)
	}
	if !o.force {
		if err := s.sure(ctx, ms, "restart", shown); err != nil {
			return nil, "", err
		}
		if o.pending && at != "" && !s.legacy {
			yes, err := s.app.confirm(ctx, "The nodes needing a restart will be identified at the scheduled time, and might be different "+
				"from the ones showing pending restart right now. Is this fine?")
			if err != nil {
				return nil, "", err
			}
			if !yes {
				return nil, "", fail("Aborted scheduled restart")
			}
		}
	}
	if !o.asked.version && !o.force {
		if o.version, err = s.app.ask(ctx, "Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ", ""); err != nil {
			return nil, "", err
		}
	}
	if o.version != "" && !regexp.MustCompile(`^\d+(\.\d+){1,2}$`).MatchString(o.version) {
		return nil, "", fail("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: %s", o.version)
	}
	if at != "" && c.paused() {
		return nil, "", fail("Can't schedule restart in the paused state")
	}
	return o.body(at), at, nil
}

// body is the request in the REST API's form.
func (o *restarting) body(at string) []byte {
	v := pyfmt.Object()
	if o.pending {
		v.Set("restart_pending", pyfmt.Bool(true))
	}
	for _, f := range []struct{ key, value string }{{"postgres_version", o.version}, {"schedule", at}, {"timeout", o.timeout}} {
		if f.value != "" {
			v.Set(f.key, pyfmt.String(f.value))
		}
	}
	return []byte(v.JSON())
}

func (a *App) reload() *cobra.Command {
	sel := selection{action: "reload"}
	cmd := &cobra.Command{
		Use:   "reload [OPTIONS] CLUSTER_NAME [MEMBER_NAMES]...",
		Short: "Reload cluster member configuration",
		Long:  "Make members read their configuration file again, as SIGHUP does.",
		Args:  atLeastCluster,
	}
	cmd.Flags().VarP(choice{&sel.role, roles(), "ROLE"}, "role", "r", "members with this role: "+strings.Join(roles()[:6], ", "))
	cmd.Flags().BoolVar(&sel.force, "force", false, "ask nothing")
	cmd.RunE = a.onMembers(func(ctx context.Context, s *session, names []string) error {
		sel.names = names
		return s.reload(ctx, sel)
	})
	a.Target(cmd)
	return cmd
}

func (s *session) reload(ctx context.Context, sel selection) error {
	c, ms, caller, err := s.prepare(ctx, sel)
	if err != nil {
		return err
	}
	for _, m := range ms {
		switch r := s.call(ctx, caller, m, http.MethodPost, "reload", nil, shortPatience); r.status {
		case http.StatusOK:
			s.app.printf("No changes to apply on member %s\n", m.Name)
		case http.StatusAccepted:
			s.app.printf("Reload request received for member %s and will be processed within %v seconds\n", m.Name, c.loopWait().Seconds())
		default:
			s.tell(r, m.Name, "reload")
		}
	}
	return ctx.Err()
}

// prepare names the members, asks for confirmation, and gets ready to call them.
func (s *session) prepare(ctx context.Context, sel selection) (c cluster, ms []member, caller Caller, err error) {
	if c, err = s.view(ctx); err != nil {
		return c, nil, nil, err
	}
	if ms, err = s.choose(ctx, c, sel); err != nil {
		return c, nil, nil, err
	}
	if !sel.force {
		if err := s.sure(ctx, ms, sel.action, ""); err != nil {
			return c, nil, nil, err
		}
	}
	caller, err = s.app.env.Dial(s.cfg.Ctl)
	return c, ms, caller, err
}

func (a *App) flush() *cobra.Command {
	sel := selection{action: "flush"}
	cmd := &cobra.Command{
		Use:   "flush [OPTIONS] CLUSTER_NAME [MEMBER_NAMES]... {restart|switchover}",
		Short: "Discard scheduled events",
		Long:  "Forget a restart that members have scheduled, or the switchover that the cluster has.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage(cmd, "Missing argument '{restart|switchover}'. Choose from:\n\trestart,\n\tswitchover")
			}
			if last := args[len(args)-1]; last != "restart" && last != "switchover" {
				return usage(cmd, "Invalid value for '{restart|switchover}': '%s' is not one of 'restart', 'switchover'.", last)
			}
			return nil
		},
	}
	cmd.Flags().VarP(choice{&sel.role, roles(), "ROLE"}, "role", "r", "members with this role: "+strings.Join(roles()[:6], ", "))
	cmd.Flags().BoolVar(&sel.force, "force", false, "ask nothing")
	cmd.RunE = a.onMembers(func(ctx context.Context, s *session, args []string) error {
		what := args[len(args)-1]
		sel.names = args[:len(args)-1]
		if what == "switchover" {
			return s.flushSwitchover(ctx)
		}
		return s.flushRestarts(ctx, sel)
	})
	a.Target(cmd)
	return cmd
}

func (s *session) flushRestarts(ctx context.Context, sel selection) error {
	_, ms, caller, err := s.prepare(ctx, sel)
	if err != nil {
		return err
	}
	for _, m := range ms {
		if m.scheduledRestart() == "" {
			s.app.printf("No scheduled restart for member %s\n", m.Name)
			continue
		}
		s.tell(s.call(ctx, caller, m, http.MethodDelete, "restart", nil, shortPatience), m.Name, "flush scheduled restart")
	}
	return ctx.Err()
}

func (s *session) flushSwitchover(ctx context.Context) error {
	c, err := s.view(ctx)
	if err != nil {
		return err
	}
	if !c.Failover.Pending() || c.Failover.ScheduledAt == "" {
		s.app.println("No pending scheduled switchover")
		return nil
	}
	caller, err := s.app.env.Dial(s.cfg.Ctl)
	if err != nil {
		return err
	}
	for _, m := range c.leaderFirst() {
		switch r := s.call(ctx, caller, m, http.MethodDelete, "switchover", nil, shortPatience); r.status {
		case http.StatusOK:
			s.app.println("Success: " + r.text)
			return nil
		case http.StatusNotFound:
			s.app.println("Failed: " + r.text)
			return nil
		default:
			s.app.env.Log.Warn("Failing to flush the switchover through member " + string(m.Name) + ": " + r.text)
		}
	}
	s.app.env.Log.Warn("Failing over to DCS")
	s.app.println(s.app.timestamp() + " Could not find any accessible member of cluster " + s.name)
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	_, err = s.store.Commit(ctx, dcs.Txn{
		Guards: []dcs.Guard{{Key: dcs.KeyFailover, Version: c.Failover.Version}},
		Writes: []dcs.Write{dcs.Put(dcs.KeyFailover, dcs.EncodeFailover(events.FailoverRequest{}))},
	})
	if errors.Is(err, dcs.ErrRefused) {
		return fail("The scheduled switchover was changed at the same time. Look at the cluster, then try again")
	}
	return err
}
