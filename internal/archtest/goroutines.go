package archtest

import (
	"go/ast"
	"go/token"
)

// unwaitedGoroutines finds goroutines that nobody waits for, as far as syntax shows it. Somebody
// waits when the starting function itself calls a Wait or receives from a channel, or when the
// goroutine ends by wg.Done() or close(done), and its package somewhere calls wg.Wait() or
// receives from done.
func unwaitedGoroutines(t *Tree) []Finding {
	awaited := map[string]map[string]bool{} // by folder, the names of what is waited for
	for _, f := range t.code() {
		if awaited[f.Pkg] == nil {
			awaited[f.Pkg] = map[string]bool{}
		}
		waits(f.AST, true, func(name string) { awaited[f.Pkg][name] = true })
	}
	return t.eachFunction(func(f *File, fn *ast.FuncDecl) []Finding {
		here := false
		waits(fn.Body, false, func(string) { here = true })
		if here {
			return nil
		}
		var out []Finding
		for _, n := range starts(fn.Body) {
			if endsInto(n, awaited[f.Pkg]) {
				continue
			}
			out = append(out, Finding{
				Path: f.Path, Line: t.line(n.Pos()), Symbol: declName(fn),
				What: declName(fn) + " starts a goroutine, and nothing waits for it",
			})
		}
		return out
	})
}

func (t *Tree) eachFunction(check func(*File, *ast.FuncDecl) []Finding) []Finding {
	var out []Finding
	for _, f := range t.code() {
		for _, d := range f.AST.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				out = append(out, check(f, fn)...)
			}
		}
	}
	return out
}

// starts returns where goroutines start: go statements and calls of a method Go with a function.
func starts(body ast.Node) []ast.Node {
	var out []ast.Node
	ast.Inspect(body, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.GoStmt:
			out = append(out, x)
			return false
		case *ast.CallExpr:
			if _, method := selected(x.Fun); method == "Go" && len(x.Args) == 1 {
				out = append(out, x)
				return false
			}
		}
		return true
	})
	return out
}

// waits calls found with the name of each thing that is waited for in body: X in X.Wait() and
// in <-X. What runs in goroutines counts only if inside.
func waits(body ast.Node, inside bool, found func(name string)) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.GoStmt:
			return inside
		case *ast.CallExpr:
			on, method := selected(x.Fun)
			if method == "Wait" {
				found(on)
			}
			if method == "Go" && len(x.Args) == 1 {
				return inside
			}
		case *ast.UnaryExpr:
			if x.Op == token.ARROW {
				found(lastName(x.X))
			}
		}
		return true
	})
}

// endsInto tells whether the goroutine started at n signals its end to something that is awaited.
func endsInto(n ast.Node, awaited map[string]bool) bool {
	signals := false
	ast.Inspect(n, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		on, method := selected(call.Fun)
		switch {
		case method == "Done", method == "Go":
			signals = signals || awaited[on]
		case lastName(call.Fun) == "close" && len(call.Args) == 1:
			signals = signals || awaited[lastName(call.Args[0])]
		}
		return true
	})
	return signals
}

// selected splits a.b.Method into the name it is called on, b, and the method's.
func selected(e ast.Expr) (on, method string) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	return lastName(sel.X), sel.Sel.Name
}

// lastName is the last name in a chain of selectors, calls and indexes: c in a.b.c().
func lastName(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x.Name
		case *ast.SelectorExpr:
			return x.Sel.Name
		case *ast.CallExpr:
			e = x.Fun
		case *ast.IndexExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return ""
		}
	}
}
