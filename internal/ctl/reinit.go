package ctl

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/internal/ctl/pyfmt"
)

func (a *App) reinit() *cobra.Command {
	sel := selection{action: "reinitialize", role: "replica"}
	var fromLeader, wait bool
	cmd := &cobra.Command{
		Use:   "reinit [OPTIONS] CLUSTER_NAME [MEMBER_NAMES]...",
		Short: "Reinitialize cluster member",
		Long:  "Build replicas anew: each one's data directory is replaced by a copy.",
		Args:  atLeastCluster,
	}
	f := cmd.Flags()
	f.BoolVar(&sel.force, "force", false, "ask nothing, and cancel what is under way on the member")
	f.BoolVar(&wait, "wait", false, "wait until it is done")
	f.BoolVar(&fromLeader, "from-leader", false, "copy from nobody but the leader")
	cmd.RunE = a.onMembers(func(ctx context.Context, s *session, names []string) error {
		sel.names = names
		return s.reinit(ctx, sel, fromLeader, wait)
	})
	a.Target(cmd)
	return cmd
}

func (s *session) reinit(ctx context.Context, sel selection, fromLeader, wait bool) error {
	_, ms, caller, err := s.prepare(ctx, sel)
	if err != nil {
		return err
	}
	var started []member
	for _, m := range ms {
		ok, err := s.reinitOne(ctx, caller, m, sel.force, fromLeader)
		if err != nil {
			return err
		}
		if ok {
			started = append(started, m)
		}
	}
	if wait && len(started) > 0 {
		return s.awaitReinit(ctx, caller, started)
	}
	return nil
}

// reinitOne asks one member, and asks the operator whether what it is busy with is to be
// cancelled.
func (s *session) reinitOne(ctx context.Context, caller Caller, m member, force, fromLeader bool) (bool, error) {
	for again := force; ; again = true {
		body := pyfmt.Object()
		body.Set("force", pyfmt.Bool(again))
		if fromLeader {
			body.Set("from_leader", pyfmt.Bool(true))
		}
		r := s.call(ctx, caller, m, http.MethodPost, "reinitialize", []byte(body.JSON()), shortPatience)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if s.tell(r, m.Name, "reinitialize") {
			return true, nil
		}
		if again || !strings.HasSuffix(strings.TrimSpace(r.text), " already in progress") {
			return false, nil
		}
		yes, err := s.app.confirm(ctx, "Do you want to cancel it and reinitialize anyway?")
		if err != nil || !yes {
			return false, err
		}
	}
}

// awaitReinit waits until no member says that it is creating its replica.
func (s *session) awaitReinit(ctx context.Context, caller Caller, open []member) error {
	shown := ""
	for len(open) > 0 {
		if names := joinNames(open); names != shown {
			s.app.println("Waiting for reinitialize to complete on: " + names)
			shown = names
		}
		if err := wait(ctx, time.Second); err != nil {
			return err
		}
		var rest []member
		for _, m := range open {
			r := s.call(ctx, caller, m, http.MethodGet, "patroni", nil, shortPatience)
			doc, err := pyfmt.Parse([]byte(r.text))
			if r.status == 0 || err != nil || doc.Get("state").Str() == "creating replica" {
				rest = append(rest, m)
				continue
			}
			s.app.println("Reinitialize is completed on: " + string(m.Name))
		}
		open = rest
	}
	return nil
}
