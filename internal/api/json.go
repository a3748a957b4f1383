package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/pgregent/regent/dcs"
)

// object writes a JSON mapping in the form of Python's encoder, which scripts grep
// and hash: keys in the order of the calls, a blank after each comma and colon,
// ASCII only.
type object struct{ b []byte }

// raw adds a value that is encoded already.
func (o *object) raw(key string, value []byte) {
	if o.b == nil {
		o.b = []byte{'{'}
	} else {
		o.b = append(o.b, ", "...)
	}
	o.b = append(o.b, quote(key)...)
	o.b = append(o.b, ": "...)
	o.b = append(o.b, value...)
}

func (o *object) text(key, value string) { o.raw(key, quote(value)) }

// textOrNull adds null for an empty value.
func (o *object) textOrNull(key, value string) {
	if value == "" {
		o.raw(key, []byte("null"))
		return
	}
	o.text(key, value)
}

func (o *object) integer(key string, value int64)   { o.raw(key, strconv.AppendInt(nil, value, 10)) }
func (o *object) unsigned(key string, value uint64) { o.raw(key, strconv.AppendUint(nil, value, 10)) }
func (o *object) boolean(key string, value bool)    { o.raw(key, strconv.AppendBool(nil, value)) }
func (o *object) mapping(key string, value *object) { o.raw(key, value.bytes()) }
func (o *object) list(key string, values [][]byte)  { o.raw(key, listOf(values)) }
func (o *object) stored(key string, value json.RawMessage) {
	if spaced, err := respace(value); err == nil {
		o.raw(key, spaced)
	}
}

// flag adds true, or nothing at all.
func (o *object) flag(key string, on bool) {
	if on {
		o.boolean(key, true)
	}
}

// bytes ends the mapping.
func (o *object) bytes() []byte {
	if o.b == nil {
		return []byte("{}")
	}
	return append(o.b[:len(o.b):len(o.b)], '}')
}

func listOf(values [][]byte) []byte {
	return append(append([]byte{'['}, bytes.Join(values, []byte(", "))...), ']')
}

// quote encodes a string.
func quote(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil { // a string always has an encoding
		return []byte(`""`)
	}
	spaced, err := respace(b)
	if err != nil {
		return []byte(`""`)
	}
	return spaced
}

// respace rewrites a JSON value with Python's separators; the order of keys and the
// spelling of numbers stay.
func respace(raw []byte) ([]byte, error) {
	compact, err := dcs.CompactJSON(raw)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(compact)+len(compact)/8)
	inside, escaped := false, false // a string; after a backslash
	for _, c := range compact {
		out = append(out, c)
		switch {
		case escaped:
			escaped = false
		case inside && c == '\\':
			escaped = true
		case c == '"':
			inside = !inside
		case !inside && (c == ',' || c == ':'):
			out = append(out, ' ')
		}
	}
	return out, nil
}

// field is a key of a request's body with its value.
type field struct {
	key   string
	value json.RawMessage
}

// fields are a request's body in the order in which it was written.
type fields []field

var errNoMapping = errors.New("the body is no JSON mapping")

// readFields reads one JSON mapping and nothing after it. Of a repeated key the last
// value counts.
func readFields(body []byte) (fields, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errNoMapping
	}
	var out fields
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("read the body: %w", err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fmt.Errorf("read the body: %w", err)
		}
		out = out.with(field{key: fmt.Sprint(key), value: value})
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	if dec.More() {
		return nil, errNoMapping
	}
	return out, nil
}

func (f fields) with(add field) fields {
	for i := range f {
		if f[i].key == add.key {
			f[i] = add
			return f
		}
	}
	return append(f, add)
}

// text returns a string field. Missing, null and empty are "" alike; ok is false for
// a value that isn't a string.
func (f fields) text(key string) (value string, ok bool) {
	for _, x := range f {
		if x.key == key {
			var p *string
			if json.Unmarshal(x.value, &p) != nil {
				return "", false
			}
			if p == nil {
				return "", true
			}
			return *p, true
		}
	}
	return "", true
}
