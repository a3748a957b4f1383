package dcstest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTheTableSaysWhatWasShownAndWhatWasNot(t *testing.T) {
	dir := t.TempDir()
	if _, err := Tabulate(dir); err == nil {
		t.Error("no results: no error")
	}
	one, two := newTable("one, here"), newTable("two")
	one.set("commit: each guard", cellOf{Passed: true, Note: "17 guards", Took: time.Second})
	one.set("lease: ids", cellOf{})
	two.lacks("commit: each guard", "it has none")
	two.set("of its own", cellOf{Passed: true})
	one.publish(t, dir)
	two.publish(t, dir)
	got, err := Tabulate(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| Property | one, here | two |\n|---|---|---|\n",
		"| commit: each guard | yes | – |\n", "| lease: ids | **NO** | not run |\n", "| of its own | not run | yes |\n",
		"* one, here, commit: each guard: 17 guards\n", "* two, commit: each guard: not shown: it has none\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the table lacks %q:\n%s", want, got)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "x.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Tabulate(dir); err == nil {
		t.Error("half a file: no error")
	}
}

// A run complains of an Env that tests nothing, rather than passing.
func TestAnEnvWithoutMeansIsRefused(t *testing.T) {
	good := newModel(t)
	for name, spoil := range map[string]func(*Env){
		"one client":              func(e *Env) { e.Stores, e.Homes = e.Stores[:1], e.Homes[:1] },
		"a home for every client": func(e *Env) { e.Homes = e.Homes[:2] },
		"no faults":               func(e *Env) { e.Faults = nil },
		"no bounds":               func(e *Env) { e.Bounds = Bounds{} },
		"no word on scopes":       func(e *Env) { e.NoElsewhere = "" },
	} {
		env := good
		spoil(&env)
		if _, err := env.withDefaults(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := good.withDefaults(); err != nil {
		t.Error(err)
	}
}
