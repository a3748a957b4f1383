package archtest

import (
	"go/ast"
	"slices"
)

// pureRules hold what an import list can't show about the pure packages.
func pureRules() []Rule {
	return []Rule{
		{
			Name:   "pure-time",
			Reason: "time reaches the pure packages only on events; ask for a timer with an action",
			Check:  pureTime,
		},
		{
			Name:   "pure-goroutine",
			Reason: "the pure packages are called by one goroutine and start none; concurrency belongs to the shell",
			Check:  pureGoroutine,
		},
	}
}

// pureTime finds readings of the clock. Durations and instants as values are welcome.
func pureTime(t *Tree) []Finding {
	clock := []string{
		"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker",
		"Local", "LoadLocation",
	}
	return t.each(t.pureFiles(), func(f *File, n ast.Node) string {
		e, ok := n.(*ast.SelectorExpr)
		if !ok {
			return ""
		}
		if pkg, name, ok := f.callee(e); ok && pkg == "time" && slices.Contains(clock, name) {
			return "uses time." + name
		}
		return ""
	})
}

func pureGoroutine(t *Tree) []Finding {
	return t.each(t.pureFiles(), func(_ *File, n ast.Node) string {
		switch n.(type) {
		case *ast.GoStmt:
			return "starts a goroutine"
		case *ast.SelectStmt, *ast.SendStmt:
			return "talks over channels"
		}
		return ""
	})
}

func (t *Tree) pureFiles() []*File {
	return slices.DeleteFunc(t.code(), func(f *File) bool { return !slices.Contains(pure, f.Pkg) })
}

// each walks the files and collects what complain says about a node; "" is no complaint.
func (t *Tree) each(files []*File, complain func(*File, ast.Node) string) []Finding {
	var out []Finding
	for _, f := range files {
		symbol := ""
		for _, decl := range f.AST.Decls {
			symbol = declName(decl)
			ast.Inspect(decl, func(n ast.Node) bool {
				if n == nil {
					return true
				}
				if what := complain(f, n); what != "" {
					out = append(out, Finding{Path: f.Path, Line: t.line(n.Pos()), Symbol: symbol, What: what})
				}
				return true
			})
		}
	}
	return out
}

// declName names a declaration the way exceptions do: Func, Type.Method, or "" for others.
func declName(d ast.Decl) string {
	fn, ok := d.(*ast.FuncDecl)
	if !ok {
		return ""
	}
	if recv := receiver(fn); recv != "" {
		return recv + "." + fn.Name.Name
	}
	return fn.Name.Name
}

// receiver is the name of a method's type, "" for a function.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return ""
	}
	e := fn.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
