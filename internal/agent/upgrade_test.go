package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/pgmgr/pgtest"
)

// partners makes members of one cluster, not started.
func partners(t *testing.T, names ...string) []*process {
	t.Helper()
	var all []*process
	var addrs []string
	for _, name := range names {
		p := member(t, name)
		all = append(all, p)
		addrs = append(addrs, fmt.Sprintf(`"127.0.0.1:%d"`, p.raft))
	}
	for i, p := range all {
		var others []string
		others = append(append(others, addrs[:i]...), addrs[i+1:]...)
		p.edit(", password: secret}\nbootstrap", ", partner_addrs: ["+strings.Join(others, ", ")+"], password: secret}\nbootstrap")
	}
	return all
}

// own gives the member a program of its own, which can be replaced.
func (p *process) own() {
	p.t.Helper()
	p.program = filepath.Join(p.dir, "bin", "regent")
	if err := os.Mkdir(filepath.Dir(p.program), 0o755); err != nil {
		p.t.Fatal(err)
	}
	p.install(pgtest.Binary(p.t, "regent"))
	p.installKeeper()
}

func (p *process) installKeeper() {
	p.t.Helper()
	err := os.Symlink(pgtest.Binary(p.t, "regent-keeper"), filepath.Join(p.dir, "bin", "regent-keeper"))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		p.t.Fatal(err)
	}
}

// install puts a copy of a program where the member's is, as a package manager does.
func (p *process) install(from string) {
	p.t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		p.t.Fatal(err)
	}
	p.installBytes(b)
}

func (p *process) installBytes(b []byte) {
	p.t.Helper()
	if err := os.WriteFile(p.program+".new", b, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(p.program+".new", p.program); err != nil {
		p.t.Fatal(err)
	}
}

// runs reports whether the process runs the file that is installed.
func (p *process) runs() bool {
	p.t.Helper()
	var exe, file syscall.Stat_t
	if err := syscall.Stat(fmt.Sprintf("/proc/%d/exe", p.cmd.Process.Pid), &exe); err != nil {
		p.t.Fatal(err)
	}
	if err := syscall.Stat(p.program, &file); err != nil {
		p.t.Fatal(err)
	}
	return exe.Ino == file.Ino
}

// upgrade is what an operator does.
func (p *process) upgrade() (string, error) {
	return command(pgtest.Binary(p.t, "regent"), "upgrade", p.file)
}

func (p *process) get(path string) (int, string) {
	resp, err := http.Get(p.url(path))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

func (p *process) streams() {
	p.t.Helper()
	p.eventually("streaming", func() string {
		if _, body := p.get("/patroni"); !strings.Contains(body, `"replication_state": "streaming"`) {
			return "not yet: " + body
		}
		return ""
	})
}

// writer commits transactions on one server until it is ended, each on the same session.
type writer struct {
	stop   context.CancelFunc
	done   sync.WaitGroup
	wrote  int
	failed error
}

func write(t *testing.T, port int) *writer {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=secret dbname=postgres", port))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "CREATE TABLE w (i int)").ReadAll(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &writer{stop: stop}
	w.done.Go(func() {
		defer func() { _ = conn.Close(context.Background()) }()
		for ctx.Err() == nil && w.failed == nil {
			if _, w.failed = conn.Exec(context.Background(), fmt.Sprintf("INSERT INTO w VALUES (%d)", w.wrote)).ReadAll(); w.failed == nil {
				w.wrote++
			}
		}
	})
	t.Cleanup(w.end)
	return w
}

func (w *writer) end() {
	w.stop()
	w.done.Wait()
}

// TestUpgradeIsNotNoticedByClients: the primary's agent, then a replica's, then the
// primary's again, under a writer that never has to reconnect.
func TestUpgradeIsNotNoticedByClients(t *testing.T) {
	needsPostgres(t)
	all := partners(t, "pg01", "pg02", "pg03")
	for _, p := range all {
		p.own()
		p.start()
	}
	var primary *process
	all[0].eventually("a primary", func() string {
		for _, p := range all {
			if code, _ := p.get("/primary"); code == http.StatusOK {
				primary = p
				return ""
			}
		}
		return "there is none"
	})
	var replicas []*process
	for _, p := range all {
		if p != primary {
			p.streams()
			replicas = append(replicas, p)
		}
	}
	w := write(t, primary.pg)
	pid, started := primary.cmd.Process.Pid, primary.sql("select pg_postmaster_start_time()")
	for _, p := range []*process{primary, replicas[0], primary} {
		p.install(pgtest.Binary(t, "regent"))
		if p.runs() {
			t.Fatal("the installed program runs already: there is nothing to show")
		}
		began := time.Now()
		out, err := p.upgrade()
		if err != nil || !strings.Contains(out, fmt.Sprintf("The agent (pid %d) is now regent version", p.cmd.Process.Pid)) {
			t.Fatalf("regent upgrade: %v: %s", err, out)
		}
		if !p.runs() {
			t.Error("the old program still runs")
		}
		if p == primary {
			p.leads()
		} else {
			p.streams()
		}
		t.Logf("%s was upgraded and in its place again after %s", p.file, time.Since(began).Round(time.Millisecond))
	}
	w.end()
	if w.failed != nil || w.wrote < 100 {
		t.Errorf("a transaction failed after %d: %v", w.wrote, w.failed)
	}
	if got := primary.sql("select count(*) from w"); got != fmt.Sprint(w.wrote) {
		t.Errorf("%s rows of %d", got, w.wrote)
	}
	if again := primary.sql("select pg_postmaster_start_time()"); again != started {
		t.Errorf("PostgreSQL was restarted: %s, then %s", started, again)
	}
	if tl := primary.sql("select timeline_id from pg_control_checkpoint()"); tl != "1" {
		t.Errorf("timeline %s", tl)
	}
	if primary.cmd.Process.Pid != pid || strings.Contains(primary.log.String(), "emot") {
		t.Error("the primary was demoted, or is another process")
	}
	for _, p := range append(replicas, primary) {
		end(t, p, syscall.SIGTERM)
	}
}

// TestUpgradeToAProgramThatDoesNotStartIsGivenUp: the old agent says why, to whoever
// asked and in its log, and goes on.
func TestUpgradeToAProgramThatDoesNotStartIsGivenUp(t *testing.T) {
	needsPostgres(t)
	p := member(t, "pg01")
	p.own()
	p.start()
	p.leads()
	started := p.sql("select pg_postmaster_start_time()")
	good, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	program := pgtest.Binary(t, "regent")
	for name, c := range map[string]struct {
		spoil func()
		want  string
	}{
		"no program":             {func() { p.installBytes([]byte("\x7fELF nothing")) }, "exec format error"},
		"another program":        {func() { p.installBytes([]byte("#!/bin/sh\necho hello\n")) }, "is not regent"},
		"a program that fails":   {func() { p.installBytes([]byte("#!/bin/sh\necho no library >&2\nexit 127\n")) }, "no library"},
		"a file that it refuses": {func() { p.edit("bin_dir: "+pgtest.BinDir(t), "bin_dir: /nowhere") }, "bin_dir"},
		"no keeper": {func() {
			if err := os.Remove(filepath.Join(p.dir, "bin", "regent-keeper")); err != nil {
				t.Fatal(err)
			}
		}, "install it beside the agent"},
	} {
		c.spoil()
		out, err := p.upgrade()
		if err == nil || !strings.Contains(out, "goes on as it is") || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		p.install(program)
		p.installKeeper()
		p.write(string(good))
	}
	p.says("the agent is not upgraded and goes on as it is")
	p.leads()
	if again := p.sql("select pg_postmaster_start_time()"); again != started {
		t.Errorf("PostgreSQL was restarted: %s, then %s", started, again)
	}
	end(t, p, syscall.SIGTERM)
	if out, err := p.upgrade(); err == nil || !strings.Contains(out, "none runs on this machine") {
		t.Errorf("without an agent: %v: %s", err, out)
	}
}

// TestUpgradeWhoseProgramIsLostAtTheLastMoment: between the check and the exec.
func TestUpgradeWhoseProgramIsLostAtTheLastMoment(t *testing.T) {
	needsPostgres(t)
	p := member(t, "pg01")
	p.own()
	p.start()
	p.leads()
	started := p.sql("select pg_postmaster_start_time()")
	// A program that passes the check, and is gone when it is to be executed.
	p.installBytes([]byte("#!/bin/sh\n[ \"$1\" = version ] && { echo regent version 9; exit; }\nrm -f " + p.program + "\n"))
	if out, err := p.upgrade(); err == nil || !strings.Contains(out, "goes on as it is: execute") {
		t.Errorf("regent upgrade: %v: %s", err, out)
	}
	p.says("the new program can't be executed; this one starts again")
	p.eventually("a second start", func() string {
		if n := strings.Count(p.log.String(), "agent started"); n != 2 {
			return fmt.Sprintf("%d starts", n)
		}
		return ""
	})
	p.leads()
	if again := p.sql("select pg_postmaster_start_time()"); again != started {
		t.Errorf("PostgreSQL was restarted: %s, then %s", started, again)
	}
	end(t, p, syscall.SIGTERM)
}
