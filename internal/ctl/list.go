package ctl

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/ctl/pyfmt"
)

func formats() []string { return []string{"pretty", "tsv", "json", "yaml", "yml"} }

// looking are the options of commands that show members.
type looking struct {
	format    string
	extended  bool
	timestamp bool
	watch     bool
	every     float64 // seconds
	tree      bool
}

func (a *App) list() *cobra.Command {
	o := looking{format: "pretty"}
	cmd := &cobra.Command{
		Use:   "list [OPTIONS] [CLUSTER_NAMES]...",
		Short: "List the Patroni members for a given Patroni",
		Long:  "List the members of a cluster: their roles, states, timelines and how far they are behind.",
		RunE:  a.run(func(ctx context.Context, args []string) error { return a.show(ctx, args, o) }),
	}
	f := cmd.Flags()
	f.BoolVarP(&o.extended, "extended", "e", false, "show the columns that are empty everywhere, too")
	f.BoolVarP(&o.timestamp, "timestamp", "t", false, "print the time first")
	f.VarP(choice{&o.format, formats(), "FORMAT"}, "format", "f", "output format: pretty, tsv, json or yaml")
	watchFlags(cmd, &o)
	a.Target(cmd)
	return cmd
}

func (a *App) topology() *cobra.Command {
	o := looking{format: "pretty", tree: true}
	cmd := &cobra.Command{
		Use:   "topology [OPTIONS] [CLUSTER_NAMES]...",
		Short: "Prints ASCII topology for given cluster",
		Long:  "List the members of a cluster as a tree: who replicates from whom.",
		RunE:  a.run(func(ctx context.Context, args []string) error { return a.show(ctx, args, o) }),
	}
	watchFlags(cmd, &o)
	a.Target(cmd)
	return cmd
}

func watchFlags(cmd *cobra.Command, o *looking) {
	cmd.Flags().BoolVarP(&o.watch, "refresh", "W", false, "repeat every two seconds, until interrupted")
	cmd.Flags().Float64VarP(&o.every, "watch", "w", 0, "repeat every so many `SECONDS`, until interrupted")
}

// show prints the clusters once, or again and again.
func (a *App) show(ctx context.Context, names []string, o looking) error {
	pause := time.Duration(o.every * float64(time.Second))
	if pause <= 0 && o.watch {
		pause = 2 * time.Second
	}
	if len(names) == 0 {
		c, err := a.load()
		if err != nil {
			return err
		}
		if _, err := a.storeAddress(c, ""); err != nil {
			return err
		}
		if c.Scope == "" {
			a.env.Log.Warn("Listing members: No cluster names were provided")
			return nil
		}
		names = []string{""}
	}
	var sessions []*session
	for _, name := range names {
		s, err := a.open(ctx, name)
		if err != nil {
			return err
		}
		defer s.close()
		sessions = append(sessions, s)
	}
	for {
		if pause > 0 && a.env.Terminal {
			a.printf("\x1b[2J\x1b[1;1H")
		}
		if o.timestamp {
			a.println(a.env.Now().Format("2006-01-02 15:04:05"))
		}
		for _, s := range sessions {
			c, err := s.look(ctx)
			if err != nil {
				return err
			}
			a.printf("%s", s.members(c, o))
		}
		if pause <= 0 {
			return nil
		}
		if err := wait(ctx, pause); err != nil {
			return errAborted
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// members prints a cluster in the format asked for.
func (s *session) members(c cluster, o looking) string {
	cols := columnsOf(c, o.extended, s.legacy)
	switch o.format {
	case "json":
		return records(c, cols).JSON() + "\n"
	case "yaml", "yml":
		return records(c, cols).YAML() + "\n"
	case "tsv":
		return tsv(c, cols)
	}
	t := table{title: title(c, s.legacy)}
	for _, col := range cols {
		t.header, t.right = append(t.header, col.tableHead()), append(t.right, col.right)
	}
	for _, n := range arrange(c, o.tree) {
		row := make([]string, len(cols))
		for i, col := range cols {
			switch {
			case col.name == "Member":
				row[i] = n.prefix + string(n.member.Name)
			case col.name == "Tags" && o.tree:
				row[i] = cellText(flow(col.cell(c, n.member)))
			case col.pretty != nil:
				row[i] = col.pretty(n.member)
			default:
				row[i] = cellText(col.cell(c, n.member))
			}
		}
		t.rows = append(t.rows, row)
	}
	return t.String() + footers(c)
}

// title is the upper rule's text. 3.0.4 had no system identifier in it.
func title(c cluster, legacy bool) string {
	switch {
	case legacy:
		return "Cluster: " + c.name
	case c.Initialize.Version == 0:
		return "Cluster: " + c.name + " (uninitialized)"
	case c.Initialize.SystemID == "":
		return "Cluster: " + c.name + " (initializing)"
	default:
		return "Cluster: " + c.name + " (" + string(c.Initialize.SystemID) + ")"
	}
}

func footers(c cluster) string {
	var b strings.Builder
	if c.paused() {
		b.WriteString(" Maintenance mode: on\n")
	}
	var bare []string
	for _, m := range c.members {
		if m.Unfenced == events.WaivedFencingOff {
			bare = append(bare, string(m.Name))
		}
	}
	if len(bare) > 0 {
		b.WriteString(" Fencing off: no deadline ends the primary " + strings.Join(bare, ", ") + "\n")
	}
	for _, o := range c.orphans() {
		b.WriteString(" Primary without the leader key: " + o.name + ", found by " + strings.Join(o.seenBy, ", ") +
			"; it takes writes, and nobody takes over while it does: start its agent, or stop it\n")
	}
	if f := c.Failover; f.ScheduledAt != "" {
		b.WriteString(" Switchover scheduled at: " + f.ScheduledAt + "\n")
		for _, line := range []struct{ word, name string }{{"from", string(f.Leader)}, {"to", string(f.Candidate)}} {
			if line.name != "" {
				b.WriteString(strings.Repeat(" ", 24-len(line.word)) + line.word + ": " + line.name + "\n")
			}
		}
	}
	return b.String()
}

// records is the machine-readable form: empty cells are left out.
func records(c cluster, cols []column) pyfmt.Value {
	var rows []pyfmt.Value
	for _, m := range c.members {
		row := pyfmt.Object()
		row.Set("Cluster", pyfmt.String(c.name))
		for _, col := range cols {
			if v := col.cell(c, m); !isEmpty(v) {
				row.Set(col.name, v)
			}
		}
		rows = append(rows, row)
	}
	return pyfmt.List(rows...)
}

func tsv(c cluster, cols []column) string {
	var b strings.Builder
	head := []string{"Cluster"}
	for _, col := range cols {
		head = append(head, col.name)
	}
	b.WriteString(strings.Join(head, "\t") + "\n")
	for _, m := range c.members {
		row := []string{c.name}
		for _, col := range cols {
			v := col.cell(c, m)
			separator := ", "
			if col.name == "Tags" {
				v, separator = flow(v), " " // a long one is folded at blanks
			}
			lines := strings.Split(cellText(v), "\n")
			for i, line := range lines {
				lines[i] = strings.Trim(strings.ReplaceAll(line, "\t", " "), " ")
			}
			row = append(row, strings.Join(lines, separator))
		}
		b.WriteString(strings.Join(row, "\t") + "\n")
	}
	return b.String()
}

// node is a member's place in the tree.
type node struct {
	prefix string
	member member
}

// arrange lists the members by name, or as a tree with the holder on top.
func arrange(c cluster, tree bool) []node {
	if !tree {
		out := make([]node, len(c.members))
		for i, m := range c.members {
			out[i] = node{member: m}
		}
		return out
	}
	children := map[string][]member{}
	for _, m := range c.members {
		p := parent(c, m)
		children[p] = append(children[p], m)
	}
	var out []node
	seen := map[string]bool{}
	var walk func(m member, level int)
	walk = func(m member, level int) {
		if seen[string(m.Name)] {
			return
		}
		seen[string(m.Name)] = true
		prefix := ""
		if level > 0 {
			prefix = strings.Repeat("  ", level-1) + "+ "
		}
		out = append(out, node{prefix, m})
		for _, child := range children[string(m.Name)] {
			walk(child, level+1)
		}
	}
	for _, m := range children[""] {
		walk(m, 0)
	}
	// Whoever replicates in a circle has no root; they are listed all the same.
	for _, m := range c.members {
		walk(m, 0)
	}
	return out
}

// parent is whom a member replicates from; "" for a root.
func parent(c cluster, m member) string {
	if m.Name == c.Leader.Name {
		return ""
	}
	if from, ok := c.member(m.Tags.ReplicateFrom); ok && from.Name != c.Leader.Name && from.Name != m.Name {
		return string(from.Name)
	}
	if _, ok := c.member(c.Leader.Name); ok {
		return string(c.Leader.Name)
	}
	return ""
}

// duplicateHosts: two members share a host, so that only the port tells them apart.
func duplicateHosts(ms []member) bool {
	var hosts []string
	for _, m := range ms {
		if m.host == "" {
			continue
		}
		if m.port != 5432 || slices.Contains(hosts, m.host) {
			return true
		}
		hosts = append(hosts, m.host)
	}
	return false
}
