package ctl

import (
	"strings"

	"github.com/pgregent/regent/internal/ctl/pyfmt"
)

// column is one column of list.
type column struct {
	// name in machine formats.
	name string
	// head in tables, when it differs.
	head  string
	right bool
	// optional columns are shown only when some member has a value.
	optional bool
	// cell returns null or "" for an empty one.
	cell func(c cluster, m member) pyfmt.Value
	// pretty is the cell's text in tables, when it differs.
	pretty func(m member) string
}

func (c column) tableHead() string {
	if c.head != "" {
		return c.head
	}
	return c.name
}

// columnsOf lists the columns to show; legacy: those of 3.0.4.
func columnsOf(c cluster, extended, legacy bool) []column {
	var out []column
	for _, col := range allColumns(legacy) {
		if !col.optional || extended || anyValue(c, col) {
			out = append(out, col)
		}
	}
	return out
}

func anyValue(c cluster, col column) bool {
	for _, m := range c.members {
		if m.host != "" && !isEmpty(col.cell(c, m)) {
			return true
		}
	}
	return false
}

func allColumns(legacy bool) []column {
	cols := []column{
		{name: "Member", cell: func(_ cluster, m member) pyfmt.Value { return pyfmt.String(string(m.Name)) }},
		{name: "Host", cell: hostCell},
		{name: "Role", cell: func(c cluster, m member) pyfmt.Value { return pyfmt.String(c.role(m)) }},
		{name: "State", cell: func(c cluster, m member) pyfmt.Value { return pyfmt.String(c.state(m)) }},
		{name: "TL", right: true, cell: timelineCell},
	}
	if legacy {
		cols = append(cols, column{name: "Lag in MB", right: true, cell: legacyLag})
	} else {
		cols = append(cols,
			column{name: "Receive LSN", right: true, cell: lsnCell("receive_lsn")},
			column{name: "Receive Lag", head: "Lag", right: true, cell: lagCell("receive_lsn")},
			column{name: "Replay LSN", right: true, cell: lsnCell("replay_lsn")},
			column{name: "Replay Lag", head: "Lag", right: true, cell: lagCell("replay_lsn")},
		)
	}
	cols = append(cols, column{name: "Pending restart", optional: true, cell: pendingCell})
	if !legacy {
		cols = append(cols, column{name: "Pending restart reason", optional: true, cell: reasonCell, pretty: prettyReason})
	}
	return append(cols,
		column{name: "Scheduled restart", optional: true, cell: func(_ cluster, m member) pyfmt.Value { return pyfmt.String(m.scheduledRestart()) }},
		column{name: "Tags", optional: true, cell: tagsCell, pretty: prettyTags},
	)
}

func hostCell(c cluster, m member) pyfmt.Value {
	if m.host != "" && duplicateHosts(c.members) {
		return pyfmt.String(m.address())
	}
	return pyfmt.String(m.host)
}

func timelineCell(_ cluster, m member) pyfmt.Value {
	if m.Timeline == 0 {
		return pyfmt.Value{}
	}
	return pyfmt.Uint(uint64(m.Timeline))
}

// The holder has no lag. Of whoever publishes no position it is unknown.
func legacyLag(c cluster, m member) pyfmt.Value {
	switch {
	case m.Name == c.Leader.Name:
		return pyfmt.Value{}
	case m.XLogLocation == 0:
		return pyfmt.String("unknown")
	default:
		return c.lagMB(m.XLogLocation)
	}
}

func lsnCell(field string) func(cluster, member) pyfmt.Value {
	return func(c cluster, m member) pyfmt.Value {
		at := m.lsn(field)
		switch {
		case m.Name == c.Leader.Name:
			return pyfmt.Value{}
		case at == 0:
			return pyfmt.String("unknown")
		default:
			return pyfmt.String(at.String())
		}
	}
}

func lagCell(field string) func(cluster, member) pyfmt.Value {
	return func(c cluster, m member) pyfmt.Value {
		at := m.lsn(field)
		if m.Name == c.Leader.Name || at == 0 {
			return pyfmt.Value{}
		}
		return c.lagMB(at)
	}
}

func pendingCell(_ cluster, m member) pyfmt.Value {
	if m.PendingRestart {
		return pyfmt.String("*")
	}
	return pyfmt.Value{}
}

func reasonCell(_ cluster, m member) pyfmt.Value {
	return pyfmt.String(strings.Join(m.pendingReasons(), "\n"))
}

// prettyReason hides values that would make the table unreadable.
func prettyReason(m member) string {
	lines := m.pendingReasons()
	for i, line := range lines {
		if name, _, ok := strings.Cut(line, ": "); ok && len([]rune(line)) > 50 {
			lines[i] = name + ": [hidden - too long]"
		}
	}
	return strings.Join(lines, "\n")
}

func tagsCell(_ cluster, m member) pyfmt.Value {
	if tags := m.doc.Get("tags"); tags.IsObject() && len(tags.Keys()) > 0 {
		return tags
	}
	return pyfmt.Value{}
}

func prettyTags(m member) string {
	tags := tagsCell(cluster{}, m)
	if isEmpty(tags) {
		return ""
	}
	return strings.TrimSpace(tags.YAML())
}

// flow puts a mapping on one line.
func flow(v pyfmt.Value) pyfmt.Value {
	if isEmpty(v) {
		return v
	}
	return pyfmt.String(v.Flow())
}

func cellText(v pyfmt.Value) string {
	if isEmpty(v) {
		return ""
	}
	return v.Text()
}

func isEmpty(v pyfmt.Value) bool { return v.IsNull() || v.IsString() && v.Str() == "" }
