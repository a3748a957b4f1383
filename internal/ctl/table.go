package ctl

import (
	"slices"
	"strings"
	"unicode"
)

// table prints rows in patronictl's layout. Cells may have several lines; then a rule
// follows every row, or nobody could tell where one ends.
type table struct {
	// title overlays the upper rule; empty: none.
	title  string
	header []string
	right  []bool // columns aligned to the right, headers too
	rows   [][]string
}

func (t table) String() string {
	cells := make([][][]string, 0, len(t.rows)+1) // row, column, line
	multiline := false
	for _, row := range append([][]string{t.header}, t.rows...) {
		var split [][]string
		for _, cell := range row {
			l := strings.Split(printable(cell), "\n")
			multiline = multiline || len(l) > 1
			split = append(split, l)
		}
		cells = append(cells, split)
	}
	widths := make([]int, len(t.header))
	for _, row := range cells {
		for col, cell := range row {
			for _, line := range cell {
				widths[col] = max(widths[col], columns(line))
			}
		}
	}
	var b strings.Builder
	rule := ruleOf(widths)
	b.WriteString(overlay(rule, t.title) + "\n")
	for i, row := range cells {
		t.writeRow(&b, row, widths)
		if i == 0 || multiline || i == len(cells)-1 {
			b.WriteString(rule + "\n")
		}
	}
	return b.String()
}

func (t table) writeRow(b *strings.Builder, row [][]string, widths []int) {
	height := 1
	for _, cell := range row {
		height = max(height, len(cell))
	}
	for line := range height {
		for col, cell := range row {
			text := ""
			if line < len(cell) {
				text = cell[line]
			}
			pad := strings.Repeat(" ", widths[col]-columns(text))
			if t.right[col] {
				b.WriteString("| " + pad + text + " ")
			} else {
				b.WriteString("| " + text + pad + " ")
			}
		}
		b.WriteString("|\n")
	}
}

func ruleOf(widths []int) string {
	var b strings.Builder
	for _, w := range widths {
		b.WriteString("+" + strings.Repeat("-", w+2))
	}
	return b.String() + "+"
}

// overlay puts the title over the rule, from its second column on, and cuts it at the
// last but one.
func overlay(rule, title string) string {
	if title == "" {
		return rule
	}
	var b strings.Builder
	width := 0
	for _, r := range " " + printable(title) + " " {
		w := runeColumns(r)
		if width+w > len(rule)-2 {
			break
		}
		b.WriteRune(r)
		width += w
	}
	return rule[:1] + b.String() + rule[1+width:]
}

// columns is how many columns of a terminal a text takes.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

// wide are the letters that take two columns: East Asian scripts and pictures.
func wide() []unicode.Range32 {
	return []unicode.Range32{
		{Lo: 0x1100, Hi: 0x115f}, {Lo: 0x2e80, Hi: 0x303e}, {Lo: 0x3041, Hi: 0x33ff}, {Lo: 0x3400, Hi: 0x4dbf},
		{Lo: 0x4e00, Hi: 0x9fff}, {Lo: 0xa000, Hi: 0xa4cf}, {Lo: 0xac00, Hi: 0xd7a3}, {Lo: 0xf900, Hi: 0xfaff},
		{Lo: 0xfe30, Hi: 0xfe6f}, {Lo: 0xff00, Hi: 0xff60}, {Lo: 0xffe0, Hi: 0xffe6}, {Lo: 0x1f300, Hi: 0x1f64f},
		{Lo: 0x1f900, Hi: 0x1f9ff}, {Lo: 0x20000, Hi: 0x3fffd},
	}
}

func runeColumns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case slices.ContainsFunc(wide(), func(x unicode.Range32) bool { return rune(x.Lo) <= r && r <= rune(x.Hi) }):
		return 2
	default:
		return 1
	}
}

// printable replaces control characters, but for line breaks: names and tags come from
// the store, and must not move the cursor of whoever looks at them.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}
