package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func call(t *testing.T, name string, args ...string) (out string, code int) {
	t.Helper()
	var both bytes.Buffer
	env := environment()
	env.In, env.Out, env.Err = strings.NewReader(""), &both, &both
	env.Environ, env.Home = nil, ""
	code = run(t.Context(), env, name, args)
	return both.String(), code
}

func TestGeneratedDocumentsAreCurrent(t *testing.T) {
	for kind, path := range map[string]string{"cli": "reference/cli.md", "config": "reference/configuration.md", "fsm": "fsm.md"} {
		want, code := call(t, "regent", "docs", kind)
		if code != 0 {
			t.Fatal(want)
		}
		got, err := os.ReadFile(filepath.Join("../../docs", path))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("docs/%s is not what the program says: run `make generate` and commit the result", path)
		}
	}
}

func TestTheNameSaysWhatTheProgramIs(t *testing.T) {
	for name, want := range map[string]string{
		"regent":     "regent version " + version + "\n",
		"patronictl": "patronictl version 4.1.4\n",
	} {
		if out, code := call(t, name, "version"); out != want || code != 0 {
			t.Errorf("%s: exit %d: %s", name, code, out)
		}
	}
	if out, code := call(t, "patroni", "one", "two"); code != 2 || !strings.HasPrefix(out, "Usage: regent agent CONFIG\n") {
		t.Errorf("patroni is not the agent: exit %d: %s", code, out)
	}
}

func TestCompletionKnowsTheCommands(t *testing.T) {
	out, code := call(t, "regent", "__complete", "switch")
	if code != 0 || !strings.HasPrefix(out, "switchover\t") {
		t.Errorf("exit %d: %s", code, out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out, code := call(t, "regent", "completion", shell); code != 0 || !strings.Contains(out, "__complete") {
			t.Errorf("%s: exit %d", shell, code)
		}
	}
}
