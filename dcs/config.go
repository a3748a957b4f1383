package dcs

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// CompactJSON rewrites a JSON value in the form that the store holds: compact, the
// keys in their order, ASCII only. Its error names what doesn't parse.
func CompactJSON(raw []byte) (json.RawMessage, error) {
	v, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("json value: %w", err)
	}
	return v.bytes(), nil
}

// PatchConfig merges patch into config, both JSON mappings, as every interface of
// Patroni does: mappings merge recursively, null removes a key, anything else
// replaces. Values whose text is the same count as equal, so patching 100 over
// "100" changes nothing and keeps the old type. It reports whether anything changed.
func PatchConfig(config, patch []byte) (merged json.RawMessage, changed bool, err error) {
	base, err := parse(config)
	if err != nil || base.kind != mapping {
		return nil, false, fmt.Errorf("configuration is no JSON mapping: %w", orMismatch(err))
	}
	delta, err := parse(patch)
	if err != nil || delta.kind != mapping {
		return nil, false, fmt.Errorf("patch is no JSON mapping: %w", orMismatch(err))
	}
	changed = merge(&base, delta)
	return base.bytes(), changed, nil
}

func orMismatch(err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("a value of another kind")
}

func merge(into *value, patch value) (changed bool) {
	for i, key := range patch.keys {
		item := patch.items[i]
		at := into.index(key)
		switch {
		case item.kind == null:
			// Removing a key that holds null is no change, but the key goes.
			changed = changed || (at >= 0 && into.items[at].kind != null)
			into.remove(key)
		case at < 0:
			into.set(key, item)
			changed = true
		case item.kind == mapping && into.items[at].kind == mapping:
			// Items are shared with nobody: both were parsed for this call.
			changed = merge(&into.items[at], item) || changed
		case item.kind == mapping || pythonText(into.items[at]) != pythonText(item):
			into.set(key, item)
			changed = true
		}
	}
	return changed
}

// pythonText is the text by which Patroni compares configuration values.
func pythonText(v value) string {
	if v.kind == text {
		return v.text
	}
	return pythonRepr(v)
}

func pythonRepr(v value) string {
	switch v.kind {
	case boolean:
		if v.truth {
			return "True"
		}
		return "False"
	case number:
		return pythonNumber(v.text)
	case text:
		if strings.Contains(v.text, "'") && !strings.Contains(v.text, `"`) {
			return `"` + v.text + `"`
		}
		return "'" + strings.ReplaceAll(strings.ReplaceAll(v.text, `\`, `\\`), "'", `\'`) + "'"
	case list:
		parts := make([]string, len(v.items))
		for i, item := range v.items {
			parts[i] = pythonRepr(item)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case mapping:
		parts := make([]string, len(v.items))
		for i, item := range v.items {
			parts[i] = pythonRepr(value{kind: text, text: v.keys[i]}) + ": " + pythonRepr(item)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	default:
		return "None"
	}
}

// pythonNumber spells floats one way, so that 1.50 and 1.5 compare equal.
func pythonNumber(s string) string {
	if !strings.ContainsAny(s, ".eE") {
		return s
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return s
	}
	out := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(out, ".eE") {
		out += ".0"
	}
	return out
}
