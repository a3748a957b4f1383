package archtest

import (
	"cmp"
	"fmt"
	"slices"
)

// Rule is one check with the sentence that says why it exists.
type Rule struct {
	// Name identifies the rule in output and in exceptions.
	Name string
	// Reason completes "…, because": what goes wrong without the rule, or what to do instead.
	Reason string
	// Check returns what breaks the rule.
	Check func(*Tree) []Finding
}

// Finding is one place that breaks a rule.
type Finding struct {
	Path   string
	Line   int    // 0 when the whole file or folder is meant
	Symbol string // the declared name, where an exception may be for one only
	What   string
	// Reason replaces the rule's when the rule is a table with a reason per row.
	Reason string
}

// Exception excuses a finding. Path must be equal, and Symbol too unless it is empty.
type Exception struct {
	Rule, Path, Symbol string
	Reason             string
}

// Violation is a finding that no exception excuses.
type Violation struct {
	Rule string
	Finding
}

// String prints the violation as PLACE: WHAT => REASON (RULE).
func (v Violation) String() string {
	place := v.Path
	if v.Line > 0 {
		place = fmt.Sprintf("%s:%d", v.Path, v.Line)
	}
	return fmt.Sprintf("%s: %s => %s (%s)", place, v.What, v.Reason, v.Rule)
}

// Check runs the rules over the tree and returns what is wrong, sorted by place. An exception
// that excuses nothing, or has no reason, is a violation too.
func Check(t *Tree, rules []Rule, exceptions []Exception) []Violation {
	var out []Violation
	used := make([]bool, len(exceptions))
	for _, rule := range rules {
		for _, f := range rule.Check(t) {
			if f.Reason == "" {
				f.Reason = rule.Reason
			}
			i := slices.IndexFunc(exceptions, func(e Exception) bool {
				return e.Rule == rule.Name && e.Path == f.Path && (e.Symbol == "" || e.Symbol == f.Symbol)
			})
			if i >= 0 {
				used[i] = true
				continue
			}
			out = append(out, Violation{Rule: rule.Name, Finding: f})
		}
	}
	for i, e := range exceptions {
		if !used[i] || e.Reason == "" {
			out = append(out, Violation{Rule: "exceptions", Finding: Finding{
				Path:   e.Path,
				What:   fmt.Sprintf("the exception from %s %s excuses nothing, or has no reason", e.Rule, e.Symbol),
				Reason: "an exception that is no longer needed hides the next violation; delete it",
			}})
		}
	}
	slices.SortFunc(out, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.What, b.What))
	})
	return out
}

// Rules returns every rule.
func Rules() []Rule {
	return slices.Concat(importRules(), pureRules(), codeRules(), sizeRules(), testRules(), docRules(), textRules())
}
