package config

import (
	"strconv"
	"strings"
)

// kind is the type of a value after YAML 1.1 or JSON resolution.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindInt
	kindFloat
	kindString
	kindList
	kindMap
)

// String names the kind the way a message to an operator does.
func (k kind) String() string {
	switch k {
	case kindNull:
		return "nothing"
	case kindBool:
		return "a boolean"
	case kindInt:
		return "an integer"
	case kindFloat:
		return "a number"
	case kindString:
		return "a string"
	case kindList:
		return "a list"
	default:
		return "a mapping"
	}
}

// pos is where a value was written. Source is a file's path, or the name of an
// environment variable, in which case Line is 0.
type pos struct {
	Source       string
	Line, Column int
}

// tree is one value with its position. Mappings keep the order they were written in,
// because the first contents of /config do (interfaces, section 1.1). Trees are shared
// freely and never changed after they were built; whoever merges copies first.
type tree struct {
	kind kind
	pos  pos
	// text of a scalar: as written in YAML, the literal of a JSON number, the
	// content of a string.
	text string
	b    bool
	// num is the canonical JSON literal of an int or float; "" where JSON has none
	// (.inf, .nan).
	num  string
	list []*tree
	keys []entry
}

// entry is one pair of a mapping. Keys are text, as written: `on:` is the key "on".
type entry struct {
	key string
	pos pos
	val *tree
}

// get returns the value of a key, nil when the key or the mapping is absent.
func (t *tree) get(key string) *tree {
	if t == nil || t.kind != kindMap {
		return nil
	}
	for i := range t.keys {
		if t.keys[i].key == key {
			return t.keys[i].val
		}
	}
	return nil
}

// at follows a dotted path. Keys that contain dots can't be reached this way.
func (t *tree) at(path string) *tree {
	for _, key := range strings.Split(path, ".") {
		t = t.get(key)
	}
	return t
}

// keyPos returns where a key was written, or where the mapping starts.
func (t *tree) keyPos(key string) pos {
	if t == nil {
		return pos{}
	}
	for i := range t.keys {
		if t.keys[i].key == key {
			return t.keys[i].pos
		}
	}
	return t.pos
}

// set adds or replaces a key, in place: only for trees that the caller made.
func (t *tree) set(key string, at pos, val *tree) {
	for i := range t.keys {
		if t.keys[i].key == key {
			t.keys[i].val, t.keys[i].pos = val, at
			return
		}
	}
	t.keys = append(t.keys, entry{key: key, pos: at, val: val})
}

// remove deletes a key, in place, and reports whether it was there.
func (t *tree) remove(key string) bool {
	for i := range t.keys {
		if t.keys[i].key == key {
			t.keys = append(t.keys[:i:i], t.keys[i+1:]...)
			return true
		}
	}
	return false
}

// clone copies the mappings; scalars and lists are shared, since nothing changes them.
func (t *tree) clone() *tree {
	if t == nil || t.kind != kindMap {
		return t
	}
	c := *t
	c.keys = make([]entry, len(t.keys))
	for i, e := range t.keys {
		e.val = e.val.clone()
		c.keys[i] = e
	}
	return &c
}

// isNull reports an absent value or an explicit null.
func (t *tree) isNull() bool { return t == nil || t.kind == kindNull }

// isScalar reports a bool, number or string.
func (t *tree) isScalar() bool {
	return t != nil && t.kind != kindNull && t.kind < kindList
}

func newMap(at pos) *tree              { return &tree{kind: kindMap, pos: at} }
func newString(s string, at pos) *tree { return &tree{kind: kindString, text: s, pos: at} }

func newBool(b bool, at pos) *tree {
	return &tree{kind: kindBool, b: b, text: strconv.FormatBool(b), pos: at}
}

func newInt(n int64, at pos) *tree {
	s := strconv.FormatInt(n, 10)
	return &tree{kind: kindInt, num: s, text: s, pos: at}
}

// pyString is the text that Python's str() gives for the value. Patroni compares old
// and new values by it, so the merge has to as well (interfaces, section 0.3).
func (t *tree) pyString() string {
	if t != nil && t.kind == kindString {
		return t.text
	}
	return t.pyRepr()
}

func (t *tree) pyRepr() string {
	if t.isNull() {
		return "None"
	}
	switch t.kind {
	case kindBool:
		if t.b {
			return "True"
		}
		return "False"
	case kindInt, kindFloat:
		switch {
		case t.kind == kindFloat && t.num != "":
			return canonicalFloat(t.num)
		case t.num != "":
			return t.num
		case strings.HasSuffix(strings.ToLower(t.text), "nan"):
			return "nan"
		case strings.HasPrefix(t.text, "-"):
			return "-inf"
		}
		return "inf"
	case kindString:
		return strconv.Quote(t.text)
	}
	var b strings.Builder
	open, end := "[", "]"
	if t.kind == kindMap {
		open, end = "{", "}"
	}
	b.WriteString(open)
	for i, v := range t.list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(v.pyRepr())
	}
	for i, e := range t.keys {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(e.key) + ": " + e.val.pyRepr())
	}
	b.WriteString(end)
	return b.String()
}

// display shortens a value for a message.
func (t *tree) display() string {
	if t.isNull() {
		return "null"
	}
	s := t.text
	switch t.kind {
	case kindList:
		s = "[" + strconv.Itoa(len(t.list)) + " items]"
	case kindMap:
		s = "{" + strconv.Itoa(len(t.keys)) + " keys}"
	}
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 60 {
		s = string(r[:57]) + "..."
	}
	if s == "" {
		s = `""`
	}
	return s
}

// position of a value that may be absent.
func (t *tree) position() pos {
	if t == nil {
		return pos{}
	}
	return t.pos
}
