package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/internal/ctl/story"
)

func (a *App) why() *cobra.Command {
	at := ""
	cmd := &cobra.Command{
		Use:   "why [OPTIONS]",
		Short: "Explain an agent's decision, now or at a time",
		Long: "Explain the decision that was in force: the phase, the rule and its reason, the fact that led to it, what was\n" +
			"considered and rejected, and the changes of phase before. It reads the journal of an agent on this machine,\n" +
			"which may be running or not.",
		Args: none,
	}
	cmd.Flags().StringVar(&at, "at", "", "the `TIME` to explain: 2026-11-23 03:22:35, 03:22, RFC 3339, or 10m for ten minutes ago; by default now")
	dir := a.folder(cmd)
	cmd.RunE = a.run(func(context.Context, []string) error {
		path, err := dir()
		if err != nil {
			return err
		}
		when := a.env.Now()
		if at != "" {
			if when, err = parseTime(at, when); err != nil {
				return err
			}
		}
		answer, err := story.Ask(path, when)
		if err != nil {
			return fmt.Errorf("read journal %s: %w", path, err)
		}
		answer.Now = at == ""
		a.printf("%s", answer.Text(when.Location()))
		return nil
	})
	return cmd
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
