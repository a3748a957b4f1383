package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnitKeepsPostgresAlive: what the example must say, and that systemd takes it, where
// there is one to ask.
func TestUnitKeepsPostgresAlive(t *testing.T) {
	b, err := os.ReadFile("../../docs/examples/regent.service")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for line, why := range map[string]string{
		"Type=notify":                        "a member is up when it has joined",
		"NotifyAccess=main":                  "PostgreSQL's own notifications are not the agent's",
		"KillMode=process":                   "a crash of the agent must not take PostgreSQL and keeper along",
		"OOMScoreAdjust=-900":                "the agent goes last when memory runs out",
		"OOMPolicy=continue":                 "a killed session is no reason to stop the unit",
		"Restart=always":                     "an agent that crashed must be back before its lease ends",
		"ExecReload=/bin/kill -HUP $MAINPID": "a reload reads the file",
		"ExecStart=/usr/bin/regent agent /etc/regent/patroni.yml": "it is the agent's unit",
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the unit lacks %s: %s", line, why)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("no systemd-analyze here to ask whether systemd takes the unit")
		return
	}
	self, err := os.Executable() // systemd wants programs that exist
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "regent.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(text, "/usr/bin/regent", self)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
