package config

import (
	"slices"
	"strings"
)

// targetPath is the section of the store that the cluster is to be moved to.
const targetPath = "regent.dcs_target"

// Target is this configuration with the store of regent.dcs_target in place of its own.
// False: the file names no target.
func (c *Config) Target() (*Config, bool) {
	t := c.root.at(targetPath)
	if t == nil || t.kind != kindMap || len(t.keys) == 0 {
		return nil, false
	}
	root := c.root.clone()
	for _, name := range storeNames() {
		root.remove(name)
	}
	for _, e := range t.keys {
		root.set(e.key, e.pos, e.val)
	}
	root.get("regent").remove("dcs_target")
	return decodeConfig(c.Source, normalizeLocal(root)), true
}

// target judges the target's section as one of a store that is in use.
func (v *validator) target(s Support) {
	c, ok := v.c.Target()
	if !ok {
		return
	}
	if len(c.Stores) != 1 || !slices.Contains(s.Stores, c.Stores[0]) {
		v.add(Error, targetPath, "must hold the section of exactly one store that is built in", "for example `etcd3: {hosts: [...]}`")
		return
	}
	inner := validator{c: c, root: c.root}
	inner.store(s)
	for _, p := range inner.problems {
		if p.Severity == Error {
			p.Path = targetPath + "." + p.Path
			v.append(p)
		}
	}
}

// targetKeys are the rows of the stores' sections below regent.dcs_target.
func targetKeys() []key {
	rows := []key{{
		path: targetPath, typ: tSection,
		doc: "The section of the store that the cluster is to be moved to, in the same form as the file's own. See operations/move-between-stores.md.",
	}}
	for _, k := range storeKeys() {
		if section, _, _ := strings.Cut(k.path, "."); !slices.Contains([]string{"raft", "etcd3", "consul"}, section) {
			continue
		}
		if k.status == moot {
			continue
		}
		if k.typ != tSection {
			k.doc = "As `" + k.path + "`."
		}
		k.path, k.env, k.restart = targetPath+"."+k.path, "", false
		rows = append(rows, k)
	}
	return rows
}
