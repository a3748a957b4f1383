package config

import (
	"fmt"
	"strings"
)

// Reference returns the manual of all settings as Markdown, made from the tables that
// the agent itself goes by.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# Settings

Generated from the tables in internal/config; change them there.

A member reads one file, ` + "`patroni.yml`" + `, the same that Patroni reads, or a folder of such files, merged in the
order of their names. Variables named ` + "`PATRONI_…`" + ` win over the file. What all members share is in the store,
under ` + "`/config`" + `, and is changed with ` + "`regent edit-config`" + ` or ` + "`PATCH /config`" + `; the section ` + "`bootstrap.dcs`" + `
is its first contents.

YAML is read as version 1.1, as Patroni does: ` + "`on`, `off`, `yes`, `no`" + ` are booleans, ` + "`0644`" + ` is 420 and
` + "`1:30`" + ` is 90 unless they are quoted. Times are seconds, fractions allowed, or carry a unit (` + "`us ms s min h d`" + `);
sizes are bytes or carry one (` + "`B kB MB GB TB`" + `).

The column *Works* says what this release does: **yes**; **not yet**: known, without effect, named in one line of the log
at start; **refused unless off**: it promises safety that this release can't give, so the agent doesn't start with it;
**no meaning here**: it tunes Patroni's runtime. Unknown keys are named in one line of the log.

`)
	b.WriteString("## The file of a member\n\n")
	writeTable(&b, localIndex, "")
	b.WriteString("\nA key marked ↻ needs a restart of the agent; all others are taken up by a reload (SIGHUP, `POST /reload`).\n")
	b.WriteString("\n## Shared by all members: `/config`\n\n")
	b.WriteString("The keys below `postgresql` that carry no address, path or credential may stand here too; a member's own value wins.\n\n")
	writeTable(&b, dynamicIndex, "postgresql.")
	b.WriteString("\n## Parameters that all members agree on\n\n")
	b.WriteString("Taken from `postgresql.parameters` of `/config` only, and given to PostgreSQL on its command line.\n\n")
	b.WriteString("| Parameter | Default | Accepted |\n|---|---|---|\n")
	b.WriteString("| `listen_addresses`, `port` | from `postgresql.listen` | never set by hand |\n")
	b.WriteString("| `cluster_name` | `scope` | never set by hand |\n")
	for _, c := range controlledParameters() {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", c.name, c.def, c.wants)
	}
	b.WriteString("| `wal_keep_size` | `128MB` | at least 16MB; `wal_keep_segments` means the same in segments of 16MB |\n")
	b.WriteString("\n## Settings that are refused\n\n")
	b.WriteString("| Setting | Why | Instead |\n|---|---|---|\n")
	for _, p := range promises() {
		name := p.path
		if p.shared {
			name = "`/config`: " + name
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, p.why, p.hint)
	}
	return b.String()
}

// writeTable prints the rows of an index, those below skip left out.
func writeTable(b *strings.Builder, x *keyIndex, skip string) {
	b.WriteString("| Key | Type | Default | Variable | Works | Meaning |\n|---|---|---|---|---|---|\n")
	for _, k := range x.rows {
		if skip != "" && strings.HasPrefix(k.path, skip) && k.path != "postgresql.use_slots" {
			continue
		}
		name, env, kind := "`"+k.path+"`", "", k.typ.String()
		if k.restart && k.typ != tSection {
			name += " ↻"
		}
		if k.env != "" {
			env = "`" + envPrefix + k.env + "`"
		}
		if k.typ == tEnum {
			kind = strings.Join(k.enum, ", ")
		}
		if k.limits != nil {
			kind += limitNote(*k.limits)
		}
		works := k.status.String()
		if k.typ == tSection {
			works = ""
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", name, kind, escapeCell(k.def), env, works, escapeCell(k.doc))
	}
}

func limitNote(l limits) string {
	switch {
	case l.hi >= 1<<62 && l.lo <= 0.001:
		return ""
	case l.hi >= 1<<62:
		return fmt.Sprintf(", from %.0f", l.lo)
	default:
		return fmt.Sprintf(", %v to %v", l.lo, l.hi)
	}
}

func escapeCell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
