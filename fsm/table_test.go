package fsm

import (
	"errors"
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rewriting reports whether the test program was asked to rewrite generated files
// (the flag is datadriven's).
func rewriting() bool {
	f := flag.Lookup("rewrite")
	return f != nil && f.Value.String() == "true"
}

// holdCurrent compares a generated file with what it should be, or rewrites it.
func holdCurrent(t *testing.T, path, want string) {
	t.Helper()
	if rewriting() {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (generate it with: go test ./fsm -rewrite)", err)
	}
	if string(have) != want {
		t.Errorf("%s is not current: run go test ./fsm -rewrite, and read the difference before you keep it", path)
	}
}

func TestTheDocumentShowsTheTable(t *testing.T) {
	holdCurrent(t, "../docs/fsm.md", Markdown())
}

func TestNoEdgeStandsTwice(t *testing.T) {
	type key struct {
		t Trigger
		p Phase
	}
	seen := map[key]bool{}
	for _, e := range Table() {
		for _, p := range e.From {
			if seen[key{e.Trigger, p}] {
				t.Errorf("%s from %s stands twice; looplab would keep only the last", e.Trigger, p)
			}
			seen[key{e.Trigger, p}] = true
		}
	}
}

func TestEveryEdgeSaysWhy(t *testing.T) {
	for _, e := range Table() {
		if !strings.HasSuffix(e.Why, ".") || len(e.Why) < 20 {
			t.Errorf("%s: %q is no sentence", e.Trigger, e.Why)
		}
		for _, p := range e.From {
			if why(p, e.Trigger) == "" {
				t.Errorf("no answer to why %s leads out of %s", e.Trigger, p)
			}
		}
	}
}

// reach returns the phases that can be reached from one, along the edges or against them.
func reach(from Phase, backwards bool) map[Phase]bool {
	found, todo := map[Phase]bool{from: true}, []Phase{from}
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		for _, e := range Table() {
			for _, p := range e.From {
				next, src := e.To, p
				if backwards {
					next, src = p, e.To
				}
				if src == at && !found[next] {
					found[next] = true
					todo = append(todo, next)
				}
			}
		}
	}
	return found
}

func TestEveryPhaseIsReachedAndEnds(t *testing.T) {
	forth, back := reach(Init, false), reach(Stopped, true)
	for _, p := range Phases() {
		if !forth[p] {
			t.Errorf("phase %s can't be reached from %s", p, Init)
		}
		if !back[p] {
			t.Errorf("from phase %s there is no way to %s", p, Stopped)
		}
	}
}

func TestOnlyStoppedHasNoExit(t *testing.T) {
	for _, p := range Phases() {
		exits := slices.ContainsFunc(Table(), func(e Edge) bool { return slices.Contains(e.From, p) })
		if exits == (p == Stopped) {
			t.Errorf("phase %s: has an exit: %v", p, exits)
		}
	}
}

func TestNamesSuitLooplabAndMermaid(t *testing.T) {
	valid := regexp.MustCompile(`^[a-z][a-z_]*$`)
	reserved := []string{"end", "state", "event", "note", "direction", "class", "style"}
	phases := map[string]bool{}
	for _, p := range Phases() {
		phases[string(p)] = true
		if !valid.MatchString(string(p)) || slices.Contains(reserved, string(p)) {
			t.Errorf("phase %q is no valid Mermaid id", p)
		}
		if about(p) == "" {
			t.Errorf("phase %s has no description", p)
		}
	}
	for _, e := range Table() {
		if !valid.MatchString(string(e.Trigger)) || slices.Contains(reserved, string(e.Trigger)) {
			t.Errorf("trigger %q is no valid Mermaid id", e.Trigger)
		}
		if phases[string(e.Trigger)] {
			t.Errorf("trigger %s has a phase's name; looplab would confuse their callbacks", e.Trigger)
		}
		for _, p := range append(slices.Clone(e.From), e.To) {
			if !phases[string(p)] {
				t.Errorf("%s: %q is no phase", e.Trigger, p)
			}
		}
	}
}

func TestTheArbiterHasExactlyTheTable(t *testing.T) {
	triggers := map[Trigger]bool{}
	want := map[Phase]map[Trigger]Phase{}
	for _, e := range Table() {
		triggers[e.Trigger] = true
		for _, p := range e.From {
			if want[p] == nil {
				want[p] = map[Trigger]Phase{}
			}
			want[p][e.Trigger] = e.To
		}
	}
	a := newArbiter()
	for _, p := range Phases() {
		for trig := range triggers {
			to, err := a.fire(p, trig)
			expect, legal := want[p][trig]
			switch {
			case legal && (err != nil || to != expect):
				t.Errorf("%s in %s: got %s, %v; the table says %s", trig, p, to, err, expect)
			case !legal && !errors.Is(err, errNoEdge):
				t.Errorf("%s in %s: got %s, %v; the table has no such edge", trig, p, to, err)
			case !legal && to != p:
				t.Errorf("%s in %s was refused and moved to %s", trig, p, to)
			}
		}
	}
}

func TestRulesAndEdgesFitEachOther(t *testing.T) {
	a := newArbiter()
	for _, p := range Phases() {
		rules := phaseRules(p)
		ids := map[string]bool{}
		for _, r := range rules {
			if ids[r.id] {
				t.Errorf("%s has two rules called %s; a reason would not say which", p, r.id)
			}
			ids[r.id] = true
			if r.trigger == "" {
				continue
			}
			if _, err := a.fire(p, r.trigger); err != nil {
				t.Errorf("rule %s/%s chooses a trigger that the table refuses: %v", p, r.id, err)
			}
		}
	}
	for _, e := range Table() {
		for _, p := range e.From {
			if len(choosers(p, e.Trigger)) == 0 {
				t.Errorf("no rule of %s chooses %s: the edge is decoration", p, e.Trigger)
			}
		}
	}
}

func TestDrawingsShowEveryEdge(t *testing.T) {
	mermaid, dot := Mermaid(), Dot()
	for _, e := range Table() {
		for _, p := range e.From {
			if line := string(p) + " --> " + string(e.To) + ": " + string(e.Trigger); !strings.Contains(mermaid, line) {
				t.Errorf("the Mermaid diagram lacks %q", line)
			}
			if line := `"` + string(p) + `" -> "` + string(e.To) + `" [ label = "` + string(e.Trigger) + `" ]`; !strings.Contains(dot, line) {
				t.Errorf("the Graphviz drawing lacks %s", line)
			}
		}
	}
	if !strings.Contains(mermaid, "[*] --> "+string(Init)) {
		t.Error("the diagram does not begin at init")
	}
	if Mermaid() != mermaid || Dot() != dot {
		t.Error("two drawings of the same table differ")
	}
}
