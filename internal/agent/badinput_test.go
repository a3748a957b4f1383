package agent_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgregent/regent/pgmgr/pgtest"
)

// TestBadInputIsRefusedWithWhatToDo: what a new user gets wrong. Each case ends the agent
// before it has touched anything, and says what to change. The table in
// docs/operations/errors.md names these cases.
func TestBadInputIsRefusedWithWhatToDo(t *testing.T) {
	needsPostgres(t)
	listening := func(t *testing.T, port int) {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, p *process)
		want  []string
	}{
		"no binaries": {func(_ *testing.T, p *process) {
			p.edit("bin_dir: "+pgtest.BinDir(p.t), "bin_dir: /nowhere")
		}, []string{"postgresql.bin_dir /nowhere can't be read", "name the folder with postgres in it"}},
		"some binaries": {func(t *testing.T, p *process) {
			must(t, os.Mkdir(filepath.Join(p.dir, "some"), 0o755))
			must(t, os.WriteFile(filepath.Join(p.dir, "some", "postgres"), []byte("#!/bin/sh\n"), 0o755))
			p.edit("bin_dir: "+pgtest.BinDir(p.t), "bin_dir: "+filepath.Join(p.dir, "some"))
		}, []string{"lacks initdb, pg_ctl", "install PostgreSQL's server package"}},
		"no file":    {func(_ *testing.T, p *process) { p.file += ".not" }, []string{"doesn't exist"}},
		"empty file": {func(_ *testing.T, p *process) { p.write("") }, []string{"the configuration is empty"}},
		"unreadable file": {func(t *testing.T, p *process) { must(t, os.Chmod(p.file, 0)) },
			[]string{"permission denied", "give the file to the agent's user"}},
		"half a file": {func(t *testing.T, p *process) {
			b, err := os.ReadFile(p.file)
			must(t, err)
			p.write(string(b[:strings.Index(string(b), "authentication")]))
		}, []string{"postgresql.authentication.superuser is not defined", "give username and password"}},
		"a file that ends in a list": {func(t *testing.T, p *process) {
			b, err := os.ReadFile(p.file)
			must(t, err)
			p.write(string(b[:strings.Index(string(b), "locale: C]")]))
		}, []string{"not readable as YAML", "compare the line with its neighbours"}},
		"data folder out of reach": {func(_ *testing.T, p *process) {
			p.edit("data_dir: "+p.data, "data_dir: "+filepath.Join(locked(p), "data"))
		},
			[]string{"permission denied", "postgresql.data_dir"}},
		"data folder that can't be made": {func(t *testing.T, p *process) {
			dir := filepath.Join(p.dir, "ro")
			must(t, os.Mkdir(dir, 0o500))
			p.edit("data_dir: "+p.data, "data_dir: "+filepath.Join(dir, "data"))
		}, []string{"can't be made or filled", "make it for the agent's user"}},
		"data folder with other files": {func(t *testing.T, p *process) {
			must(t, os.WriteFile(filepath.Join(p.data, "photos.tar"), nil, 0o600))
		}, []string{"holds files (photos.tar) but is no data directory", "the agent never empties a folder that it didn't fill"}},
		"data folder open to all": {func(t *testing.T, p *process) {
			must(t, os.WriteFile(filepath.Join(p.data, "PG_VERSION"), []byte("15\n"), 0o600))
			must(t, os.Chmod(p.data, 0o777))
		}, []string{"has mode 0777", "chmod 0700"}},
		"run folder that can't be made": {func(_ *testing.T, p *process) { p.edit("run_dir: "+p.dir+"/r,", "run_dir: "+locked(p)+"/r,") },
			[]string{"make regent.run_dir", "name a folder that this user may write"}},
		"raft folder that can't be made": {func(_ *testing.T, p *process) { p.edit("data_dir: "+p.dir+"/raft", "data_dir: "+locked(p)+"/raft") },
			[]string{"open the embedded store", "give raft.data_dir to the agent's user"}},
		"PostgreSQL's port is taken": {func(t *testing.T, p *process) { listening(t, p.pg) },
			[]string{"postgresql.listen", "another program listens on", "change postgresql.listen"}},
		"REST port is taken": {func(t *testing.T, p *process) { listening(t, p.rest) }, []string{"another program listens on", "change restapi.listen"}},
		"raft port is taken": {func(t *testing.T, p *process) { listening(t, p.raft) }, []string{"another program listens on", "change raft.self_addr"}},
		"a name that doesn't resolve": {func(_ *testing.T, p *process) {
			p.edit(fmt.Sprintf("listen: 127.0.0.1:%d", p.pg), fmt.Sprintf("listen: no-such-host.invalid:%d", p.pg))
		}, []string{"postgresql.listen", "no such host"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := member(t, "pg01")
			c.spoil(t, p)
			p.refused(c.want...)
			if left := pgtest.ProcessesIn(p.dir); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
			for _, dir := range []string{"raft", "journal"} {
				if _, err := os.Stat(filepath.Join(p.dir, dir)); err == nil && !strings.Contains(name, "raft") {
					t.Errorf("the refused agent has made %s", dir)
				}
			}
		})
	}
}

// locked makes a folder that its owner can't even enter.
func locked(p *process) string {
	p.t.Helper()
	dir := filepath.Join(p.dir, "locked")
	if err := os.Mkdir(dir, 0); err != nil {
		p.t.Fatal(err)
	}
	return dir
}

// TestUnresolvablePeersAreNamedAtStart: the agent waits for them, and says whose name is
// wrong.
func TestUnresolvablePeersAreNamedAtStart(t *testing.T) {
	needsPostgres(t)
	p := member(t, "pg01")
	p.edit(", password: secret}\nbootstrap", ", partner_addrs: [\"no-such-host.invalid:1\"], password: secret}\nbootstrap",
		fmt.Sprintf("connect_address: 127.0.0.1:%d\n  data_dir", p.pg), fmt.Sprintf("connect_address: no-such-host.invalid:%d\n  data_dir", p.pg))
	p.start()
	p.says("raft.partner_addrs names a host that doesn't resolve here: no-such-host.invalid")
	p.says("postgresql.connect_address")
	p.says("waiting for the DCS")
	end(t, p, syscall.SIGTERM)
}

// TestAgentTakesChargeOfARunningServerWhateverIsAmiss: what would refuse a start is no
// reason to leave a running primary alone until its lease ends.
func TestAgentTakesChargeOfARunningServerWhateverIsAmiss(t *testing.T) {
	needsPostgres(t)
	p := member(t, "pg01")
	p.start()
	p.leads()
	started := p.sql("select pg_postmaster_start_time()")
	signal(t, p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
	p.edit("bin_dir: "+pgtest.BinDir(t), "bin_dir: /nowhere")
	p.start()
	p.says("postgresql.bin_dir /nowhere can't be read")
	p.leads()
	if again := p.sql("select pg_postmaster_start_time()"); again != started {
		t.Errorf("PostgreSQL was restarted: %s, then %s", started, again)
	}
	p.edit("bin_dir: /nowhere", "bin_dir: "+pgtest.BinDir(t))
	signal(t, p.cmd.Process.Pid, syscall.SIGHUP)
	end(t, p, syscall.SIGTERM)
}

// TestAChangedPortCountsAfterTheRestart: until then the agent talks to the server where it
// is, and tells others the same.
func TestAChangedPortCountsAfterTheRestart(t *testing.T) {
	needsPostgres(t)
	p := member(t, "pg01")
	p.start()
	p.leads()
	old, next := p.pg, pgtest.FreePort(t)
	says := func(what, path, want string) {
		t.Helper()
		p.eventually(what, func() string {
			if _, body := p.get(path); !strings.Contains(body, want) {
				return body
			}
			return ""
		})
	}
	p.edit(fmt.Sprintf("127.0.0.1:%d\n", old), fmt.Sprintf("127.0.0.1:%d\n", next))
	signal(t, p.cmd.Process.Pid, syscall.SIGHUP)
	says("GET /patroni", "/patroni", fmt.Sprintf(`"pending_restart": true, "pending_restart_reason": {"port": {"old_value": "%d", "new_value": "%d"}}`, old, next))
	says("GET /cluster", "/cluster", `"pending_restart_reason": {"port": `)
	p.leads()
	says("GET /cluster", "/cluster", fmt.Sprintf(`"port": %d`, old))
	if got := p.sql("select 1"); got != "1" {
		t.Errorf("the old port: %s", got)
	}
	// Another agent, which never knew the old port, finds the server too.
	if out, err := p.upgrade(); err != nil {
		t.Fatalf("regent upgrade: %v: %s", err, out)
	}
	p.leads()
	says("GET /cluster", "/cluster", fmt.Sprintf(`"port": %d`, old))

	resp, err := http.Post(p.url("/restart"), "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("POST /restart: %s", resp.Status)
	}
	says("GET /cluster", "/cluster", fmt.Sprintf(`"port": %d`, next))
	p.pg = next
	if got := p.sql("select 1"); got != "1" {
		t.Errorf("the new port: %s", got)
	}
	p.leads()
	end(t, p, syscall.SIGTERM)
}
