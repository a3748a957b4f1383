package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/ctl/story"
)

// asking are the options of why.
type asking struct {
	at, member string
	dir        func() (string, error)
	given      func() bool // the journal's folder was named
}

func (a *App) why() *cobra.Command {
	o := asking{}
	cmd := &cobra.Command{
		Use:   "why [OPTIONS]",
		Short: "Explain an agent's decision, now or at a time",
		Long: "Explain the decision that was in force: the phase, the rule and its reason, the fact that led to it, what was\n" +
			"considered and rejected, and the changes of phase before. Without --member it is about the agent of the\n" +
			"configuration file: asked itself when it runs, and read from its journal otherwise, or when --dir names that.",
		Args: none,
	}
	f := cmd.Flags()
	f.StringVar(&o.at, "at", "", "the `TIME` to explain: 2026-11-23 03:22:35, 03:22, RFC 3339, or 10m for ten minutes ago; by default now")
	f.StringVarP(&o.member, "member", "m", "", "ask this `MEMBER` of the cluster over its REST API")
	o.dir = a.folderFlag(cmd)
	o.given = func() bool { return f.Changed("dir") }
	a.Target(cmd)
	cmd.RunE = a.run(func(ctx context.Context, _ []string) error { return a.explain(ctx, o) })
	return cmd
}

func (a *App) explain(ctx context.Context, o asking) error {
	when := a.env.Now()
	if o.at != "" {
		var err error
		if when, err = parseTime(o.at, when); err != nil {
			return err
		}
	}
	if o.member != "" {
		if o.given() {
			return fail("Either --member or --dir: a member is asked, a folder is read")
		}
		return a.explainMember(ctx, o, when)
	}
	if !o.given() {
		if answer, ok := a.askOwn(ctx, o, when); ok {
			a.printf("%s", answer.Text(when.Location()))
			return nil
		}
	}
	path, err := o.dir()
	if err != nil {
		return err
	}
	ask := story.Ask
	if o.at == "" {
		ask = story.AskNow
	}
	answer, err := ask(path, when)
	if err != nil {
		return fmt.Errorf("read journal %s: %w", path, err)
	}
	a.printf("%s", answer.Text(when.Location()))
	return nil
}

// askOwn asks the agent of the configuration file, which knows what isn't in its journal
// yet. An agent that doesn't run, or has no such API, is no error: its journal is there.
func (a *App) askOwn(ctx context.Context, o asking, when time.Time) (story.Answer, bool) {
	c, err := a.load()
	if err != nil || c.REST.ConnectAddress.String() == "" {
		return story.Answer{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	answer, err := a.askMember(ctx, c, c.REST.URL(), o, when)
	return answer, err == nil && answer.Member == c.Name // somebody else may have the address
}

func (a *App) explainMember(ctx context.Context, o asking, when time.Time) error {
	s, err := a.open(ctx, "")
	if err != nil {
		return err
	}
	defer s.close()
	c, err := s.look(ctx)
	if err != nil {
		return err
	}
	for _, m := range c.members {
		if string(m.Name) != o.member {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, connectTimeout+5*time.Second)
		defer cancel()
		answer, err := a.askMember(ctx, s.cfg, m.APIURL, o, when)
		if err != nil {
			return fmt.Errorf("ask member %s: %w", o.member, err)
		}
		a.printf("%s", answer.Text(when.Location()))
		return nil
	}
	return fail("Member %s is not a member of cluster %s", o.member, s.name)
}

// askMember asks one member's REST API.
func (a *App) askMember(ctx context.Context, c *config.Config, api string, o asking, when time.Time) (story.Answer, error) {
	target, err := endpoint(api, "why")
	if err != nil {
		return story.Answer{}, err
	}
	if o.at != "" {
		target += "?at=" + url.QueryEscape(when.UTC().Format(time.RFC3339Nano))
	}
	caller, err := a.env.Dial(c.Ctl)
	if err != nil {
		return story.Answer{}, err
	}
	status, reply, err := caller.Call(ctx, http.MethodGet, target, nil)
	if err != nil {
		return story.Answer{}, err
	}
	answer := story.Answer{}
	if status != http.StatusOK {
		return answer, fmt.Errorf("it answered %d: %.200s", status, reply)
	}
	if err := json.Unmarshal(reply, &answer); err != nil || answer.At.IsZero() {
		return answer, errors.New("it doesn't give reasons: it is a Patroni, or an older Regent")
	}
	return answer, nil
}

// parseTime reads the forms in which people write times. Without a zone it is the
// operator's; without a date the latest such time that is past.
func parseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d.Abs()), nil
	}
	for _, layout := range []string{
		time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			today := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), now.Location())
			if today.After(now) {
				today = today.AddDate(0, 0, -1)
			}
			return today, nil
		}
	}
	return time.Time{}, fail("Unable to parse the time %q. Write it like 2026-11-23 03:22:35, 03:22, 2026-11-23T03:22:35Z, or 10m for ten minutes ago", s)
}
