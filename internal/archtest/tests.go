package archtest

import (
	"go/ast"
	"slices"
)

// testRules hold habits of tests.
func testRules() []Rule {
	return []Rule{
		{
			Name:   "sleep-in-test",
			Reason: "a sleep is too short on a slow machine and too long on a fast one; wait for the condition with a deadline, or use testing/synctest",
			Check:  sleepInTests,
		},
		{
			Name:   "silent-skip",
			Reason: "a skipped test says why, or nobody notices that it never runs",
			Check:  silentSkips,
		},
	}
}

// sleepInTests passes over files that use synctest, where a sleep only moves the bubble's clock.
func sleepInTests(t *Tree) []Finding {
	tests := slices.DeleteFunc(slices.Clone(t.Files), func(f *File) bool {
		_, bubble := f.Imports["synctest"]
		return !f.Test || bubble
	})
	return t.each(tests, func(f *File, n ast.Node) string {
		e, ok := n.(*ast.SelectorExpr)
		if !ok {
			return ""
		}
		if pkg, name, ok := f.callee(e); ok && pkg == "time" && name == "Sleep" {
			return "sleeps"
		}
		return ""
	})
}

func silentSkips(t *Tree) []Finding {
	return t.each(t.Files, func(_ *File, n ast.Node) string {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) > 0 {
			return ""
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return ""
		}
		recv, ok := sel.X.(*ast.Ident)
		if ok && (recv.Name == "t" || recv.Name == "b" || recv.Name == "tb" || recv.Name == "f") &&
			(sel.Sel.Name == "SkipNow" || sel.Sel.Name == "Skip") {
			return "skips without a reason"
		}
		return ""
	})
}
