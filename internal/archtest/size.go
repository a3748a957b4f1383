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
			Check:  longFiles,
		},
		{
			Name:   "function-length",
			Reason: "a function fits on a screen; name its parts",
			Check:  longFunctions,
		},
	}
}

func longFiles(t *Tree) []Finding {
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
}

// longFunctions passes over tests, whose length is mostly cases, and over tables; a function
// literal inside a table is judged by itself.
func longFunctions(t *Tree) []Finding {
	return t.each(t.code(), func(_ *File, n ast.Node) string {
		name := "a function literal"
		switch fn := n.(type) {
		case *ast.FuncDecl:
			if isTable(fn) {
				return ""
			}
			name = declName(fn)
		case *ast.FuncLit:
		default:
			return ""
		}
		if lines := t.line(n.End()) - t.line(n.Pos()) + 1; lines > maxFunctionLines {
			return fmt.Sprintf("%s has %d lines, more than %d", name, lines, maxFunctionLines)
		}
		return ""
	})
}

// isTable tells a function that only puts literals together and returns them: at most three
// statements, none of which branches. A table is read by line.
func isTable(fn *ast.FuncDecl) bool {
	if fn.Body == nil || len(fn.Body.List) == 0 || len(fn.Body.List) > 3 {
		return false
	}
	for _, stmt := range fn.Body.List {
		switch stmt.(type) {
		case *ast.AssignStmt, *ast.ReturnStmt:
		default:
			return false
		}
	}
	return true
}
