package archtest

import (
	"fmt"
	"go/ast"
)

const (
	maxFileLines     = 500
	maxFunctionLines = 70
)

// sizeRules bound what has to be read at once.
func sizeRules() []Rule {
	return []Rule{
		{
			Name:   "file-length",
			Reason: "a file holds one idea; split it by idea, not by size",
			Check: func(t *Tree) []Finding {
				var out []Finding
				for _, f := range t.Files {
					if ast.IsGenerated(f.AST) {
						continue
					}
					if n := t.Fset.File(f.AST.FileStart).LineCount(); n > maxFileLines {
						out = append(out, Finding{Path: f.Path, What: fmt.Sprintf("%d lines, more than %d", n, maxFileLines)})
					}
				}
				return out
			},
		},
		{
			Name:   "function-length",
			Reason: "a function fits on a screen; name its parts",
			Check: func(t *Tree) []Finding {
				var out []Finding
				for _, f := range t.code() {
					for _, d := range f.AST.Decls {
						fn, ok := d.(*ast.FuncDecl)
						if !ok || isTable(fn) {
							continue
						}
						if n := t.line(fn.End()) - t.line(fn.Pos()) + 1; n > maxFunctionLines {
							out = append(out, Finding{
								Path: f.Path, Line: t.line(fn.Pos()), Symbol: declName(fn),
								What: fmt.Sprintf("%s has %d lines, more than %d", declName(fn), n, maxFunctionLines),
							})
						}
					}
				}
				return out
			},
		},
	}
}

// isTable tells a function that only returns a literal: a table, which is read by line.
func isTable(fn *ast.FuncDecl) bool {
	if fn.Body == nil || len(fn.Body.List) != 1 {
		return false
	}
	ret, ok := fn.Body.List[0].(*ast.ReturnStmt)
	if !ok || len(ret.Results) != 1 {
		return false
	}
	_, ok = ret.Results[0].(*ast.CompositeLit)
	return ok
}
