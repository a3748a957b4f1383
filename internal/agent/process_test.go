package agent_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/pgmgr/pgtest"
)

// process is the real program with a patroni.yml of its own.
type process struct {
	t              *testing.T
	dir, file      string
	program        string // empty: the one that all share
	data           string
	env            []string
	rest, raft, pg int
	cmd            *exec.Cmd
	log            *buffer
	ended          chan error
}

// member writes a patroni.yml.
func member(t *testing.T, name string) *process {
	t.Helper()
	p := &process{
		t: t, dir: pgtest.SocketDir(t), data: pgtest.EmptyDataDir(t), rest: pgtest.FreePort(t), raft: pgtest.FreePort(t), pg: pgtest.FreePort(t),
	}
	p.file = filepath.Join(p.dir, "patroni.yml")
	p.write(fmt.Sprintf(`scope: demo
name: %[1]s
restapi: {listen: "127.0.0.1:%[2]d", connect_address: "127.0.0.1:%[2]d"}
raft: {self_addr: "127.0.0.1:%[3]d", data_dir: %[5]s/raft, password: secret}
bootstrap:
  dcs: {ttl: 3, loop_wait: 1, retry_timeout: 1}
  initdb: [encoding: UTF8, locale: C]
postgresql:
  listen: 127.0.0.1:%[4]d
  connect_address: 127.0.0.1:%[4]d
  data_dir: %[6]s
  bin_dir: %[7]s
  authentication:
    superuser: {username: postgres, password: secret}
    replication: {username: replicator, password: secret}
  parameters: {fsync: off, dynamic_shared_memory_type: mmap, unix_socket_directories: %[5]s, work_mem: 5MB}
regent: {run_dir: %[5]s/r, journal: {dir: %[5]s/journal}}
`, name, p.rest, p.raft, p.pg, p.dir, p.data, pgtest.BinDir(t)))
	return p
}

func (p *process) write(text string) {
	p.t.Helper()
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// edit replaces text in the file, which must be there.
func (p *process) edit(pairs ...string) {
	p.t.Helper()
	b, err := os.ReadFile(p.file)
	if err != nil {
		p.t.Fatal(err)
	}
	text := string(b)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			p.t.Fatalf("the file lacks %q", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	p.write(text)
}

func (p *process) start() {
	p.t.Helper()
	p.log, p.ended = &buffer{}, make(chan error, 1)
	program := p.program
	if program == "" {
		program = pgtest.Binary(p.t, "regent")
	}
	p.cmd = exec.Command(program, "agent", p.file)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	cmd, log, ended := p.cmd, p.log, p.ended
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		ended <- cmd.Wait()
	}()
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-gone
		if p.t.Failed() {
			p.t.Logf("log of %s:\n%s", p.file, log.String())
		}
	})
}

func (p *process) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", p.rest, path) }

func (p *process) leads() { p.t.Helper(); awaitPrimary(p.t, p.url("/primary"), p.ended) }

// exit waits for the end and returns the exit code.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatal("the agent does not end")
		return -1
	}
}

func (p *process) refused(want ...string) {
	p.t.Helper()
	p.start()
	if code := p.exit(); code != 1 {
		p.t.Errorf("exit code %d, want 1", code)
	}
	for _, w := range want {
		if !strings.Contains(p.log.String(), w) {
			p.t.Errorf("the output lacks %q:\n%s", w, p.log.String())
		}
	}
}

func (p *process) sql(query string) string {
	p.t.Helper()
	out, err := command(filepath.Join(pgtest.BinDir(p.t), "psql"), "-XAtqc", query,
		fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=secret dbname=postgres", p.pg))
	if err != nil {
		return err.Error() + ": " + out
	}
	return strings.TrimSpace(out)
}

func (p *process) eventually(what string, cond func() string) {
	p.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		last := cond()
		if last == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			p.t.Fatalf("%s: %s", what, last)
		}
	}
}

func (p *process) shows(parameter, want string) {
	p.t.Helper()
	p.eventually(parameter, func() string {
		if got := p.sql("show " + parameter); got != want {
			return fmt.Sprintf("is %q, want %q", got, want)
		}
		return ""
	})
}

func (p *process) says(text string) {
	p.t.Helper()
	p.eventually("the log", func() string {
		if !strings.Contains(p.log.String(), text) {
			return "lacks " + text
		}
		return ""
	})
}

// TestSecondAgents: two agents never share a data directory, a name, or a folder.
func TestSecondAgentsAreRefused(t *testing.T) {
	needsPostgres(t)
	first := member(t, "pg01")
	first.start()
	first.leads()
	// The same data directory, everything else its own.
	twin := member(t, "pg01")
	text, err := os.ReadFile(first.file)
	if err != nil {
		t.Fatal(err)
	}
	own := strings.NewReplacer(first.dir, twin.dir, fmt.Sprint(first.rest), fmt.Sprint(twin.rest),
		fmt.Sprint(first.raft), fmt.Sprint(twin.raft), fmt.Sprint(first.pg), fmt.Sprint(twin.pg))
	twin.write(own.Replace(string(text)))
	twin.refused("another agent runs on it", "postgresql.data_dir")

	// The same name, on a folder of its own, in the same cluster.
	named := member(t, "pg01")
	named.edit(", password: secret}\nbootstrap", fmt.Sprintf(", partner_addrs: [\"127.0.0.1:%d\"], password: secret}\nbootstrap", first.raft))
	named.refused("there is already a node named 'pg01' running", "give this member another name")

	// The port of the REST API, and the port of the store.
	port := member(t, "pg02")
	port.edit(fmt.Sprintf("127.0.0.1:%d", port.rest), fmt.Sprintf("127.0.0.1:%d", first.rest))
	port.refused("another program listens on", "change restapi.listen")
	raft := member(t, "pg02")
	raft.edit(fmt.Sprintf("127.0.0.1:%d", raft.raft), fmt.Sprintf("127.0.0.1:%d", first.raft))
	raft.refused("another program listens on", "raft.self_addr")

	// The run directory.
	run := member(t, "pg02")
	run.edit(run.dir+"/r,", first.dir+"/r,")
	run.refused("belongs to the keeper", "a run directory of its own")

	// None of that has disturbed the first.
	first.leads()
	end(t, first, syscall.SIGTERM)
}

func end(t *testing.T, p *process, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d after %s, want 0", code, sig)
	}
	// The keeper has said yes, and is on its way out.
	p.eventually("the run directory", func() string {
		if left := pgtest.ProcessesIn(p.dir); len(left) > 0 {
			return fmt.Sprintf("processes %v are left", left)
		}
		return ""
	})
}

// TestReloadAndPatch: both ways to change settings, and SIGINT, on one running agent.
func TestReloadAndPatch(t *testing.T) {
	needsPostgres(t)
	p := member(t, "pg01")
	p.start()
	p.leads()
	started := p.sql("select pg_postmaster_start_time()")

	// SIGHUP: the file.
	p.edit("work_mem: 5MB", "work_mem: 6MB")
	signal(t, p.cmd.Process.Pid, syscall.SIGHUP)
	p.shows("work_mem", "6MB")
	good, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	p.write(string(good) + "  : : [\n")
	signal(t, p.cmd.Process.Pid, syscall.SIGHUP)
	p.says("the configuration can't be reloaded; the one in force stays")
	p.write(strings.Replace(string(good), "name: pg01", "name: pg07", 1))
	signal(t, p.cmd.Process.Pid, syscall.SIGHUP)
	p.says("name changed, which takes a restart of the agent")
	if got := p.sql("show work_mem"); got != "6MB" {
		t.Errorf("work_mem is %s after a broken file", got)
	}
	p.write(string(good))

	// PATCH: the shared part.
	p.patch(`{"ttl": 5, "postgresql": {"parameters": {"log_min_duration_statement": "77"}}}`)
	p.shows("log_min_duration_statement", "77ms")
	p.says("Reloading PostgreSQL configuration.")
	p.leads()
	if again := p.sql("select pg_postmaster_start_time()"); again != started {
		t.Errorf("PostgreSQL was restarted: %s, %s", started, again)
	}
	if strings.Contains(p.log.String(), "Demoting") {
		t.Error("a change of settings demoted the primary")
	}
	end(t, p, syscall.SIGINT)
}

func (p *process) patch(body string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPatch, p.url("/config"), strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("PATCH /config: %d %s (%v)", resp.StatusCode, answer, err)
	}
}

// TestSignalsDuringTheStart: whenever the agent is asked to end, it does, and leaves
// neither process nor running server behind.
func TestSignalsDuringTheStart(t *testing.T) {
	needsPostgres(t)
	p := member(t, "pg01")
	data := filepath.Join(p.dir, "data")
	p.edit(p.data, data)
	for _, sign := range []string{"agent started", "step: initdb", "postmaster", "initialized a new cluster"} {
		for _, sub := range []string{"raft", "journal", "r"} {
			if err := os.RemoveAll(filepath.Join(p.dir, sub)); err != nil {
				t.Fatal(err)
			}
		}
		if left := pgtest.ProcessesIn(data); len(left) > 0 {
			t.Errorf("processes %v are left in the data directory", left)
		}
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
		p.start()
		p.eventually("the sign", func() string {
			_, starting := os.Stat(filepath.Join(data, "postmaster.pid"))
			if strings.Contains(p.log.String(), sign) || sign == "postmaster" && starting == nil {
				return ""
			}
			return "no " + sign
		})
		end(t, p, syscall.SIGTERM)
	}
}

// TestJournalThatCantBeWritten: the agent leads all the same, and says so where
// monitoring looks.
func TestJournalThatCantBeWritten(t *testing.T) {
	needsPostgres(t)
	p := member(t, "pg01")
	// A file where the folder should be is what nobody can write in, not even root.
	if err := os.WriteFile(filepath.Join(p.dir, "journal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.leads()
	p.eventually("GET /patroni", func() string {
		resp, err := http.Get(p.url("/patroni"))
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || !strings.Contains(string(body), `"journal_degraded"`) {
			return fmt.Sprintf("doesn't tell: %s (%v)", body, err)
		}
		return ""
	})
	end(t, p, syscall.SIGTERM)
}
