package ctl

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/events"
)

// selection is which members an operator means, by name or by role.
type selection struct {
	action string // what is to be done with them
	role   string
	names  []string
	force  bool
}

// atLeastCluster wants the cluster's name, and takes members' names after it.
func atLeastCluster(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage(cmd, "Missing argument 'CLUSTER_NAME'.")
	}
	return nil
}

// choose names the members, after it has shown them. It asks for one only where doing it
// to all would be dangerous.
func (s *session) choose(ctx context.Context, c cluster, sel selection) ([]member, error) {
	var able []member
	for _, m := range c.members {
		if sel.role == "" || c.plays(m, sel.role) {
			able = append(able, m)
		}
	}
	if !sel.force || sel.role != "" {
		if len(sel.names) == 0 && len(able) == 0 {
			return nil, fail("%s cluster doesn't have any members", s.name)
		}
		s.app.printf("%s", s.members(c, looking{}))
	}
	names := sel.names
	switch {
	case len(names) > 0 && !anyOf(able, names):
		return nil, fail("No %s among provided members", s.roleWord(sel.role))
	case len(names) > 0:
	case sel.action != "reinitialize":
		return able, nil
	case !sel.force:
		answer, err := s.app.ask(ctx, "Which member do you want to "+sel.action+" ["+joinNames(able)+"]?", "")
		if err != nil {
			return nil, err
		}
		names = []string{answer}
	}
	var out []member
	for _, name := range names {
		found := false
		for _, m := range able {
			if string(m.Name) == name {
				out, found = append(out, m), true
			}
		}
		if !found {
			return nil, fail("%s is not a member of cluster", name)
		}
	}
	return out, nil
}

func (s *session) roleWord(role string) string {
	switch {
	case role != "":
		return role
	case s.legacy:
		return "any"
	default:
		return "'any'"
	}
}

func anyOf(ms []member, names []string) bool {
	for _, m := range ms {
		if contains(names, string(m.Name)) {
			return true
		}
	}
	return false
}

func joinNames(ms []member) string {
	names := make([]string, len(ms))
	for i, m := range ms {
		names[i] = string(m.Name)
	}
	return strings.Join(names, ", ")
}

// sure asks for confirmation; at is when, empty for now.
func (s *session) sure(ctx context.Context, ms []member, action, at string) error {
	question, aborted := "Are you sure you want to "+action+" members "+joinNames(ms)+"?", "Aborted "+action
	if at != "" {
		question = "Are you sure you want to schedule " + action + " of members " + joinNames(ms) + " at " + at + "?"
		aborted = "Aborted scheduled " + action
	}
	yes, err := s.app.confirm(ctx, question)
	if err != nil {
		return err
	}
	if !yes {
		return failure(aborted)
	}
	return nil
}

// memberReply is what a member answered, or why there was no answer.
type memberReply struct {
	status int
	text   string
}

// call asks one member. The operator is told of a member that doesn't answer as of one
// that refuses, with the status code 0 that no server sends.
func (s *session) call(ctx context.Context, caller Caller, m member, method, path string, body []byte, patience time.Duration) memberReply {
	target, err := endpoint(m.APIURL, path)
	if err != nil {
		return memberReply{0, err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	status, reply, err := caller.Call(ctx, method, target, body)
	if err != nil {
		return memberReply{0, err.Error()}
	}
	return memberReply{status, printable(string(reply))}
}

// tell prints how a request to a member ended, and reports whether it was taken.
func (s *session) tell(r memberReply, name events.NodeName, action string) bool {
	if r.status == 0 || r.status >= http.StatusBadRequest {
		s.app.printf("Failed: %s for member %s, status code=%d, (%s)\n", action, name, r.status, r.text)
		return false
	}
	s.app.printf("Success: %s for member %s\n", action, name)
	return true
}

// shortPatience is how long a member may take that only has to note a request.
const shortPatience = 15 * time.Second

// parseTime reads a time as operators write it; without a zone it is in theirs.
func (a *App) parseTime(text string) (time.Time, error) {
	zone := a.env.Now().Location()
	in := strings.TrimSpace(text)
	if i := strings.IndexAny(in, "Tt"); i == len("2006-01-02") {
		in = in[:i] + " " + in[i+1:]
	}
	for _, utc := range []string{" UTC", " GMT", " Z", "z"} {
		if rest, found := strings.CutSuffix(in, utc); found {
			in = rest + "Z"
		}
	}
	for _, clock := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02 15", "2006-01-02"} {
		for _, offset := range []string{"Z07:00", "Z0700", "-07", " -07:00", " -0700", " -07", ""} {
			if t, err := time.ParseInLocation(clock+offset, in, zone); err == nil {
				return t, nil
			}
		}
	}
	return time.Time{}, fail("Unable to parse scheduled timestamp (%s). It should be in an unambiguous format (e.g. ISO 8601)", text)
}

// isoTime is a time as Python writes it.
func isoTime(t time.Time) string { return t.Format("2006-01-02T15:04:05.999999-07:00") }

// loopWait is the cluster's heartbeat.
func (c cluster) loopWait() time.Duration {
	var seconds float64
	if _, err := fmt.Sscan(c.config.Get("loop_wait").Text(), &seconds); err != nil || seconds <= 0 || seconds > 3600 {
		return 10 * time.Second
	}
	return time.Duration(seconds * float64(time.Second))
}

// leaderFirst lists the members, the holder in front.
func (c cluster) leaderFirst() []member {
	var first, rest []member
	for _, m := range c.members {
		if m.Name == c.Leader.Name {
			first = append(first, m)
		} else {
			rest = append(rest, m)
		}
	}
	return append(first, rest...)
}
