package pyfmt

import (
	"fmt"
	"slices"
	"strings"
)

// styles says in which styles a string can be written.
type styles struct {
	flowPlain, blockPlain, single, multiline bool
}

func isBreak(r rune) bool {
	return r == '\n' || r == 0x85 || r == 0x2028 || r == 0x2029
}

func isBlank(r rune) bool {
	return r == 0 || r == ' ' || r == '\t' || r == '\r' || isBreak(r)
}

func isPrintable(r rune) bool {
	switch {
	case r == '\n', r >= ' ' && r <= '~', r == 0x85:
		return true
	case r == 0xfeff:
		return false
	}
	return r >= 0xa0 && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000
}

// analyse looks for what gets in the way of a style: characters with a meaning, blanks at
// the ends or beside line breaks, characters that must be escaped.
func analyse(s string) styles {
	rs := []rune(s)
	if len(rs) == 0 {
		return styles{blockPlain: true, single: true}
	}
	flow, block := indicators(rs)
	var breaks, besideBreak, special bool
	for i, r := range rs {
		breaks = breaks || isBreak(r)
		special = special || !isPrintable(r)
		if r == ' ' && i > 0 && isBreak(rs[i-1]) || isBreak(r) && i > 0 && rs[i-1] == ' ' {
			besideBreak = true
		}
	}
	edge := func(r rune) bool { return r == ' ' || isBreak(r) }
	plain := !breaks && !special && !besideBreak && !edge(rs[0]) && !edge(rs[len(rs)-1])
	return styles{
		flowPlain: plain && !flow, blockPlain: plain && !block,
		single: !besideBreak && !special, multiline: breaks,
	}
}

// indicators tells whether a plain scalar in flow or block context would be taken for
// something else.
func indicators(rs []rune) (flow, block bool) {
	if s := string(rs[:min(3, len(rs))]); s == "---" || s == "..." {
		flow, block = true, true
	}
	for i, r := range rs {
		blankAfter := i+1 >= len(rs) || isBlank(rs[i+1])
		switch {
		case i == 0 && strings.ContainsRune("#,[]{}&*!|>'\"%@`", r):
			flow, block = true, true
		case i == 0 && r == '-' && blankAfter:
			flow, block = true, true
		case i > 0 && strings.ContainsRune(",[]{}", r):
			flow = true
		case i > 0 && r == '#' && isBlank(rs[i-1]):
			flow, block = true, true
		case r == ':':
			flow, block = true, block || blankAfter
		case r == '?':
			flow, block = true, block || i == 0 && blankAfter
		}
	}
	return flow, block
}

// plain and single write pieces between single blanks, and fold at one that stands
// beyond the width.
func (w *writer) plain(rs []rune, indent int, key bool) {
	for i := 0; i < len(rs); {
		end := i + runLength(rs[i:], rs[i] == ' ')
		if rs[i] == ' ' && end == i+1 && w.column > width && !key {
			w.newline(indent)
		} else {
			w.write(string(rs[i:end]))
		}
		i = end
	}
}

func (w *writer) single(rs []rune, indent int, key bool) {
	w.write("'")
	for i := 0; i < len(rs); {
		end := i + runLength(rs[i:], rs[i] == ' ')
		switch {
		case isBreak(rs[i]):
			end = i + slices.IndexFunc(append(slices.Clone(rs[i:]), 'x'), func(r rune) bool { return !isBreak(r) })
			w.breaks(rs[i:end], indent)
		case rs[i] == ' ' && end == i+1 && w.column > width && !key && i > 0 && end < len(rs):
			w.newline(indent)
		default:
			w.write(strings.ReplaceAll(string(rs[i:end]), "'", "''"))
		}
		i = end
	}
	w.write("'")
}

// runLength is the length of the blanks, or of what is no blank, at the beginning.
func runLength(rs []rune, blank bool) int {
	for i, r := range rs {
		if (r == ' ') != blank || isBreak(r) && i > 0 || isBreak(rs[0]) {
			return max(i, 1)
		}
	}
	return len(rs)
}

// breaks writes line breaks inside a quoted scalar: one more than there are, because a
// single one reads as a blank.
func (w *writer) breaks(rs []rune, indent int) {
	if rs[0] == '\n' {
		w.out.WriteByte('\n')
	}
	for _, r := range rs {
		w.out.WriteRune(r)
	}
	w.out.WriteString(strings.Repeat(" ", indent))
	w.column = indent
}

func (w *writer) double(rs []rune, indent int, key bool) {
	w.write(`"`)
	start := 0
	for end := 0; end <= len(rs); end++ {
		atEnd := end == len(rs)
		if atEnd || mustEscape(rs[end]) {
			w.write(string(rs[start:end]))
			start = end
			if !atEnd {
				w.write(escape(rs[end]))
				start = end + 1
			}
		}
		if end > 0 && end < len(rs)-1 && (rs[end] == ' ' || start >= end) && w.column+end-start > width && !key {
			if start < end {
				w.write(string(rs[start:end]))
				start = end
			}
			w.write(`\`)
			w.newline(indent)
			if rs[start] == ' ' {
				w.write(`\`)
			}
		}
	}
	w.write(`"`)
}

func mustEscape(r rune) bool {
	if strings.ContainsRune("\"\\\u0085\u2028\u2029\ufeff", r) {
		return true
	}
	return !(r >= ' ' && r <= '~' || r >= 0xa0 && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd)
}

func escape(r rune) string {
	const named = "\x000\aa\bb\tt\nn\vv\ff\rr\x1be\"\"\\\\\u0085N\u00a0_\u2028L\u2029P"
	for i, n := 0, []rune(named); i < len(n); i += 2 {
		if n[i] == r {
			return `\` + string(n[i+1])
		}
	}
	switch {
	case r <= 0xff:
		return fmt.Sprintf(`\x%02X`, r)
	case r <= 0xffff:
		return fmt.Sprintf(`\u%04X`, r)
	}
	return fmt.Sprintf(`\U%08X`, r)
}
