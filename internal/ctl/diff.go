package ctl

import (
	"fmt"
	"strings"
)

// diffContext is how many unchanged lines a difference shows around a change.
const diffContext = 3

// unifiedDiff is the difference between two texts in the form of diff -u, with empty
// names in its header, as patronictl prints it.
func unifiedDiff(before, after string) string {
	a, b := splitLines(before), splitLines(after)
	edits := editScript(a, b)
	var out strings.Builder
	out.WriteString("--- \n+++ \n")
	for i := 0; i < len(edits); {
		if edits[i].op == ' ' {
			i++
			continue
		}
		// A hunk goes on while changes are no further apart than twice the context.
		begin, end, quiet := max(i-diffContext, 0), i, 0
		for j := i; j < len(edits) && quiet <= 2*diffContext; j++ {
			if edits[j].op == ' ' {
				quiet++
				continue
			}
			end, quiet = j+1, 0
		}
		end = min(end+diffContext, len(edits))
		writeHunk(&out, edits[begin:end])
		i = end
	}
	return strings.TrimSuffix(out.String(), "\n")
}

func splitLines(text string) []string {
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// edit is one line of a difference: kept, removed or added; at its place in both texts.
type edit struct {
	op   byte // ' ', '-' or '+'
	text string
	a, b int
}

// editScript turns a into b, by their longest common subsequence. Configurations are short.
func editScript(a, b []string) []edit {
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []edit
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, edit{' ', a[i], i, j})
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common[i+1][j] >= common[i][j+1]):
			out = append(out, edit{'-', a[i], i, j})
			i++
		default:
			out = append(out, edit{'+', b[j], i, j})
			j++
		}
	}
	return out
}

func writeHunk(out *strings.Builder, hunk []edit) {
	var lenA, lenB int
	for _, e := range hunk {
		if e.op != '+' {
			lenA++
		}
		if e.op != '-' {
			lenB++
		}
	}
	fmt.Fprintf(out, "@@ -%s +%s @@\n", span(hunk[0].a, lenA), span(hunk[0].b, lenB))
	for _, e := range hunk {
		out.WriteString(string(e.op) + e.text + "\n")
	}
}

// span is a range of lines: where it begins, and how long it is unless that is 1.
func span(from, length int) string {
	switch length {
	case 0:
		return fmt.Sprintf("%d,0", from)
	case 1:
		return fmt.Sprint(from + 1)
	default:
		return fmt.Sprintf("%d,%d", from+1, length)
	}
}
