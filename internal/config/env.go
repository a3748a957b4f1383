package config

import (
	"sort"
	"strconv"
	"strings"
)

const envPrefix = "PATRONI_"

// configurationVariable holds a whole YAML document, for hosts without files.
const configurationVariable = envPrefix + "CONFIGURATION"

// oldVariables are spellings from before there was a log section.
var oldVariables = map[string]string{
	"LOGLEVEL": "LOG_LEVEL", "LOGFORMAT": "LOG_FORMAT", "LOG_DATEFMT": "LOG_DATEFORMAT",
}

// variables picks the non-empty PATRONI_* ones, without their prefix. The last of
// equals counts.
func variables(environ []string) map[string]string {
	vars := map[string]string{}
	for _, kv := range environ {
		name, value, ok := strings.Cut(kv, "=")
		if rest, ours := strings.CutPrefix(name, envPrefix); ok && ours && value != "" {
			vars[rest] = value
		}
	}
	for old, name := range oldVariables {
		if v, ok := vars[old]; ok {
			delete(vars, old)
			if _, both := vars[name]; !both {
				vars[name] = v
			}
		}
	}
	return vars
}

// environmentTree turns the variables into a tree to be patched over the file's. A
// variable that is no setting's is left alone, as Patroni does: the prefix is shared
// with scripts.
func environmentTree(vars map[string]string) (*tree, []Problem) {
	byVariable := map[string]key{}
	for _, row := range localIndex.rows {
		if row.env != "" {
			byVariable[row.env] = row
		}
	}
	names := make([]string, 0, len(vars))
	for name := range vars {
		if _, ok := byVariable[name]; ok {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	root := newMap(pos{Source: "environment"})
	var problems []Problem
	for _, name := range names {
		row, at := byVariable[name], pos{Source: envPrefix + name}
		val, ok := environmentValue(row, vars[name], at)
		if !ok {
			p := problemAt(at, Warning, row.path, "can't be read: its type is "+row.typ.String()+"; it is ignored", "")
			problems = append(problems, p)
			continue
		}
		setPath(root, strings.Split(row.path, "."), val)
	}
	return root, problems
}

func setPath(t *tree, path []string, val *tree) {
	for _, name := range path[:len(path)-1] {
		next := t.get(name)
		if next == nil || next.kind != kindMap {
			next = newMap(val.pos)
			t.set(name, val.pos, next)
		}
		t = next
	}
	t.set(path[len(path)-1], val.pos, val)
}

// environmentValue reads a variable by the type of its setting: booleans and numbers
// by their words, lists as a,b or [a, b] or YAML's dashes, mappings as {k: v} or
// k: v, k2: v2.
func environmentValue(row key, text string, at pos) (*tree, bool) {
	text = strings.TrimSpace(text)
	switch row.typ {
	case tBool:
		b, ok := readBool(newString(text, at))
		return newBool(b, at), ok
	case tInt:
		n, err := strconv.ParseInt(text, 10, 64)
		return newInt(n, at), err == nil
	case tStrings, tLines:
		if strings.HasPrefix(text, "-") {
			return environmentYAML(text, at)
		}
		list := &tree{kind: kindList, pos: at}
		for _, item := range splitList(text) {
			list.list = append(list.list, newString(item, at))
		}
		return list, true
	case tSettings:
		if !strings.HasPrefix(text, "{") {
			text = "{" + text + "}"
		}
		return environmentYAML(text, at)
	case tFree:
		if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
			return environmentYAML(text, at)
		}
	}
	return newString(text, at), true
}

func environmentYAML(text string, at pos) (*tree, bool) {
	t, _ := parseYAML(at.Source, []byte(text))
	if t == nil || t.kind < kindList {
		return nil, false
	}
	return t, true
}
