package config

import "sort"

// Change is one setting that differs between two configurations.
type Change struct {
	// Path is dotted; below parameters and other free mappings it goes on to the key.
	Path string
	// NeedsRestart: the agent has to be restarted for it; all else a reload takes up.
	NeedsRestart bool
}

// Diff names the settings that differ, sorted by path. Two spellings of one setting
// don't differ, nor do two values that print the same.
func Diff(old, updated *Config) []Change {
	var changes []Change
	diffTrees("", old.root, updated.root, &changes)
	sort.Slice(changes, func(i, j int) bool { return changes[i].Path < changes[j].Path })
	return changes
}

func diffTrees(path string, a, b *tree, changes *[]Change) {
	aMap, bMap := a != nil && a.kind == kindMap, b != nil && b.kind == kindMap
	if !aMap && !bMap {
		if a.pyString() != b.pyString() || a.isNull() != b.isNull() {
			*changes = append(*changes, Change{Path: path, NeedsRestart: needsRestart(path)})
		}
		return
	}
	seen := map[string]bool{}
	for _, side := range []*tree{a, b} {
		if side == nil || side.kind != kindMap {
			continue
		}
		for _, e := range side.keys {
			if !seen[e.key] {
				seen[e.key] = true
				diffTrees(join(path, e.key), a.get(e.key), b.get(e.key), changes)
			}
		}
	}
}

// needsRestart asks the row of the path, or of the nearest key above it that has one.
func needsRestart(path string) bool {
	for path != "" {
		if row, ok := localIndex.row(path); ok {
			return row.restart
		}
		cut := len(path) - 1
		for cut > 0 && path[cut] != '.' {
			cut--
		}
		path = path[:cut]
	}
	return false
}
