package chaos

import (
	"strings"
	"testing"
	"time"
)

func TestComparisonTable(t *testing.T) {
	contestants := []Contestant{{Name: "one"}, {Name: "other"}}
	rows := []Comparison{{Fault: "freeze", Cells: []Cell{
		{Outage: []time.Duration{21 * time.Second, 300 * time.Millisecond, 400 * time.Millisecond}, Lost: 2, Whole: 2500 * time.Millisecond},
		{Outage: []time.Duration{22 * time.Second}, Lost: 1585, Two: 180 * time.Millisecond, Trouble: "not whole"},
	}}, {Fault: "not played", Cells: make([]Cell, 2)}}
	var b strings.Builder
	ComparisonTable(&b, contestants, rows, Traffic{"reads": {0, 4.5}})
	want := `| Fault | one | other |
|---|---|---|
| freeze | 0.40 s (21.0 s) · 2 lost · 0.00 s · 2.5 s | 22.0 s · 1585 lost · 0.18 s · never |
| not played |  |  |
| idle: reads a second, three members | 0.00 | 4.50 |
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// Each fault is known by its name, which --only takes.
func TestComparedFaultsAreNamed(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range compareFaults() {
		if f.Name == "" || seen[f.Name] || !f.MayLose {
			t.Errorf("fault %q: without a name, named twice, or judged", f.Name)
		}
		seen[f.Name] = true
	}
}
