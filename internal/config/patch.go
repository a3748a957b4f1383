package config

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ErrNotMapping is returned when a configuration or a patch is no JSON mapping.
var ErrNotMapping = errors.New("a configuration must be a JSON mapping")

// Patch merges patch into current the way PATCH /config and `edit-config` do, and
// reports whether anything changed: mappings merge, null deletes a key, lists and
// scalars replace. Two values are the same when they print the same, so patching 100
// over "100" changes nothing and keeps the string. Keys keep their order, new ones come
// last. A null inside a mapping that is new is stored as null. An empty current counts
// as {}.
//
// One difference to Patroni: deleting a key that holds null counts as a change, since
// otherwise such a key could never be got rid of.
func Patch(current, patch json.RawMessage) (merged json.RawMessage, changed bool, err error) {
	if len(current) == 0 {
		current = json.RawMessage("{}")
	}
	base, err := parseMapping("current configuration", current)
	if err != nil {
		return nil, false, err
	}
	over, err := parseMapping("patch", patch)
	if err != nil {
		return nil, false, err
	}
	base = base.clone()
	changed = patchTree(base, over)
	return appendJSON(nil, base), changed, nil
}

func parseMapping(what string, text []byte) (*tree, error) {
	t, err := parseJSON(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	if t.kind != kindMap {
		return nil, fmt.Errorf("read %s: %w", what, ErrNotMapping)
	}
	return t, nil
}

// patchTree merges over into base, in place.
func patchTree(base, over *tree) (changed bool) {
	for _, e := range over.keys {
		old := base.get(e.key)
		switch {
		case e.val.isNull():
			changed = base.remove(e.key) || changed
		case old == nil:
			base.set(e.key, e.pos, e.val.clone())
			changed = true
		case e.val.kind == kindMap && old.kind == kindMap:
			changed = patchTree(old, e.val) || changed
		case e.val.kind == kindMap, old.pyString() != e.val.pyString():
			base.set(e.key, e.pos, e.val.clone())
			changed = true
		}
	}
	return changed
}

// ToJSON converts a YAML document to the compact JSON of /config, keys in order.
// `edit-config` hands what the operator wrote through it.
func ToJSON(source string, yaml []byte) (json.RawMessage, error) {
	t, problems := parseYAML(source, yaml)
	if t == nil {
		return nil, Problems(problems)
	}
	if t.kind != kindMap {
		return nil, fmt.Errorf("read %s: %w", source, ErrNotMapping)
	}
	return appendJSON(nil, t), nil
}
