package ctl

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/ctl/pyfmt"
)

// move is an operator's wish that another member becomes the primary: a switchover
// while the primary lives, a failover whether it does or not.
type move struct {
	action    string // switchover or failover
	leader    string
	candidate string
	scheduled string
	force     bool
}

func (a *App) switchover() *cobra.Command {
	m := move{action: "switchover"}
	cmd := &cobra.Command{
		Use:   "switchover [OPTIONS] [CLUSTER_NAME]",
		Short: "Switchover to a replica",
		Long: "Move the leadership to a replica, while the primary lives. Nothing that was committed is lost.\n" +
			"Asks for what the options leave open, and for confirmation.",
		Args: atMostOne,
		RunE: a.on(func(ctx context.Context, s *session) error { return s.move(ctx, m) }),
	}
	f := cmd.Flags()
	f.StringVar(&m.leader, "leader", "", "the current leader's `NAME`")
	f.StringVar(&m.leader, "primary", "", "the same as --leader")
	f.StringVar(&m.leader, "master", "", "the same as --leader")
	f.StringVar(&m.scheduled, "scheduled", "", "`TIME` of the switchover; now, when it isn't given")
	moveFlags(cmd, &m)
	a.Target(cmd)
	return cmd
}

func (a *App) failover() *cobra.Command {
	m := move{action: "failover"}
	cmd := &cobra.Command{
		Use:   "failover [OPTIONS] [CLUSTER_NAME]",
		Short: "Failover to a replica",
		Long: "Make a replica the primary, whether or not there is one now. What the candidate has not received is lost;\n" +
			"use switchover while the primary lives.",
		Args: atMostOne,
		RunE: a.on(func(ctx context.Context, s *session) error { return s.move(ctx, m) }),
	}
	f := cmd.Flags()
	f.StringVar(&m.leader, "leader", "", "the current leader's `NAME`; Patroni had it up to 3.x, and its scripts still give it")
	f.StringVar(&m.leader, "primary", "", "the same as --leader")
	f.StringVar(&m.leader, "master", "", "the same as --leader")
	moveFlags(cmd, &m)
	a.Target(cmd)
	// Defined above, so that no error is possible.
	_ = f.MarkHidden("leader")
	_ = f.MarkHidden("primary")
	return cmd
}

func moveFlags(cmd *cobra.Command, m *move) {
	cmd.Flags().StringVar(&m.candidate, "candidate", "", "the `NAME` of the member that shall lead")
	cmd.Flags().BoolVar(&m.force, "force", false, "ask nothing")
	_ = cmd.Flags().MarkHidden("master") // defined by the caller
}

// move asks, requests, and shows the cluster before and after.
func (s *session) move(ctx context.Context, m move) error {
	c, err := s.view(ctx)
	if err != nil {
		return err
	}
	s.app.println("Current cluster topology")
	s.app.printf("%s", s.members(c, looking{}))
	if err := s.complete(ctx, c, &m); err != nil {
		return err
	}
	if !m.force {
		demoting := ""
		if c.Leader.Locked() {
			demoting = ", demoting current leader " + string(c.Leader.Name)
		}
		question, aborting := "Are you sure you want to "+m.action+" cluster "+s.name+demoting+"?", "Aborting "+m.action
		if m.scheduled != "" {
			question = "Are you sure you want to schedule " + m.action + " of cluster " + s.name + " at " + m.scheduled + demoting + "?"
			aborting = "Aborting scheduled " + m.action
		}
		sure, err := s.app.confirm(ctx, question)
		if err != nil {
			return err
		}
		if !sure {
			return failure(aborting)
		}
	}
	done, err := s.request(ctx, c, m)
	if err != nil || !done {
		return err
	}
	if c, err = s.view(ctx); err != nil {
		return err
	}
	s.app.printf("%s", s.members(c, looking{}))
	return nil
}

// complete fills in what the options left open, and refuses what can't work.
func (s *session) complete(ctx context.Context, c cluster, m *move) error {
	if m.action == "switchover" || m.leader != "" {
		if err := s.completeLeader(ctx, c, m); err != nil {
			return err
		}
	}
	if err := s.completeCandidate(ctx, c, m); err != nil {
		return err
	}
	if m.action == "switchover" {
		return s.completeTime(ctx, c, m)
	}
	if !m.force && c.synchronous() && c.Sync.Leader != "" && !c.inSync(events.NodeName(m.candidate)) &&
		!strings.EqualFold(string(c.Sync.Leader), m.candidate) && !s.legacy {
		sure, err := s.app.confirm(ctx, "Are you sure you want to failover to the asynchronous node "+m.candidate+"?")
		if err != nil {
			return err
		}
		if !sure {
			return fail("Aborting %s", m.action)
		}
	}
	return nil
}

func (s *session) completeLeader(ctx context.Context, c cluster, m *move) error {
	if !c.Leader.Locked() {
		return fail("This cluster has no leader")
	}
	holder := string(c.Leader.Name)
	switch {
	case m.leader != "":
	case m.force:
		m.leader = holder
	default:
		word := "Primary"
		if c.standbyCluster() {
			word = "Standby Leader"
		}
		answer, err := s.app.ask(ctx, word, holder)
		if err != nil {
			return err
		}
		m.leader = answer
	}
	if m.leader != holder {
		return fail("Member %s is not the leader of cluster %s", m.leader, s.name)
	}
	return nil
}

func (s *session) completeCandidate(ctx context.Context, c cluster, m *move) error {
	names := memberNames(c.members, func(x member) bool { return x.Name != c.Leader.Name && !x.Tags.NoFailover })
	if len(names) == 0 {
		return fail("No candidates found to %s to", m.action)
	}
	if m.candidate == "" && !m.force {
		answer, err := s.app.ask(ctx, "Candidate "+pythonList(names), "")
		if err != nil {
			return err
		}
		m.candidate = answer
	}
	switch {
	case m.candidate == "" && m.action == "failover":
		return fail("Failover could be performed only to a specific candidate")
	case m.candidate == "":
		return nil
	case events.NodeName(m.candidate) == c.Leader.Name && s.legacy && m.action == "switchover":
		return fail("Switchover target and source are the same.")
	case events.NodeName(m.candidate) == c.Leader.Name && !s.legacy:
		return fail("Member %s is already the leader of cluster %s", m.candidate, s.name)
	}
	for _, name := range names {
		if string(name) == m.candidate {
			return nil
		}
	}
	if s.legacy {
		return fail("Member %s does not exist in cluster %s", m.candidate, s.name)
	}
	return fail("Member %s does not exist in cluster %s or is tagged as nofailover", m.candidate, s.name)
}

// completeTime makes the time one that every member reads alike; empty for now.
func (s *session) completeTime(ctx context.Context, c cluster, m *move) error {
	if m.scheduled == "" && !m.force {
		example := s.app.env.Now().Add(time.Hour).Format("2006-01-02T15:04")
		answer, err := s.app.ask(ctx, "When should the switchover take place (e.g. "+example+" ) ", "now")
		if err != nil {
			return err
		}
		m.scheduled = answer
	}
	if m.scheduled == "" || m.scheduled == "now" {
		m.scheduled = ""
		return nil
	}
	t, err := s.app.parseTime(m.scheduled)
	if err != nil {
		return err
	}
	if c.paused() {
		return fail("Can't schedule switchover in the paused state")
	}
	m.scheduled = isoTime(t)
	return nil
}

// pythonList prints names as Python prints a list of strings.
func pythonList(names []events.NodeName) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		q := "'"
		if strings.Contains(string(name), "'") && !strings.Contains(string(name), `"`) {
			q = `"`
		}
		quoted[i] = q + printable(strings.ReplaceAll(string(name), `\`, `\\`)) + q
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// body is the request in the REST API's form.
func (m move) body() []byte {
	v := pyfmt.Object()
	if m.leader != "" {
		v.Set("leader", pyfmt.String(m.leader))
	}
	if m.candidate != "" {
		v.Set("candidate", pyfmt.String(m.candidate))
	}
	if m.scheduled != "" {
		v.Set("scheduled_at", pyfmt.String(m.scheduled))
	}
	return []byte(v.JSON())
}

// title is the action at the beginning of a sentence.
func (m move) title() string { return strings.ToUpper(m.action[:1]) + m.action[1:] }

// request asks the holder, or the candidate of a cluster that has none, to carry the
// move out. It reports whether there is a new state of the cluster to look at.
func (s *session) request(ctx context.Context, c cluster, m move) (bool, error) {
	to, ok := c.member(c.Leader.Name)
	if !ok {
		to, _ = c.member(events.NodeName(m.candidate))
	}
	caller, err := s.app.env.Dial(s.cfg.Ctl)
	if err != nil {
		return false, err
	}
	status, reply, err := post(ctx, caller, c, to, m.action, m.body())
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, ErrUnreachable):
		s.app.env.Log.Warn("The REST API of " + whom(to) + " can't be reached: " + err.Error())
		s.app.env.Log.Warn("Failing over to DCS")
		return true, s.writeRequest(ctx, c, m)
	case err != nil:
		// The request left, and may be under way. Asking for it once more by the
		// store's key could move the leadership a second time.
		s.app.printf("%s result unknown, details: %v\n", m.title(), err)
		return true, nil
	case status == http.StatusOK || status == http.StatusAccepted:
		s.app.println(s.app.timestamp() + " " + printable(string(reply)))
		return true, nil
	case status == http.StatusServiceUnavailable && strings.Contains(string(reply), "unknown"):
		s.app.printf("%s result unknown, details: %d, %s\n", m.title(), status, printable(string(reply)))
		return false, nil
	default:
		s.app.printf("%s failed, details: %d, %s\n", m.title(), status, printable(string(reply)))
		return false, nil
	}
}

func whom(m member) string {
	if m.Name == "" {
		return "a member without a key in the store"
	}
	return "member " + string(m.Name)
}

// post sends a request to a member, with time for an answer that comes only after the
// move is over.
func post(ctx context.Context, caller Caller, c cluster, to member, path string, body []byte) (int, []byte, error) {
	target, err := endpoint(to.APIURL, path)
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout(c))
	defer cancel()
	return caller.Call(ctx, http.MethodPost, target, body)
}

// answerTimeout: members answer within twice loop_wait, or within 20 seconds when that
// is longer; they get some seconds more.
func answerTimeout(c cluster) time.Duration {
	loop := 10 * time.Second
	if n, ok := c.config.Get("loop_wait").Uint64(); ok {
		loop = max(loop, time.Duration(min(n, 3600))*time.Second)
	}
	return 2*loop + 10*time.Second
}

// writeRequest puts the wish into the store, where whoever leads finds it. The key is
// guarded by what was read, so that somebody else's request isn't overwritten unseen.
func (s *session) writeRequest(ctx context.Context, c cluster, m move) error {
	s.app.println(s.app.timestamp() + " Could not " + m.action + " using Patroni api, falling back to DCS")
	wish := events.FailoverRequest{
		Leader: events.NodeName(m.leader), Candidate: events.NodeName(m.candidate), ScheduledAt: m.scheduled,
	}
	guard := dcs.Guard{Key: dcs.KeyFailover, Absent: c.Failover.Version == 0, Version: c.Failover.Version}
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	_, err := s.store.Commit(ctx, dcs.Txn{
		Guards: []dcs.Guard{guard},
		Writes: []dcs.Write{dcs.Put(dcs.KeyFailover, dcs.EncodeFailover(wish))},
	})
	switch {
	case errors.Is(err, dcs.ErrRefused):
		return fail("Another request was written to the store at the same time. Look at the cluster, then try again")
	case errors.Is(err, dcs.ErrUnknown):
		return fail("It isn't known whether the request reached the store (%v). Look at the cluster before you try again", err)
	case err != nil:
		return fail("Could not write the request to the store: %v", err)
	}
	return nil
}
