package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/ctl/pyfmt"
	"github.com/pgregent/regent/internal/ctl/story"
	"github.com/pgregent/regent/internal/replay"
)

func (a *App) journalGroup() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "journal COMMAND",
		Short: "Read, check and replay an agent's journal",
		Long: "Read, check and replay the journal in which an agent on this machine keeps every fact and decision.\n" +
			"The folder is given by --dir, or found in the configuration file. The agent may be running.",
	})
	a.fileOption(cmd)
	cmd.AddCommand(a.journalShow(), a.journalVerify(), a.journalReplay())
	return cmd
}

// group is a command that only has sub-commands.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(cmd, "No such command '%s'.", args[0])
		}
		return cmd.Help()
	}
	return cmd
}

// folder adds --dir and -c, and returns what finds the journal's folder.
func (a *App) folder(cmd *cobra.Command) func() (string, error) {
	a.fileOption(cmd)
	return a.folderFlag(cmd)
}

// folderFlag is folder without -c.
func (a *App) folderFlag(cmd *cobra.Command) func() (string, error) {
	dir := ""
	cmd.Flags().StringVar(&dir, "dir", "", "the journal's `FOLDER` (by default regent.journal.dir of the configuration)")
	return func() (string, error) {
		found := dir
		if found == "" {
			c, err := a.load()
			if err != nil {
				return "", err
			}
			found = c.Regent.JournalDir
		}
		if found == "" {
			return "", fail("Which journal? Give its folder by --dir, or the agent's configuration file by -c")
		}
		info, err := os.Stat(found)
		switch {
		case err != nil:
			return "", fail("The journal's folder %s can't be read: %v", found, reasonOf(err))
		case !info.IsDir():
			return "", fail("%s is no folder", found)
		}
		return found, nil
	}
}

// reasonOf is the system's word for what went wrong, without the path told already.
func reasonOf(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// telling are the options of journal show.
type telling struct {
	all          bool
	last         int
	since, until string
	format       string
}

func (a *App) journalShow() *cobra.Command {
	o := telling{format: "pretty"}
	cmd := &cobra.Command{
		Use:   "show [OPTIONS]",
		Short: "Tell the journal as a story, one line an event",
		Long: "Tell the journal as a story: time, number, what happened, and after => the phase, the reason and the actions\n" +
			"in brackets. Heartbeats and observations that changed nothing are one line a stretch, unless --all is given.",
		Args: none,
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "leave nothing out")
	f.IntVarP(&o.last, "last", "n", 0, "only the last `N` lines")
	f.StringVar(&o.since, "since", "", "from this `TIME` on: 2026-11-23 03:22:35, 03:22, RFC 3339, or 10m for ten minutes ago")
	f.StringVar(&o.until, "until", "", "up to this `TIME`")
	f.VarP(choice{&o.format, []string{"pretty", "json"}, "FORMAT"}, "format", "f", "output format: pretty, or json (one object a line)")
	dir := a.folder(cmd)
	cmd.RunE = a.run(func(ctx context.Context, _ []string) error {
		path, err := dir()
		if err != nil {
			return err
		}
		return a.tell(ctx, path, o)
	})
	return cmd
}

func (a *App) tell(ctx context.Context, dir string, o telling) error {
	since, until := time.Time{}, time.Time{}
	for _, t := range []struct {
		text string
		into *time.Time
	}{{o.since, &since}, {o.until, &until}} {
		if t.text != "" {
			at, err := parseTime(t.text, a.env.Now())
			if err != nil {
				return err
			}
			*t.into = at
		}
	}
	out := lastLines{app: a, max: o.last}
	var digest story.Digest
	for c, err := range story.Read(dir, a.env.Now().Location()) {
		switch {
		case err != nil:
			return fmt.Errorf("read journal %s: %w", dir, err)
		case ctx.Err() != nil:
			return ctx.Err()
		case c.Note == "" && (c.Wall.Before(since) || !until.IsZero() && c.From.After(until)):
			continue
		}
		tell, idle := digest.Take(c)
		switch {
		case o.format == "json":
			out.add(chapterJSON(c).JSON())
		case o.all:
			out.add(c.Line())
		case tell:
			out.addIdle(idle)
			out.add(c.Line())
		}
	}
	if o.format != "json" && !o.all {
		out.addIdle(digest.End())
	}
	out.end()
	return nil
}

// lastLines prints lines at once, or keeps the last ones until the end.
type lastLines struct {
	app  *App
	max  int // 0: all
	kept []string
}

func (l *lastLines) add(line string) {
	if l.max <= 0 {
		l.app.println(line)
		return
	}
	l.kept = append(l.kept, line)
	if len(l.kept) > 2*l.max {
		l.kept = append([]string(nil), l.kept[len(l.kept)-l.max:]...)
	}
}

func (l *lastLines) addIdle(idle *story.Idle) {
	if idle != nil {
		l.add(idle.Line())
	}
}

func (l *lastLines) end() {
	for _, line := range l.kept[max(0, len(l.kept)-max(l.max, 0)):] {
		l.app.println(line)
	}
}

func chapterJSON(c story.Chapter) pyfmt.Value {
	v := pyfmt.Object()
	if c.Note != "" {
		v.Set("note", pyfmt.String(c.Note))
		return v
	}
	v.Set("seq", pyfmt.Uint(c.Seq))
	v.Set("time", pyfmt.String(c.Wall.UTC().Format(time.RFC3339Nano)))
	v.Set("event", pyfmt.String(c.Kind))
	if q := c.Quiet; q != nil {
		v.Set("since", pyfmt.String(c.From.UTC().Format(time.RFC3339Nano)))
		v.Set("count", pyfmt.Uint(q.Count))
	}
	if c.Event != nil {
		v.Set("fact", pyfmt.String(story.Sentence(c.Event)))
	}
	j := c.Journaled
	if j == nil {
		return v
	}
	v.Set("from", pyfmt.String(string(j.From)))
	v.Set("to", pyfmt.String(string(j.To)))
	if j.Trigger != "" {
		v.Set("trigger", pyfmt.String(string(j.Trigger)))
	}
	v.Set("rule", pyfmt.String(j.Rule))
	v.Set("reason", pyfmt.String(j.Text))
	var actions []pyfmt.Value
	for _, act := range j.Actions {
		actions = append(actions, pyfmt.String(act))
	}
	v.Set("actions", pyfmt.List(actions...))
	return v
}

func (a *App) journalVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [OPTIONS]",
		Short: "Check the journal's checksums, numbering and snapshots",
		Long:  "Check that every record is whole and none is missing. Marked gaps are listed and are no error.",
		Args:  none,
	}
	dir := a.folder(cmd)
	cmd.RunE = a.run(func(context.Context, []string) error {
		path, err := dir()
		if err != nil {
			return err
		}
		report, err := journal.Verify(path)
		if err != nil {
			return fmt.Errorf("verify journal %s: %w", path, err)
		}
		return a.verified(path, report)
	})
	return cmd
}

func (a *App) verified(dir string, r journal.Report) error {
	t := table{header: []string{"Segment", "Epoch", "First", "Last", "Records", "Bytes", "Remark"}, right: []bool{false, true, true, true, true, true, false}}
	for _, s := range r.Segments {
		t.rows = append(t.rows, []string{
			s.Name, fmt.Sprint(s.Epoch), fmt.Sprint(s.FirstSeq), fmt.Sprint(s.LastSeq), fmt.Sprint(s.Records), fmt.Sprint(s.Bytes), s.Problem,
		})
	}
	if len(t.rows) > 0 {
		a.printf("%s", t)
	}
	for _, g := range r.Gaps {
		a.printf("gap before epoch %d: %s\n", g.Epoch, gapText(g.Gap))
	}
	for _, p := range r.Problems {
		a.println("problem: " + p)
	}
	if !r.OK() {
		return fail("The journal in %s is damaged: %d problem%s", dir, len(r.Problems), plural(len(r.Problems)))
	}
	a.printf("The journal is sound: %d segment%s, %d marked gap%s.\n", len(r.Segments), plural(len(r.Segments)), len(r.Gaps), plural(len(r.Gaps)))
	return nil
}

func gapText(g journal.Gap) string {
	if g.From == 0 && g.To == 0 {
		return g.Reason
	}
	return fmt.Sprintf("records %d to %d are missing: %s", g.From, g.To, g.Reason)
}

func (a *App) journalReplay() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replay [OPTIONS]",
		Short: "Recompute every decision, and fail on the first that differs",
		Long: "Step this program's machine through the journaled facts and compare each decision with the journaled one.\n" +
			"Each program that wrote the journal is named where it begins. Decisions of another program than this one, which\n" +
			"may have had other rules, and those made under another transition table are counted and not compared.",
		Args: none,
	}
	dir := a.folder(cmd)
	every := cmd.Flags().Bool("any", false, "compare the decisions of other programs too")
	cmd.RunE = a.run(func(context.Context, []string) error {
		path, err := dir()
		if err != nil {
			return err
		}
		program, err := replay.BinaryHash()
		if err != nil {
			return err
		}
		if *every {
			program = replay.AnyProgram
		}
		r, err := replay.Check(path, program)
		a.programs(r.Programs, program)
		if err != nil {
			return fmt.Errorf("replay journal %s: %w", path, err)
		}
		a.printf("%d facts replayed, %d decisions compared and equal, up to record %d", r.Facts, r.Compared, r.LastSeq)
		var also []string
		if r.Quiet > 0 {
			also = append(also, fmt.Sprintf("%d quiet stretch%s put in place", r.Quiet, map[bool]string{true: "", false: "es"}[r.Quiet == 1]))
		}
		if r.Uncounted > 0 {
			also = append(also, fmt.Sprintf("%d decisions not compared (of another program, under another table than %s, or after a hole)", r.Uncounted, fsm.TableHash()))
		}
		if r.Gaps > 0 {
			also = append(also, fmt.Sprintf("%d gap%s", r.Gaps, plural(r.Gaps)))
		}
		a.println(strings.Join(append([]string{""}, also...), "; ") + ".")
		return nil
	})
	return cmd
}

// programs says who wrote the journal, unless it was one program, and this one.
func (a *App) programs(list []replay.Program, mine string) {
	if len(list) == 1 && list[0].Compared {
		return
	}
	for _, p := range list {
		what := "compared"
		switch {
		case p.Compared:
		case mine != replay.AnyProgram && p.Binary != mine:
			what = "not compared, it isn't this program (--any does)"
		default:
			what = "not compared, its transition table was another"
		}
		a.printf("from record %d on, written by program %s: %s\n", p.From, p.Binary, what)
	}
}
