package pyfmt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
)

type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindList
	kindObject
)

// Value is a JSON value. The zero Value is null. Values are not changed once built,
// but for Set, which belongs to the builder.
type Value struct {
	kind  kind
	truth bool
	text  string  // a string's content, a number's spelling
	items []Value // of a list, or an object's values
	keys  []string
}

// Parse reads one JSON document. Of a key that stands twice the last value counts.
func Parse(raw []byte) (Value, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := parse(d)
	if err != nil {
		return Value{}, fmt.Errorf("parse json: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Value{}, errors.New("parse json: something follows the value")
	}
	return v, nil
}

func parse(d *json.Decoder) (Value, error) {
	t, err := d.Token()
	if err != nil {
		return Value{}, err
	}
	switch t := t.(type) {
	case bool:
		return Bool(t), nil
	case json.Number:
		return Value{kind: kindNumber, text: pythonNumber(t.String())}, nil
	case string:
		return String(t), nil
	case json.Delim:
		if t == '[' {
			return parseList(d)
		}
		return parseObject(d)
	default:
		return Value{}, nil
	}
}

func parseList(d *json.Decoder) (Value, error) {
	v := Value{kind: kindList}
	for d.More() {
		item, err := parse(d)
		if err != nil {
			return Value{}, err
		}
		v.items = append(v.items, item)
	}
	_, err := d.Token()
	return v, err
}

func parseObject(d *json.Decoder) (Value, error) {
	v := Object()
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return Value{}, err
		}
		item, err := parse(d)
		if err != nil {
			return Value{}, err
		}
		name, _ := key.(string) // the decoder takes nothing else there
		v.Set(name, item)
	}
	_, err := d.Token()
	return v, err
}

// Bool is true or false.
func Bool(b bool) Value { return Value{kind: kindBool, truth: b} }

// Int is an integer.
func Int(n int64) Value { return Value{kind: kindNumber, text: strconv.FormatInt(n, 10)} }

// Uint is an integer too.
func Uint(n uint64) Value { return Value{kind: kindNumber, text: strconv.FormatUint(n, 10)} }

// String is a string.
func String(s string) Value { return Value{kind: kindString, text: s} }

// List is a list.
func List(items ...Value) Value { return Value{kind: kindList, items: items} }

// Object is a mapping without keys.
func Object() Value { return Value{kind: kindObject} }

// Set adds a key at the end, or replaces the value of one that is there.
func (v *Value) Set(key string, item Value) {
	if i := slices.Index(v.keys, key); i >= 0 {
		v.items[i] = item
		return
	}
	v.keys, v.items = append(v.keys, key), append(v.items, item)
}

// Get returns an object's value of that key; null when there is none.
func (v Value) Get(key string) Value {
	if i := slices.Index(v.keys, key); i >= 0 {
		return v.items[i]
	}
	return Value{}
}

// Keys of an object, in order. The caller must not change them.
func (v Value) Keys() []string { return v.keys }

// Str returns a string's content, and "" for everything else.
func (v Value) Str() string {
	if v.kind != kindString {
		return ""
	}
	return v.text
}

// Uint64 returns a number that is a whole and not negative.
func (v Value) Uint64() (uint64, bool) {
	if v.kind != kindNumber {
		return 0, false
	}
	n, err := strconv.ParseUint(v.text, 10, 64)
	return n, err == nil
}

// IsNull reports whether the value is null, or isn't there.
func (v Value) IsNull() bool { return v.kind == kindNull }

// IsString reports whether the value is a string.
func (v Value) IsString() bool { return v.kind == kindString }

// IsObject reports whether the value is a mapping.
func (v Value) IsObject() bool { return v.kind == kindObject }

// Truthy is Python's bool(v): null, false, zero and everything empty are not.
func (v Value) Truthy() bool {
	switch v.kind {
	case kindBool:
		return v.truth
	case kindNumber:
		f, err := strconv.ParseFloat(v.text, 64)
		return err != nil || f != 0
	case kindString:
		return v.text != ""
	default:
		return len(v.items) > 0
	}
}

// Text is a scalar as a person would write it: a string without quotes.
func (v Value) Text() string {
	if v.kind == kindString {
		return v.text
	}
	return v.JSON()
}

// sorted returns an object with its keys in order, the inner ones as they are.
func (v Value) sorted() Value {
	order := make([]int, len(v.keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case v.keys[a] < v.keys[b]:
			return -1
		case v.keys[a] > v.keys[b]:
			return 1
		}
		return 0
	})
	out := Value{kind: v.kind}
	for _, i := range order {
		out.keys, out.items = append(out.keys, v.keys[i]), append(out.items, v.items[i])
	}
	return out
}
