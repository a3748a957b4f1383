package archtest

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// codeRules hold habits of the code outside tests.
func codeRules() []Rule {
	return []Rule{
		{
			Name:   "init-function",
			Reason: "work at import time can't be ordered, tested or refused; do it where it is used",
			Check:  initFunctions,
		},
		{
			Name:   "package-variable",
			Reason: "a package variable that changes is shared by every agent and every test of the process; make it a field",
			Check:  assignedPackageVariables,
		},
		{
			Name:   "goroutine-owner",
			Reason: "whoever starts a goroutine waits for it, there or where the component ends, so that nothing runs any more when it says so",
			Check:  unwaitedGoroutines,
		},
		{
			Name:   "default-logger",
			Reason: "loggers are given to components (slog, with the node's name on it); a global one can't be told apart or silenced",
			Check:  defaultLogger,
		},
		{
			Name:   "library-output",
			Reason: "only programs own stdout and the exit code; return the text or the error",
			Check:  libraryOutput,
		},
		{
			Name:   "error-words",
			Reason: "an error says operation and object in lower case and wraps its cause with %w; that it failed is known",
			Check:  errorWords,
		},
		{
			Name:   "vocabulary",
			Reason: "the roles are primary and replica, the lease has a holder (docs/glossary.md); the old words stay in Patroni's formats",
			Check:  vocabulary,
		},
	}
}

func initFunctions(t *Tree) []Finding {
	var out []Finding
	for _, f := range t.code() {
		for _, d := range f.AST.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				out = append(out, Finding{Path: f.Path, Line: t.line(fn.Pos()), Symbol: "init", What: "has an init function"})
			}
		}
	}
	return out
}

// assignedPackageVariables finds assignments to variables of the package. A function that
// declares the same name itself is passed over: without types the two can't be told apart.
func assignedPackageVariables(t *Tree) []Finding {
	variables := map[string]map[string]bool{} // by folder
	for _, f := range t.code() {
		for _, d := range f.AST.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, spec := range gen.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if variables[f.Pkg] == nil {
						variables[f.Pkg] = map[string]bool{}
					}
					variables[f.Pkg][name.Name] = name.Name != "_"
				}
			}
		}
	}
	var out []Finding
	for _, f := range t.code() {
		for _, d := range f.AST.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			local := localNames(fn)
			for _, target := range assigned(fn.Body) {
				if variables[f.Pkg][target.Name] && !local[target.Name] {
					out = append(out, Finding{
						Path: f.Path, Line: t.line(target.Pos()), Symbol: declName(fn),
						What: "assigns to the package variable " + target.Name,
					})
				}
			}
		}
	}
	return out
}

// localNames are the names that a function declares anywhere inside.
func localNames(fn *ast.FuncDecl) map[string]bool {
	names := map[string]bool{}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.Field:
			for _, id := range x.Names {
				names[id.Name] = true
			}
		case *ast.ValueSpec:
			for _, id := range x.Names {
				names[id.Name] = true
			}
		case *ast.AssignStmt:
			if x.Tok == token.DEFINE {
				for _, e := range x.Lhs {
					if id, ok := e.(*ast.Ident); ok {
						names[id.Name] = true
					}
				}
			}
		case *ast.RangeStmt:
			for _, e := range []ast.Expr{x.Key, x.Value} {
				if id, ok := e.(*ast.Ident); ok && x.Tok == token.DEFINE {
					names[id.Name] = true
				}
			}
		}
		return true
	})
	return names
}

// assigned are the variables at the root of what is assigned to: x in x.f[i] = 1.
func assigned(body ast.Node) []*ast.Ident {
	var out []*ast.Ident
	add := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.SelectorExpr:
				e = x.X
			case *ast.IndexExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.Ident:
				out = append(out, x)
				return
			default:
				return
			}
		}
	}
	ast.Inspect(body, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.AssignStmt:
			if x.Tok != token.DEFINE {
				for _, e := range x.Lhs {
					add(e)
				}
			}
		case *ast.IncDecStmt:
			add(x.X)
		}
		return true
	})
	return out
}

func defaultLogger(t *Tree) []Finding {
	made := []string{
		"Debug", "DebugContext", "Info", "InfoContext", "Warn", "WarnContext", "Error", "ErrorContext",
		"Log", "LogAttrs", "Default", "SetDefault", "With",
	}
	return t.each(t.code(), func(f *File, n ast.Node) string {
		e, ok := n.(*ast.SelectorExpr)
		if !ok {
			return ""
		}
		pkg, name, ok := f.callee(e)
		if ok && (pkg == "log/slog" && slices.Contains(made, name) || pkg == "log" && name != "New" && name != "Logger") {
			return "uses " + pkg + "." + name
		}
		return ""
	})
}

func libraryOutput(t *Tree) []Finding {
	owners := map[string][]string{
		"fmt": {"Print", "Printf", "Println"},
		"os":  {"Exit", "Stdout"},
	}
	return t.each(t.code(), func(f *File, n ast.Node) string {
		e, ok := n.(*ast.SelectorExpr)
		if !ok || f.isMain() {
			return ""
		}
		if pkg, name, ok := f.callee(e); ok && slices.Contains(owners[pkg], name) {
			return "uses " + pkg + "." + name + " outside a program"
		}
		return ""
	})
}

func errorWords(t *Tree) []Finding {
	return t.each(t.code(), func(f *File, n ast.Node) string {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return ""
		}
		pkg, name, _ := f.callee(call.Fun)
		if pkg+"."+name != "fmt.Errorf" && pkg+"."+name != "errors.New" {
			return ""
		}
		text, ok := call.Args[0].(*ast.BasicLit)
		if !ok {
			return ""
		}
		if words := strings.ToLower(text.Value[1:]); strings.HasPrefix(words, "failed to") || strings.HasPrefix(words, "error ") {
			return "error text begins with " + text.Value
		}
		last, ok := call.Args[len(call.Args)-1].(*ast.Ident)
		if ok && last.Name == "err" && !strings.Contains(text.Value, "%w") {
			return "err isn't wrapped in " + text.Value
		}
		return ""
	})
}

func vocabulary(t *Tree) []Finding {
	return t.each(t.Files, func(_ *File, n ast.Node) string {
		id, ok := n.(*ast.Ident)
		if !ok {
			return ""
		}
		word := strings.ReplaceAll(strings.ToLower(id.Name), "postmaster", "")
		if strings.Contains(word, "master") || strings.Contains(word, "slave") {
			return "the name " + id.Name
		}
		return ""
	})
}
