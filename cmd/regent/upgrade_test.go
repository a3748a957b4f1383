package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/ctl"
)

// TestUpgradeTakesItsFileLikeOtherCommands: as the argument, or by -c on either side.
func TestUpgradeTakesItsFileLikeOtherCommands(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yml")
	for _, args := range [][]string{{"upgrade", missing}, {"upgrade", "-c", missing}, {"-c", missing, "upgrade"}} {
		var out strings.Builder
		env := ctl.Env{Program: "regent", Out: &out, Err: &out}
		if code := run(t.Context(), env, "regent", args); code != 1 || !strings.Contains(out.String(), missing) {
			t.Errorf("%q: exit code %d: %s", args, code, out.String())
		}
	}
}

// TestAProgramThatDoesNotAnswerIsNamedSo: being killed for it is not what an operator has to know.
func TestAProgramThatDoesNotAnswerIsNamedSo(t *testing.T) {
	program := filepath.Join(t.TempDir(), "regent")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := checkProgram(ctx, program, ""); err == nil || !strings.Contains(err.Error(), "no answer within") {
		t.Errorf("%v", err)
	}
}
