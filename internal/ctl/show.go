package ctl

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/ctl/pyfmt"
)

func (a *App) history() *cobra.Command {
	format := "pretty"
	cmd := &cobra.Command{
		Use:   "history [OPTIONS] [CLUSTER_NAME]",
		Short: "Show the history of failovers/switchovers",
		Long:  "Show when the cluster changed its primary: each timeline, where it ended, and who led the next.",
		Args:  atMostOne,
		RunE: a.on(func(ctx context.Context, s *session) error {
			c, err := s.look(ctx)
			if err != nil {
				return err
			}
			a.printf("%s", historyText(c.History.Lines, format))
			return nil
		}),
	}
	cmd.Flags().VarP(choice{&format, formats(), "FORMAT"}, "format", "f", "output format: pretty, tsv, json or yaml")
	a.Target(cmd)
	return cmd
}

func historyHead() []string { return []string{"TL", "LSN", "Reason", "Timestamp", "New Leader"} }

func historyText(lines []events.HistoryLine, format string) string {
	head := historyHead()
	t := table{header: head, right: []bool{true, true, false, false, false}}
	var rows []pyfmt.Value
	for _, l := range lines {
		cells := []pyfmt.Value{
			pyfmt.Uint(uint64(l.Timeline)), pyfmt.Uint(uint64(l.LSN)), pyfmt.String(l.Reason),
			pyfmt.String(l.Timestamp), pyfmt.String(string(l.NewLeader)),
		}
		row, object := make([]string, len(cells)), pyfmt.Object()
		for i, cell := range cells {
			row[i] = cellText(cell)
			object.Set(head[i], cell)
		}
		t.rows, rows = append(t.rows, row), append(rows, object)
	}
	switch format {
	case "json":
		return pyfmt.List(rows...).JSON() + "\n"
	case "yaml", "yml":
		return pyfmt.List(rows...).YAML() + "\n"
	case "tsv":
		var b strings.Builder
		for _, row := range append([][]string{head}, t.rows...) {
			b.WriteString(strings.Join(row, "\t") + "\n")
		}
		return b.String()
	}
	return t.String()
}

func (a *App) showConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show-config [OPTIONS] [CLUSTER_NAME]",
		Short: "Show cluster configuration",
		Long:  "Show the configuration that all members share, as YAML.",
		Args:  atMostOne,
		RunE: a.on(func(ctx context.Context, s *session) error {
			c, err := s.look(ctx)
			if err != nil {
				return err
			}
			if c.config.IsObject() {
				a.printf("%s\n", c.config.YAML())
			}
			return nil
		}),
	}
	a.Target(cmd)
	return cmd
}

func roles() []string {
	return []string{"leader", "primary", "standby-leader", "replica", "standby", "any", "master"}
}

func (a *App) dsn() *cobra.Command {
	var role, name string
	cmd := &cobra.Command{
		Use:   "dsn [OPTIONS] [CLUSTER_NAME]",
		Short: "Generate a dsn for the provided member, defaults to a dsn of the leader",
		Args:  atMostOne,
		RunE: a.on(func(ctx context.Context, s *session) error {
			if role != "" && name != "" {
				return fail("--role and --member are mutually exclusive options")
			}
			c, err := s.look(ctx)
			if err != nil {
				return err
			}
			for _, m := range c.members {
				if m.host != "" && (name != "" && string(m.Name) == name || name == "" && c.plays(m, role)) {
					a.printf("host=%s port=%d\n", m.host, m.port)
					return nil
				}
			}
			return fail("Can not find a suitable member")
		}),
	}
	cmd.Flags().VarP(choice{&role, roles(), "ROLE"}, "role", "r", "the first member with this role: "+strings.Join(roles()[:6], ", "))
	cmd.Flags().StringVarP(&name, "member", "m", "", "the member of this `NAME`")
	a.Target(cmd)
	return cmd
}

// plays tells whether a member has a role; no role means the leader.
func (c cluster) plays(m member, role string) bool {
	leads := m.Name == c.Leader.Name
	switch role {
	case "", "leader":
		return leads
	case "primary", "master":
		return leads && !c.standbyCluster()
	case "standby-leader":
		return leads && c.standbyCluster()
	case "replica", "standby":
		return !leads
	default:
		return true
	}
}

func (a *App) version() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version [OPTIONS] [CLUSTER_NAME] [MEMBER_NAMES]...",
		Short: "Output version of " + a.env.Program + " command or a running Patroni instance",
		Long: "Print this program's version; with a cluster's name, also what its members run: the version of Patroni whose\n" +
			"behaviour they have, Regent's own, and PostgreSQL's.",
		RunE: a.run(func(ctx context.Context, args []string) error {
			own := a.env.Version
			if a.env.Program == "patronictl" {
				own = fsm.PatroniVersion // scripts compare it
			}
			a.println(a.env.Program + " version " + own)
			if len(args) == 0 {
				return nil
			}
			s, err := a.open(ctx, args[0])
			if err != nil {
				return err
			}
			defer s.close()
			return s.versions(ctx, args[1:])
		}),
	}
	a.Target(cmd)
	return cmd
}

func (s *session) versions(ctx context.Context, only []string) error {
	c, err := s.look(ctx)
	if err != nil {
		return err
	}
	caller, err := s.app.env.Dial(s.cfg.Ctl)
	if err != nil {
		return err
	}
	s.app.println("")
	for _, m := range c.members {
		if len(only) > 0 && !contains(only, string(m.Name)) {
			continue
		}
		text, err := askVersion(ctx, caller, m)
		if err != nil {
			text = fmt.Sprintf("failed to get version: %v", err)
		}
		s.app.printf("%s: %s\n", m.Name, text)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func askVersion(ctx context.Context, caller Caller, m member) (string, error) {
	target, err := endpoint(m.APIURL, "patroni")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout+5*time.Second)
	defer cancel()
	_, reply, err := caller.Call(ctx, http.MethodGet, target, nil)
	if err != nil {
		return "", err
	}
	v, err := pyfmt.Parse(reply)
	if err != nil {
		return "", err
	}
	text := "Patroni " + v.Get("patroni").Get("version").Str()
	if n, ok := v.Get("server_version").Uint64(); ok {
		text += " PostgreSQL " + serverVersion(n)
	}
	if m.Regent != "" {
		text += " Regent " + m.Regent
	}
	return text, nil
}

// serverVersion spells PostgreSQL's number: 150018 is 15.18.
func serverVersion(n uint64) string {
	if n < 100000 {
		return fmt.Sprintf("%d.%d.%d", n/10000, n/100%100, n%100)
	}
	return fmt.Sprintf("%d.%d", n/10000, n%10000)
}
