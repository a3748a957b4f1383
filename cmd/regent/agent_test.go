package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgregent/regent/internal/config"
)

func TestRootIsRefusedWithWhatToDo(t *testing.T) {
	err := refuseRoot(0, "patroni.yml")
	if err == nil {
		t.Fatal("root may run the agent")
	}
	for _, part := range []string{"must not run as root", "su postgres -c 'regent agent patroni.yml'"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	if err := refuseRoot(1000, "patroni.yml"); err != nil {
		t.Errorf("another user may not run it: %v", err)
	}
}

// TestRootGetsExitCodeOne needs to be root to see the whole program refuse.
func TestRootGetsExitCodeOne(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root sees this refusal whole; its sentence has a test of its own")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "patroni.yml")
	if err := os.WriteFile(path, []byte(memberFile(dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := call(t, "regent", "agent", path)
	if code != 1 || !strings.Contains(out, "must not run as root") {
		t.Errorf("exit %d: %s", code, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "run")); !os.IsNotExist(err) {
		t.Errorf("the refused agent touched its run directory: %v", err)
	}
}

func memberFile(dir string) string {
	return `scope: demo
name: pg01
restapi: {listen: "127.0.0.1:18008", connect_address: "127.0.0.1:18008"}
raft: {self_addr: "127.0.0.1:18101", data_dir: ` + dir + `/raft, password: s3}
bootstrap: {dcs: {ttl: 30}}
postgresql:
  listen: 127.0.0.1:18432
  connect_address: 127.0.0.1:18432
  data_dir: ` + dir + `/data
  authentication: {superuser: {username: postgres, password: p}, replication: {username: repl, password: p}}
regent: {run_dir: ` + dir + `/run}
`
}

// TestReloadKeepsWhatAnAgentIs: a file that describes another member is no reload.
func TestReloadKeepsWhatAnAgentIs(t *testing.T) {
	load := func(edit func(string) string) *config.Config {
		path := filepath.Join(t.TempDir(), "patroni.yml")
		if err := os.WriteFile(path, []byte(edit(memberFile("/srv"))), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	now := load(func(s string) string { return s })
	if err := sameMember(now, load(func(s string) string { return s + "tags: {nofailover: true}\n" })); err != nil {
		t.Errorf("a tag can't be reloaded: %v", err)
	}
	for key, edit := range map[string][2]string{
		"scope":               {"scope: demo", "scope: other"},
		"name":                {"name: pg01", "name: pg02"},
		"postgresql.data_dir": {"/srv/data", "/srv/data2"},
		"regent.run_dir":      {"/srv/run", "/srv/run2"},
		"raft":                {"self_addr: ", "bind_addr: "},
	} {
		err := sameMember(now, load(func(s string) string { return strings.Replace(s, edit[0], edit[1], 1) }))
		if err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "restart of the agent") {
			t.Errorf("a changed %s: %v", key, err)
		}
	}
}
