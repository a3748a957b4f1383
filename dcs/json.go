package dcs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// value is a JSON value that remembers the order of its mappings' keys and its
// numbers' spelling. Patroni's dictionaries keep their order, and a value that we
// rewrite should not look changed to the people who compare it.
type value struct {
	kind  kind
	text  string // of a string or number
	truth bool
	keys  []string // of a mapping, parallel to items
	items []value  // of a mapping or a list
}

type kind byte

const (
	null kind = iota
	boolean
	number
	text
	list
	mapping
)

// maxDepth bounds nesting, so that a hostile value can't exhaust the stack.
const maxDepth = 200

var errDepth = errors.New("nested too deeply")

// parse reads exactly one JSON value. Of a repeated key the last one counts.
func parse(data []byte) (value, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := parseNext(dec, 0)
	if err != nil {
		return value{}, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return value{}, errors.New("text after the value")
	}
	return v, nil
}

func parseNext(dec *json.Decoder, depth int) (value, error) {
	if depth > maxDepth {
		return value{}, errDepth
	}
	token, err := dec.Token()
	if err != nil {
		return value{}, err
	}
	switch tok := token.(type) {
	case bool:
		return value{kind: boolean, truth: tok}, nil
	case json.Number:
		return value{kind: number, text: tok.String()}, nil
	case string:
		return value{kind: text, text: tok}, nil
	case json.Delim:
		return parseNested(dec, depth, tok)
	default:
		return value{}, nil
	}
}

func parseNested(dec *json.Decoder, depth int, open json.Delim) (value, error) {
	v := value{kind: list}
	if open == '{' {
		v.kind = mapping
	}
	for dec.More() {
		key := ""
		if v.kind == mapping {
			token, err := dec.Token()
			if err != nil {
				return value{}, err
			}
			key, _ = token.(string)
		}
		item, err := parseNext(dec, depth+1)
		if err != nil {
			return value{}, err
		}
		if v.kind == mapping {
			v.set(key, item)
		} else {
			v.items = append(v.items, item)
		}
	}
	_, err := dec.Token() // the closing delimiter
	return v, err
}

func (v *value) index(key string) int {
	for i, k := range v.keys {
		if k == key {
			return i
		}
	}
	return -1
}

// get returns the value under key; null when there is none or v is no mapping.
func (v value) get(key string) value {
	if v.kind != mapping {
		return value{}
	}
	if i := v.index(key); i >= 0 {
		return v.items[i]
	}
	return value{}
}

func (v value) has(key string) bool { return v.kind == mapping && v.index(key) >= 0 }

func (v *value) set(key string, item value) {
	if i := v.index(key); i >= 0 {
		v.items[i] = item
		return
	}
	v.keys = append(v.keys, key)
	v.items = append(v.items, item)
}

func (v *value) remove(key string) {
	if i := v.index(key); i >= 0 {
		v.keys = append(v.keys[:i:i], v.keys[i+1:]...)
		v.items = append(v.items[:i:i], v.items[i+1:]...)
	}
}

// truthy is Python's idea of truth, by which Patroni judges optional fields.
func (v value) truthy() bool {
	switch v.kind {
	case boolean:
		return v.truth
	case number:
		f, err := strconv.ParseFloat(v.text, 64)
		return err != nil || f != 0
	case text:
		return v.text != ""
	case list, mapping:
		return len(v.items) > 0
	default:
		return false
	}
}

// integer reads a number or a decimal text; ok is false for anything else.
func (v value) integer() (n int64, ok bool) {
	if v.kind != number && v.kind != text {
		return 0, false
	}
	s := strings.TrimSpace(v.text)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	// A float that is whole, as other JSON writers may spell it.
	if f, err := strconv.ParseFloat(s, 64); err == nil && v.kind == number && f == float64(int64(f)) {
		return int64(f), true
	}
	return 0, false
}

// str returns a string's text, and "" for everything that is not a string.
func (v value) str() string {
	if v.kind == text {
		return v.text
	}
	return ""
}

// encode writes the compact form that Patroni writes: no blanks, ASCII only.
func (v value) encode(buf []byte) []byte {
	switch v.kind {
	case boolean:
		return strconv.AppendBool(buf, v.truth)
	case number:
		return append(buf, v.text...)
	case text:
		return appendString(buf, v.text)
	case list:
		buf = append(buf, '[')
		for i, item := range v.items {
			if i > 0 {
				buf = append(buf, ',')
			}
			buf = item.encode(buf)
		}
		return append(buf, ']')
	case mapping:
		buf = append(buf, '{')
		for i, item := range v.items {
			if i > 0 {
				buf = append(buf, ',')
			}
			buf = append(appendString(buf, v.keys[i]), ':')
			buf = item.encode(buf)
		}
		return append(buf, '}')
	default:
		return append(buf, "null"...)
	}
}

func (v value) bytes() []byte { return v.encode(nil) }

// appendString quotes s with the escapes of Python's default JSON encoder, which
// are not Go's: everything outside printable ASCII is \uXXXX, < > & stay.
func appendString(buf []byte, s string) []byte {
	buf = append(buf, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			buf = append(buf, '\\', byte(r))
		case r == '\n':
			buf = append(buf, `\n`...)
		case r == '\r':
			buf = append(buf, `\r`...)
		case r == '\t':
			buf = append(buf, `\t`...)
		case r == '\b':
			buf = append(buf, `\b`...)
		case r == '\f':
			buf = append(buf, `\f`...)
		case r >= ' ' && r <= '~':
			buf = append(buf, byte(r))
		case r >= 0x10000:
			r -= 0x10000
			buf = fmt.Appendf(buf, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			buf = fmt.Appendf(buf, `\u%04x`, r)
		}
	}
	return append(buf, '"')
}

// The builders below write a mapping field by field, in the order of the calls.

func object() *value { return &value{kind: mapping} }

// with adds a field and returns v.
func (v *value) with(key string, item value) *value {
	v.set(key, item)
	return v
}

func ofInt(n int64) value     { return value{kind: number, text: strconv.FormatInt(n, 10)} }
func ofUint(n uint64) value   { return value{kind: number, text: strconv.FormatUint(n, 10)} }
func ofString(s string) value { return value{kind: text, text: s} }
func ofBool(b bool) value     { return value{kind: boolean, truth: b} }

// ofRaw parses raw; what doesn't parse becomes null, so that an encoder can't
// produce bytes that readers choke on.
func ofRaw(raw []byte) value {
	v, err := parse(raw)
	if err != nil || !utf8.Valid(raw) {
		return value{}
	}
	return v
}
