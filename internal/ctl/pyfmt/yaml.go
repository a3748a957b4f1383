package pyfmt

import (
	"strings"
)

// width is where lines are folded.
const width = 200

// YAML is the value in block style, keys sorted, ending with a line break.
func (v Value) YAML() string {
	w := &writer{}
	w.node(v, 0)
	w.out.WriteByte('\n')
	return w.out.String()
}

// Flow is the value in flow style, keys sorted, without a line break at the end.
func (v Value) Flow() string {
	w := &writer{flow: true}
	w.node(v, 2)
	return w.out.String()
}

// writer counts columns in runes, as the width is meant.
type writer struct {
	out    strings.Builder
	column int
	flow   bool
}

func (w *writer) write(s string) {
	w.out.WriteString(s)
	w.column += len([]rune(s))
}

func (w *writer) newline(indent int) {
	w.out.WriteString("\n" + strings.Repeat(" ", indent))
	w.column = indent
}

// node writes a value where the cursor is. indent is that of the collection that v is,
// or, for a scalar, of its continuation lines.
func (w *writer) node(v Value, indent int) {
	switch {
	case v.kind == kindObject && w.flow:
		w.flowItems("{", "}", v.sorted(), indent)
	case v.kind == kindList && w.flow:
		w.flowItems("[", "]", v, indent)
	case v.kind == kindObject && len(v.keys) == 0:
		w.write("{}")
	case v.kind == kindList && len(v.items) == 0:
		w.write("[]")
	case v.kind == kindObject:
		w.mapping(v.sorted(), indent)
	case v.kind == kindList:
		w.sequence(v, indent)
	case v.kind == kindString:
		w.text(v.text, indent, false)
	case v.kind == kindNumber && !strings.Contains(v.text, "."):
		// A float needs a point to be read as one.
		w.write(strings.Replace(v.text, "e", ".0e", 1))
	default:
		w.write(v.JSON())
	}
}

func (w *writer) mapping(v Value, indent int) {
	for i, key := range v.keys {
		if i > 0 {
			w.newline(indent)
		}
		w.text(key, indent, true)
		w.write(":")
		item := v.items[i]
		switch {
		case item.kind == kindObject && len(item.keys) > 0:
			w.newline(indent + 2)
			w.mapping(item.sorted(), indent+2)
		case item.kind == kindList && len(item.items) > 0:
			w.newline(indent) // a list stands at the column of its key
			w.sequence(item, indent)
		default:
			w.write(" ")
			w.node(item, indent+2)
		}
	}
}

func (w *writer) sequence(v Value, indent int) {
	for i, item := range v.items {
		if i > 0 {
			w.newline(indent)
		}
		w.write("- ")
		w.node(item, indent+2)
	}
}

func (w *writer) flowItems(left, right string, v Value, indent int) {
	w.write(left)
	for i, item := range v.items {
		if i > 0 {
			w.write(",")
		}
		switch {
		case w.column > width:
			w.newline(indent)
		case i > 0:
			w.write(" ")
		}
		if v.kind == kindObject {
			w.text(v.keys[i], indent, true)
			w.write(": ")
		}
		w.node(item, indent+2)
	}
	w.write(right)
}

// text writes a string in the simplest style that reads back as the same string. A key
// is never folded.
func (w *writer) text(s string, indent int, key bool) {
	a := analyse(s)
	plain := a.blockPlain
	if w.flow {
		plain = a.flowPlain
	}
	switch {
	case plain && !plainMeans(s):
		w.plain([]rune(s), indent, key)
	case a.single && !(key && a.multiline):
		w.single([]rune(s), indent, key)
	default:
		w.double([]rune(s), indent, key)
	}
}
