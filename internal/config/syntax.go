package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// The bounds of locate: how many lines a quote or bracket may stay open before it counts
// as never closed, and how often to start over after one that was closed.
const (
	openLines    = 40
	locateRounds = 20
)

// syntaxProblem turns the parser's error into a sentence that has a line, a column and
// what to do. The parser's own line is where the enclosing block began, which in a
// configuration is often a screen away from the mistake, so the place is found anew.
func syntaxProblem(source string, text []byte, err error) Problem {
	if p, ok := tabProblem(source, text); ok {
		return p
	}
	if p, ok := encodingProblem(source, text); ok {
		return p
	}
	line, column := locate(text)
	reason, hint := explain(err)
	return problemAt(pos{source, line, column}, Error, "", reason, hint)
}

// tabProblem finds the first line that is indented with a tab, the most common reason
// why a configuration copied from an editor or a web page can't be read. It is called
// only when the parser refused the text, so tabs inside block scalars do no harm.
func tabProblem(source string, text []byte) (Problem, bool) {
	first, column, count := 0, 0, 0
	for i, line := range bytes.Split(text, []byte("\n")) {
		body := bytes.TrimLeft(line, " \t\r")
		indent := line[:len(line)-len(body)]
		if len(body) == 0 {
			continue
		}
		if at := bytes.IndexByte(indent, '\t'); at >= 0 {
			if count++; first == 0 {
				first, column = i+1, at+1
			}
		}
	}
	if first == 0 {
		return Problem{}, false
	}
	message := "a tab in the indentation: YAML indents with blanks only"
	if count > 1 {
		message = fmt.Sprintf("a tab in the indentation, in %d lines, of which this is the first: YAML indents with blanks only", count)
	}
	hint := "replace each tab at the beginning of a line by two blanks (`expand -i -t 2 FILE`), " +
		"then check that nested keys stand deeper than the key they belong to"
	return problemAt(pos{source, first, column}, Error, "", message, hint), true
}

func encodingProblem(source string, text []byte) (Problem, bool) {
	if utf8.Valid(text) {
		return Problem{}, false
	}
	line, column := 1, 1
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			break
		}
		if column++; r == '\n' {
			line, column = line+1, 1
		}
		text = text[size:]
	}
	return problemAt(pos{source, line, column}, Error, "", "a byte that isn't UTF-8 text",
		"save the file as UTF-8 (`iconv -f OLD -t UTF-8 FILE`)"), true
}

// locate finds the line where reading fails for good: the text up to the line before
// can be read, and no longer beginning can. The column is that of the line's first
// character.
//
// A beginning also fails while a quote or bracket is open, so a binary search may stop
// at one that is closed some lines on; then it starts over behind that.
func locate(text []byte) (line, column int) {
	lines := bytes.SplitAfter(text, []byte("\n"))
	ends := make([]int, len(lines)+1) // ends[n] is the length of the first n lines
	for i, l := range lines {
		ends[i+1] = ends[i] + len(l)
	}
	fails := func(n int) bool {
		_, err := decodeDocument(text[:ends[n]])
		return err != nil
	}
	good, bad := 0, len(lines) // the first good lines can be read, the first bad ones can't
	for range locateRounds {
		low, high := good, bad
		for high-low > 1 {
			if middle := (low + high) / 2; fails(middle) {
				high = middle
			} else {
				low = middle
			}
		}
		good = low
		closed := 0
		for n := high + 1; n < bad && n <= high+openLines && closed == 0; n++ {
			if !fails(n) {
				closed = n
			}
		}
		if closed == 0 {
			break
		}
		good = closed
	}
	body := bytes.TrimLeft(lines[good], " \t")
	return good + 1, len(lines[good]) - len(body) + 1
}

// explanations translate the parser's words, matched in order.
var explanations = []struct{ has, reason, hint string }{
	{
		"mapping values are not allowed", "a `key: value` can't stand here",
		"align the line with its neighbours, or quote the value if it contains a colon followed by a blank",
	},
	{
		"did not find expected key", "the line doesn't fit into the mapping around it",
		"align it with the keys it belongs to; a list item needs `- ` and a key needs a colon",
	},
	{
		"did not find expected '-' indicator", "the line doesn't fit into the list around it",
		"begin it with `- ` at the depth of the other items",
	},
	{"block sequence entries are not allowed", "a list item can't stand here", "put the list on the lines below its key"},
	{"could not find expected ':'", "the line has no colon after its key", "write `key: value`, or quote the text"},
	{
		"cannot start any token", "a value begins with a character that YAML reserves",
		"put the value in quotes (characters such as @ ` % need them)",
	},
	{"unexpected end of stream", "a quote that is opened here is never closed", "close it, or double it inside the text"},
	{"unknown escape character", "an unknown \\ sequence inside double quotes", "use single quotes, or double the backslash"},
	{"expected ',' or ']'", "a [ list is never closed", "close it with ]"},
	{"expected ',' or '}'", "a { mapping is never closed", "close it with }"},
	{"unknown anchor", "an alias (*name) without an anchor (&name) before it", "quote the value if it isn't an alias"},
	{"did not find expected alphabetic", "a value begins with * or & and is no alias", "put the value in quotes"},
	{"control characters", "a control character", "remove it"},
	{"exceeded max depth", "too many levels of nesting", "flatten the value"},
}

func explain(err error) (reason, hint string) {
	if errors.Is(err, errSecondDocument) {
		return "a second YAML document begins here", "remove the --- line; a configuration is one document"
	}
	text := err.Error()
	for _, e := range explanations {
		if strings.Contains(text, e.has) {
			return e.reason, e.hint
		}
	}
	return "not readable as YAML (" + strings.TrimPrefix(text, "yaml: ") + ")", "compare the line with its neighbours"
}
