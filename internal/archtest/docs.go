package archtest

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
)

// docRules hold what must be written down.
func docRules() []Rule {
	return []Rule{
		{
			Name:   "exported-doc",
			Reason: "what is exported is a promise: say what callers may assume, who owns it, what may be stale",
			Check:  undocumented,
		},
		{
			Name:   "package-doc",
			Reason: "a package says once, above its package clause, what it is for and what it doesn't do",
			Check:  packagesWithoutDoc,
		},
		{
			Name:   "dependency-doc",
			Reason: "each direct dependency has its line in docs/dependencies.md: why, what we use, what we would do without it",
			Check:  undocumentedDependencies,
		},
		{
			Name:   "decision-form",
			Reason: "a decision record has Context, Decision, Alternatives and Consequences, and is listed in docs/README.md",
			Check:  decisionForm,
		},
	}
}

// undocumented finds exported names without a comment. Methods that only fulfil a well-known
// interface are passed over: their contract is the interface's.
func undocumented(t *Tree) []Finding {
	var out []Finding
	for _, f := range t.code() {
		if f.isMain() {
			continue
		}
		add := func(pos token.Pos, name string) {
			out = append(out, Finding{Path: f.Path, Line: t.line(pos), Symbol: name, What: name + " is exported and has no comment"})
		}
		for _, d := range f.AST.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				recv := receiver(d)
				if d.Doc == nil && d.Name.IsExported() && (recv == "" || ast.IsExported(recv) && !wellKnown(d.Name.Name)) {
					add(d.Pos(), declName(d))
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					undocumentedSpec(d, spec, add)
				}
			}
		}
	}
	return out
}

func undocumentedSpec(d *ast.GenDecl, spec ast.Spec, add func(token.Pos, string)) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
			add(s.Pos(), s.Name.Name)
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
				add(name.Pos(), name.Name)
			}
		}
	}
}

func wellKnown(method string) bool {
	return slices.Contains([]string{
		"String", "GoString", "Error", "Unwrap", "Is", "Len", "Less", "Swap", "Close", "Read", "Write",
		"MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "LogValue", "ServeHTTP",
	}, method)
}

func packagesWithoutDoc(t *Tree) []Finding {
	documented := map[string]bool{}
	for _, f := range t.code() {
		documented[f.Pkg] = documented[f.Pkg] || f.AST.Doc != nil
	}
	var out []Finding
	for pkg, ok := range documented {
		if !ok {
			out = append(out, Finding{Path: pkg, What: "the package has no comment"})
		}
	}
	return out
}

// undocumentedDependencies looks for each module of go.mod that some file imports.
func undocumentedDependencies(t *Tree) []Finding {
	imported := map[string]bool{}
	for _, f := range t.Files {
		for _, p := range f.Imports {
			imported[p] = true
		}
	}
	var out []Finding
	for _, line := range strings.Split(t.Texts["go.mod"], "\n") {
		module, rest, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "require ")), " ")
		if !foreign(module) || !strings.HasPrefix(rest, "v") {
			continue
		}
		for p := range imported {
			if matchPath(module+"/...", p) && !strings.Contains(t.Texts["docs/dependencies.md"], "`"+module+"`") {
				out = append(out, Finding{Path: "go.mod", Symbol: module, What: module + " is used and not described"})
				break
			}
		}
	}
	return out
}

func decisionForm(t *Tree) []Finding {
	var out []Finding
	for name, text := range t.Texts {
		if path.Dir(name) != "docs/decisions" {
			continue
		}
		for _, heading := range []string{"Context", "Decision", "Alternatives", "Consequences"} {
			if !strings.Contains(text, "\n## "+heading+"\n") {
				out = append(out, Finding{Path: name, What: "lacks the heading " + heading})
			}
		}
		if !strings.Contains(t.Texts["docs/README.md"], "("+strings.TrimPrefix(name, "docs/")+")") {
			out = append(out, Finding{Path: name, What: "isn't listed in docs/README.md"})
		}
	}
	return out
}
