package config

import (
	"strings"
)

// typ is what a setting's value must look like.
type typ uint8

const (
	tString   typ = iota
	tPath         // a file or folder
	tSecret       // a string that is never shown
	tBool         // YAML's booleans, or on/off/yes/no/true/false/1/0 as text
	tInt          // an integer, as a number or as text
	tSeconds      // seconds, fractions allowed, or a number with us ms s min h d
	tSize         // bytes, or a number with B kB MB GB TB
	tAddr         // host:port
	tListen       // host[,host...]:port
	tStrings      // a list of strings, or one string with commas
	tLines        // a list of strings, taken as they are
	tOptions      // options of a program: list of flags and one-key mappings, or a mapping
	tSettings     // a mapping of scalars
	tScalar       // any scalar
	tFree         // a mapping or list whose inside is not checked here
	tSection      // a mapping whose keys are in the table
	tEnum         // one of key.enum
)

// String is the type's name in the reference.
func (t typ) String() string {
	switch t {
	case tPath:
		return "path"
	case tSecret:
		return "secret"
	case tBool:
		return "boolean"
	case tInt:
		return "integer"
	case tSeconds:
		return "seconds"
	case tSize:
		return "size"
	case tAddr:
		return "host:port"
	case tListen:
		return "hosts:port"
	case tStrings, tLines:
		return "list"
	case tOptions:
		return "options"
	case tSettings, tFree, tSection:
		return "mapping"
	case tScalar:
		return "scalar"
	case tEnum:
		return "word"
	default:
		return "string"
	}
}

// status says what this release does with a key.
type status uint8

const (
	// honoured: it works.
	honoured status = iota
	// notYet: known, without effect in this release. All of them make one notice.
	notYet
	// moot: known, and has no meaning here (settings of Patroni's Python machinery).
	// Silent, because nothing an operator expects is missing.
	moot
	// promised: see promises.go; allowed only at values that promise nothing.
	promised
	// partly: it works, and what of it doesn't is refused; see promises.go.
	partly
)

// String is the status in the reference.
func (s status) String() string {
	switch s {
	case notYet:
		return "not yet"
	case moot:
		return "no meaning here"
	case promised:
		return "refused unless off"
	case partly:
		return "in part, else refused"
	case honoured:
		return "yes"
	default:
		return "unknown"
	}
}

// limits bound a number, both ends included.
type limits struct{ lo, hi float64 }

func atLeast(lo float64) *limits     { return &limits{lo, 1 << 62} }
func between(lo, hi float64) *limits { return &limits{lo, hi} }

// key is one row of the table of settings.
type key struct {
	// path is dotted; a last element * stands for any other key.
	path   string
	typ    typ
	def    string // as the reference shows it
	env    string // the variable that overrides it, without PATRONI_
	enum   []string
	limits *limits
	status status
	// fatal: a value of the wrong form forbids the start, since no default does what was
	// meant.
	fatal bool
	// restart: a change needs a restart of the agent, not only a reload.
	restart bool
	doc     string
}

// keyIndex finds rows by path.
type keyIndex struct {
	rows   []key
	byPath map[string]int
	leaves map[string][]string // last element → paths, for "did you mean"
}

func newKeyIndex(groups ...[]key) *keyIndex {
	x := &keyIndex{byPath: map[string]int{}, leaves: map[string][]string{}}
	for _, rows := range groups {
		for _, k := range rows {
			x.byPath[k.path] = len(x.rows)
			x.rows = append(x.rows, k)
			leaf := k.path[strings.LastIndexByte(k.path, '.')+1:]
			if leaf != "*" {
				x.leaves[leaf] = append(x.leaves[leaf], k.path)
			}
		}
	}
	return x
}

// find returns the row of a child: its own, or its parent's wildcard.
func (x *keyIndex) find(parent, name string) (key, bool) {
	if !strings.Contains(name, ".") && name != "*" {
		if i, ok := x.byPath[join(parent, name)]; ok {
			return x.rows[i], true
		}
	}
	if i, ok := x.byPath[join(parent, "*")]; ok {
		return x.rows[i], true
	}
	return key{}, false
}

// row returns the row of an exact path.
func (x *keyIndex) row(path string) (key, bool) {
	i, ok := x.byPath[path]
	if !ok {
		return key{}, false
	}
	return x.rows[i], true
}

// children lists the names right below a path, in table order.
func (x *keyIndex) children(parent string) []string {
	var names []string
	for _, k := range x.rows {
		dir, name := "", k.path
		if i := strings.LastIndexByte(k.path, '.'); i >= 0 {
			dir, name = k.path[:i], k.path[i+1:]
		}
		if dir == parent && name != "*" {
			names = append(names, name)
		}
	}
	return names
}

func join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}

// The two tables. They are built once and never changed.
var (
	localIndex = newKeyIndex(globalKeys(), logKeys(), restKeys(), ctlKeys(), bootstrapKeys(),
		postgresqlKeys(), localPostgresqlKeys(), authenticationKeys(), storeKeys(), tagKeys(), regentKeys(), targetKeys())
	dynamicIndex = newKeyIndex(dynamicKeys(), postgresqlKeys())
)
