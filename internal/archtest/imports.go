package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// A pattern names packages: "fsm" (of this module), "dcs/..." (with everything below),
// "std" (the standard library), "std:net/http" (one package of it, "std:os/..." with what
// is below), "foreign" (anybody's module) or a foreign import path.

// arrow says what packages may import. The reason is printed with a violation.
type arrow struct {
	who []string
	// except takes packages out of who.
	except []string
	// may lists all that who may import; nil means anything.
	may []string
	// never lists what who must not import.
	never []string
	// linked extends the arrow to everything of this module that who imports, however far.
	linked bool
	reason string
}

// pure are the packages that read nothing of the world.
var pure = []string{"events", "fsm", "dcs", "dcs/embedded/kv"}

// arrows returns the arrows of docs/ARCHITECTURE.md, section 2.
func arrows() []arrow {
	return []arrow{
		{
			who: pure, never: []string{
				"std:os/...", "std:net", "std:net/http/...", "std:net/rpc/...", "std:net/smtp", "std:syscall/...", "std:io/fs",
				"std:io/ioutil", "std:log/...", "std:runtime/...", "std:math/rand/...", "std:crypto/rand", "std:unsafe",
			},
			reason: "the pure packages decide from events alone; what reads the world can't be replayed. Bring it in as an event",
		},
		{
			who: []string{"events"}, may: []string{"std"},
			reason: "events is the vocabulary that everything shares, so it depends on nothing",
		},
		{
			who: []string{"fsm"}, may: []string{"std", "events", "github.com/looplab/fsm"},
			reason: "the machine knows events and its own table; it never sees a connection, a store or a configuration file",
		},
		{
			who: []string{"dcs"}, may: []string{"std", "events"},
			reason: "the store's contract is shared by all backends and depends on none",
		},
		{
			who: []string{"dcs/embedded/kv"}, may: []string{"std", "events", "dcs"},
			reason: "the replicated machine must compute the same on every node; raft is its caller, not its dependency",
		},
		{
			who: []string{"dcs/..."}, except: append([]string{"dcs/dcstest"}, pure...),
			may:    []string{"std", "foreign", "events", "dcs/...", "internal/mono", "internal/routines", "internal/tlsconf"},
			reason: "a store stores; it decides nothing and knows no PostgreSQL. The agent translates what it says into events",
		},
		{
			who:    []string{"dcs/dcstest"},
			may:    []string{"std", "foreign", "events", "dcs/...", "internal/mono", "internal/routines", "internal/tlsconf", "internal/freeport"},
			reason: "the stores' test kit knows what a store knows, and finds ports for servers",
		},
		{
			who: []string{"events/journal"}, may: []string{"std", "golang.org/x/sys/...", "events", "internal/mono"},
			reason: "the journal keeps records without knowing what they mean, so that an old one can always be read",
		},
		{
			who: []string{"pgmgr", "pgmgr/..."}, except: []string{"pgmgr/keeper", "pgmgr/pgtest"},
			may:    []string{"std", "foreign", "events", "internal/mono", "pgmgr/..."},
			reason: "pgmgr carries out verbs on one PostgreSQL; it knows neither the store nor the machine that asks for them",
		},
		{
			who: []string{"pgmgr/pgtest"}, may: []string{"std", "foreign", "events", "internal/mono", "pgmgr/...", "internal/child"},
			reason: "PostgreSQL's test kit knows what pgmgr knows, and runs the tests again as another user",
		},
		{
			who: []string{"internal/child", "internal/freeport"}, may: []string{"std", "golang.org/x/sys/..."},
			reason: "leaves that test kits and sandboxes share know none of them",
		},
		{
			who: []string{"pgmgr/keeper"}, may: []string{"std", "golang.org/x/sys/...", "events", "internal/mono"},
			reason: "the keeper links its protocol, and must stay small enough to be left alone",
		},
		{
			who: []string{"internal/mono"}, may: []string{"std", "golang.org/x/sys/...", "events"},
			reason: "the clock is a leaf that anything impure may import",
		},
		{
			who: []string{"cmd/regent-keeper/..."}, linked: true,
			may:    []string{"std", "golang.org/x/sys/...", "events", "internal/mono", "pgmgr/keeper", "cmd/regent-keeper/..."},
			never:  []string{"std:net/http/...", "std:crypto/tls", "std:database/sql/...", "std:testing/..."},
			reason: "the keeper outlives agents and holds the fence alone: little logic, no network, no store, a few MB (ADR 0009)",
		},
		{
			who: []string{"cmd/regent/..."}, linked: true, never: []string{"chaos/...", "internal/sandbox/hosts"},
			reason: "the agent's binary must not carry code that breaks things on purpose",
		},
		{
			who: []string{"cmd/..."}, linked: true, never: []string{"pgmgr/pgtest", "dcs/dcstest"},
			reason: "test kits stay out of what users run",
		},
		{
			who: []string{"..."}, except: []string{"cmd/...", "chaos/...", "internal/agent/..."}, never: []string{"internal/agent/..."},
			reason: "only cmd and chaos assemble agents; whatever else needs the agent takes a small interface",
		},
		{
			who: []string{"..."}, except: []string{"cmd/regent-chaos/...", "chaos/..."}, never: []string{"chaos/..."},
			reason: "chaos looks at the product from outside; nothing of the product leans on it",
		},
		{
			who: []string{"..."}, except: []string{"fsm"}, never: []string{"github.com/looplab/fsm"},
			reason: "looplab is arbiter and drawing of the one machine in fsm, with its traps fenced in there (ADR 0003)",
		},
		{
			who: []string{"..."}, except: []string{"dcs/embedded/..."}, never: []string{"github.com/hashicorp/raft", "github.com/hashicorp/raft-boltdb/..."},
			reason: "raft is a detail of the embedded store; everybody else sees dcs.Store",
		},
	}
}

func importRules() []Rule {
	return []Rule{{
		Name:   "imports",
		Reason: "see docs/ARCHITECTURE.md, section 2",
		Check: func(t *Tree) []Finding {
			var out []Finding
			for _, a := range arrows() {
				out = append(out, a.check(t)...)
			}
			return out
		},
	}}
}

// check follows the imports of the packages that the arrow is about. Tests may import what
// they like: they are not linked into anything.
func (a arrow) check(t *Tree) []Finding {
	var out []Finding
	for _, pkg := range t.packages() {
		if !matchAny(a.who, pkg) || matchAny(a.except, pkg) {
			continue
		}
		chains := map[string]string{pkg: ""}
		queue := []string{pkg}
		for len(queue) > 0 {
			from := queue[0]
			queue = queue[1:]
			for _, im := range t.importsOf(from) {
				if !a.allows(im.path) {
					out = append(out, Finding{
						Path: im.file, Line: im.line, Symbol: im.path, Reason: a.reason,
						What: fmt.Sprintf("%s%s imports %s", pkg, chains[from], im.path),
					})
					continue
				}
				own, isOwn := strings.CutPrefix(im.path, Module+"/")
				if _, seen := chains[own]; a.linked && isOwn && !seen {
					chains[own] = chains[from] + " → " + own
					queue = append(queue, own)
				}
			}
		}
	}
	return out
}

func (a arrow) allows(importPath string) bool {
	name := canonical(importPath)
	if matchAny(a.never, name) {
		return false
	}
	return a.may == nil || matchAny(a.may, name)
}

// importLine is one import of a package.
type importLine struct {
	path, file string
	line       int
}

// packages returns the folders with Go code, sorted.
func (t *Tree) packages() []string {
	var out []string
	for _, f := range t.Files {
		if !f.Test {
			out = append(out, f.Pkg)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (t *Tree) importsOf(pkg string) []importLine {
	var out []importLine
	for _, f := range t.Files {
		if f.Test || f.Pkg != pkg {
			continue
		}
		for _, spec := range f.AST.Imports {
			out = append(out, importLine{
				path: strings.Trim(spec.Path.Value, "`\""), file: f.Path, line: t.line(spec.Pos()),
			})
		}
	}
	return out
}

func matchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, name) })
}

// canonical names an import: packages of this module by folder, the standard library's with
// "std:" in front, others by their path.
func canonical(importPath string) string {
	if own, ok := strings.CutPrefix(importPath, Module+"/"); ok {
		return own
	}
	if foreign(importPath) {
		return importPath
	}
	return "std:" + importPath
}

// foreign tells an import path of another module: its first element is a host name.
func foreign(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return strings.Contains(first, ".")
}

// match holds a pattern against a canonical name.
func match(pattern, name string) bool {
	std := strings.HasPrefix(name, "std:")
	switch pattern {
	case "...":
		return !std && !foreign(name)
	case "foreign":
		return !std && foreign(name)
	case "std":
		return std
	default:
		return matchPath(pattern, name)
	}
}

func matchPath(pattern, name string) bool {
	if prefix, below := strings.CutSuffix(pattern, "/..."); below {
		return name == prefix || strings.HasPrefix(name, prefix+"/")
	}
	return pattern == name
}
