package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrNotMapping is returned when a shared configuration is something else.
var ErrNotMapping = errors.New("a configuration must be a JSON mapping")

func parseMapping(text []byte) (*tree, error) {
	t, err := parseJSON(text)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("the JSON ends too early: %w", err)
	case err != nil:
		return nil, fmt.Errorf("no JSON: %w", err)
	case t.kind != kindMap:
		return nil, ErrNotMapping
	}
	return t, nil
}

// patchTree merges over into base, in place, the way all of Patroni's sources are
// merged: mappings merge, null deletes a key, lists and scalars replace. Two values are
// the same when they print the same, and then the old one stays. Keys keep their order,
// new ones come last. (What goes into the store is merged by dcs.PatchConfig, by the
// same rules.)
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
