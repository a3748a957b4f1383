package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// checker walks a tree along the table of keys and notes what is unknown, of the wrong
// type, out of bounds or without effect.
type checker struct {
	index *keyIndex
	// prefix goes in front of paths in messages: "bootstrap.dcs." or nothing.
	prefix   string
	problems []Problem
	// skip leaves out paths that are reported elsewhere.
	skip func(path string) bool
}

func (c *checker) add(at pos, sev Severity, path, value, message, hint string) {
	p := problemAt(at, sev, c.prefix+path, message, hint)
	p.Value = value
	c.problems = append(c.problems, p)
}

func (c *checker) section(path string, t *tree) {
	var empty *entry // the last section or settings key that has no value
	for i := range t.keys {
		e := &t.keys[i]
		full := join(path, e.key)
		if c.skip != nil && c.skip(full) {
			continue
		}
		row, known := c.index.find(path, e.key)
		switch {
		case !known && isMethod(path, e, t):
			continue
		case !known:
			c.unknown(path, e, empty)
		case e.val.isNull():
			if row.typ == tSection || row.typ == tSettings || row.typ == tFree {
				empty = e
			}
		default:
			empty = nil
			c.value(row, full, e)
		}
	}
}

// isMethod reports whether a key of the bootstrap or postgresql section is the mapping
// of a custom method: one with a command, or one that is named as a method.
func isMethod(path string, e *entry, section *tree) bool {
	if e.val.isNull() || e.val.kind != kindMap {
		return false
	}
	var named []string
	switch path {
	case "bootstrap":
		named, _ = readStrings(section.get("method"))
	case "postgresql":
		named, _ = readStrings(section.get("create_replica_methods"))
	default:
		return false
	}
	return e.val.get("command") != nil || slices.Contains(named, e.key)
}

func (c *checker) unknown(path string, e *entry, empty *entry) {
	full := join(path, e.key)
	if empty != nil {
		c.add(e.pos, Warning, full, "", "stands beside `"+empty.key+":`, which is empty, not under it",
			"indent it deeper than `"+empty.key+":` if it belongs there")
		return
	}
	hint := c.suggest(path, e.key)
	p := problemAt(e.pos, Notice, c.prefix+full, "is unknown and ignored", hint)
	p.kind = unknownKey
	c.problems = append(c.problems, p)
}

// suggest finds what an unknown key may have been meant to be.
func (c *checker) suggest(path, name string) string {
	if c.prefix == "" {
		if paths := dynamicIndex.leaves[name]; len(paths) > 0 {
			return "did you mean `bootstrap.dcs." + paths[0] + "`? Check the indentation"
		}
	}
	best, bestDistance := "", 3
	for _, candidate := range c.index.children(path) {
		d := distance(strings.ToLower(name), candidate)
		if d < bestDistance && d*3 <= len(candidate) {
			best, bestDistance = candidate, d
		}
	}
	if best != "" {
		return "did you mean `" + c.prefix + join(path, best) + "`?"
	}
	if paths := c.index.leaves[name]; len(paths) > 0 {
		return "did you mean `" + c.prefix + paths[0] + "`? Check the indentation"
	}
	return ""
}

// distance is the number of letters to insert, delete, replace or swap.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}

func (c *checker) value(row key, full string, e *entry) {
	shown := e.val.display()
	if row.typ == tSecret {
		shown = hidden
	}
	if message, hint := conform(row, e.val); message != "" {
		sev := Warning
		if row.typ == tSection || row.fatal {
			sev = Error
		}
		if e.val.kind >= kindList {
			shown = ""
		}
		c.add(e.val.pos, sev, full, shown, message, hint)
		return
	}
	switch {
	case row.typ == tSection:
		c.section(full, e.val)
	case row.typ == tSettings:
		c.settings(full, e.val)
	}
	if row.status == notYet && !isDefault(row, e.val) {
		p := problemAt(e.pos, Notice, c.prefix+full, "has no effect in this release", "")
		p.kind = notHonoured
		c.problems = append(c.problems, p)
	}
}

// settings checks a mapping of PostgreSQL's settings: scalars only.
func (c *checker) settings(path string, t *tree) {
	for _, e := range t.keys {
		if !e.val.isNull() && !e.val.isScalar() {
			c.add(e.val.pos, Warning, path+"."+e.key, "", "is "+e.val.kind.String()+", not a single value; it is ignored",
				"write it as one string, with commas inside if PostgreSQL wants a list")
		}
	}
}

// isDefault reports whether the value is what an absent key means, so that writing it
// down is no reason for a notice.
func isDefault(row key, t *tree) bool {
	switch row.typ {
	case tBool:
		b, ok := readBool(t)
		def, _ := readBool(newString(row.def, pos{}))
		return ok && b == def
	case tStrings:
		s, ok := readStrings(t)
		return ok && strings.Join(s, ",") == row.def
	case tSeconds, tInt, tSize:
		a, okA := readNumber(t)
		b, okB := readNumber(newString(row.def, pos{}))
		return okA && okB && a == b
	case tEnum, tString:
		s, ok := readText(t)
		return ok && strings.EqualFold(s, row.def)
	}
	return false
}

// conform says what is wrong with a value's form, and what would be right. An empty
// message means that it is fine.
func conform(row key, t *tree) (message, hint string) {
	ok := true
	switch row.typ {
	case tString, tPath, tSecret, tScalar:
		if ok = t.isScalar(); !ok {
			return "is " + t.kind.String() + ", not a single value", "write one word or one quoted string"
		}
	case tBool:
		if _, ok = readBool(t); !ok {
			return "is not a boolean", "write true or false"
		}
	case tInt, tSize, tSeconds:
		return conformNumber(row, t)
	case tAddr, tListen:
		return conformAddress(row, t)
	case tStrings, tLines:
		if _, ok = readLines(t); !ok {
			return "is not a list of strings", "write each item on a line of its own, beginning with `- `"
		}
	case tOptions:
		return conformOptions(t)
	case tSettings, tSection:
		if t.kind != kindMap {
			return "is " + t.kind.String() + ", not a mapping", "write `key: value` lines below it, indented deeper"
		}
	case tEnum:
		if _, ok = readEnum(row, t); !ok {
			return "is not a value of this setting", "use one of: " + strings.Join(row.enum, ", ")
		}
	}
	return "", ""
}

func conformNumber(row key, t *tree) (message, hint string) {
	var n float64
	var ok bool
	switch row.typ {
	case tInt:
		var i int64
		i, ok = readInt(t)
		n, hint = float64(i), "write a whole number"
	case tSize:
		var i int64
		i, ok = readSize(t)
		n, hint = float64(i), "write a number of bytes, or a number with kB, MB, GB"
	default:
		d, isTime := readSeconds(t)
		n, ok, hint = d.Seconds(), isTime, "write a number of seconds, or a number with ms, s, min, h"
	}
	if !ok {
		return "is not a number of this kind", hint + defaultNote(row)
	}
	if l := row.limits; l != nil && (n < l.lo || n > l.hi) {
		if l.hi >= 1<<62 {
			return fmt.Sprintf("is too small, it must be at least %s", plainNumber(l.lo)), strings.TrimPrefix(defaultNote(row), "; ")
		}
		return fmt.Sprintf("is out of bounds, it must be between %s and %s", plainNumber(l.lo), plainNumber(l.hi)), strings.TrimPrefix(defaultNote(row), "; ")
	}
	return "", ""
}

func plainNumber(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func defaultNote(row key) string {
	if row.def == "" {
		return ""
	}
	return "; until then the default " + row.def + " is used"
}

func conformAddress(row key, t *tree) (message, hint string) {
	s, ok := readText(t)
	if ok {
		_, ok = readAddress(s, 0)
	}
	if ok {
		return "", ""
	}
	if t.kind == kindInt && strings.Contains(t.text, ":") {
		return "is read as a number (YAML takes a:b as minutes and seconds)", "put it in quotes"
	}
	if row.typ == tListen {
		return "is not of the form host[,host...]:port", "for example 0.0.0.0:5432"
	}
	return "is not of the form host:port", "for example 10.0.0.1:8008; IPv6 addresses stand in brackets"
}

// readEnum returns the word of the table that the value stands for. YAML turns on and
// off into booleans before anyone can see the words.
func readEnum(row key, t *tree) (string, bool) {
	s, ok := readText(t)
	if !ok {
		return "", false
	}
	candidates := []string{s}
	if b, isBool := readBool(t); isBool {
		if b {
			candidates = append(candidates, "on", "true")
		} else {
			candidates = append(candidates, "off", "false")
		}
	}
	for _, c := range candidates {
		for _, word := range row.enum {
			if strings.EqualFold(c, word) {
				return word, true
			}
		}
	}
	return "", false
}
