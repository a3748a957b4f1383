package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxJSONDepth bounds the nesting of a /config value.
const maxJSONDepth = 200

// parseJSON reads one JSON value, keeping the order of keys and the spelling of
// numbers. A key given twice keeps its last value, as in Python.
func parseJSON(text []byte) (*tree, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	t, err := jsonValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("text after the JSON value at byte %d", dec.InputOffset())
	}
	return t, nil
}

func jsonValue(dec *json.Decoder, depth int) (*tree, error) {
	if depth > maxJSONDepth {
		return nil, fmt.Errorf("more than %d levels of nesting", maxJSONDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch v := tok.(type) {
	case nil:
		return &tree{}, nil
	case bool:
		return newBool(v, pos{}), nil
	case string:
		return newString(v, pos{}), nil
	case json.Number:
		k := kindInt
		if strings.ContainsAny(string(v), ".eE") {
			k = kindFloat
		}
		return &tree{kind: k, text: string(v), num: string(v)}, nil
	case json.Delim:
		if v == '[' {
			return jsonList(dec, depth)
		}
		if v == '{' {
			return jsonMap(dec, depth)
		}
	}
	return nil, fmt.Errorf("unexpected %v at byte %d", tok, dec.InputOffset())
}

func jsonList(dec *json.Decoder, depth int) (*tree, error) {
	t := &tree{kind: kindList}
	for dec.More() {
		v, err := jsonValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		t.list = append(t.list, v)
	}
	_, err := dec.Token()
	return t, err
}

func jsonMap(dec *json.Decoder, depth int) (*tree, error) {
	t := newMap(pos{})
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := tok.(string)
		if !ok {
			return nil, fmt.Errorf("unexpected key %v at byte %d", tok, dec.InputOffset())
		}
		v, err := jsonValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		t.set(key, pos{}, v)
	}
	_, err := dec.Token()
	return t, err
}

// appendJSON writes the value as Patroni does: compact, keys in order, ASCII only.
func appendJSON(dst []byte, t *tree) []byte {
	if t.isNull() {
		return append(dst, "null"...)
	}
	switch t.kind {
	case kindBool:
		if t.b {
			return append(dst, "true"...)
		}
		return append(dst, "false"...)
	case kindInt, kindFloat:
		if t.num == "" { // .inf and .nan have no JSON form
			return appendJSONString(dst, t.text)
		}
		return append(dst, t.num...)
	case kindList:
		dst = append(dst, '[')
		for i, v := range t.list {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, v)
		}
		return append(dst, ']')
	case kindMap:
		dst = append(dst, '{')
		for i, e := range t.keys {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendJSONString(dst, e.key), ':')
			dst = appendJSON(dst, e.val)
		}
		return append(dst, '}')
	default:
		return appendJSONString(dst, t.text)
	}
}

func appendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\b':
			dst = append(dst, '\\', 'b')
		case r == '\f':
			dst = append(dst, '\\', 'f')
		case r == '\n':
			dst = append(dst, '\\', 'n')
		case r == '\r':
			dst = append(dst, '\\', 'r')
		case r == '\t':
			dst = append(dst, '\\', 't')
		case r >= ' ' && r < utf8.RuneSelf-1:
			dst = append(dst, byte(r))
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			dst = fmt.Appendf(dst, `\u%04x\u%04x`, hi, lo)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		}
	}
	return append(dst, '"')
}
