package ctl

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/ctl/story/storytest"
)

// command runs one command in the world and returns what it said and its exit code.
func (w *world) run(args ...string) (out, errs string, code int) {
	w.t.Helper()
	var o, e bytes.Buffer
	code = execute(w.t.Context(), w.env(strings.NewReader(""), &o, &e), args)
	return o.String(), e.String(), code
}

// writeJournal is an agent's evening: it starts an hour before noon's "now", sees its
// world, waits through quiet heartbeats, and is asked to end.
func writeJournal(t *testing.T, dir string) {
	t.Helper()
	w := storytest.Open(t, dir)
	start := noon().Add(-time.Hour).Truncate(time.Second)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	w.Step(storytest.Fact{At: at(0), Event: events.AgentStarted{Node: "pg01", Scope: "demo", Version: "0.1.0", Boot: "b",
		Settings: events.Settings{TTL: 30 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second}}})
	w.Step(storytest.Fact{At: at(1), Event: events.KeeperFound{}})
	w.Step(storytest.Fact{At: at(1), Event: events.PostgresObserved{State: events.PostgresState{Data: events.DataDir{Content: events.DataEmpty}}}})
	w.Step(storytest.Fact{At: at(1), Event: events.ClusterObserved{View: events.ClusterView{Revision: 1}, Read: events.Instant(at(1).UnixNano() % int64(24*time.Hour))}})
	for i := range 10 {
		w.Step(storytest.Fact{At: at(10 + 10*i), Event: events.Tick{}})
	}
	w.Step(storytest.Fact{At: at(3000), Event: events.ShutdownRequested{By: "SIGTERM"}})
	w.Close()
}

func TestJournalCommands(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.dir, "journal")
	writeJournal(t, dir)
	w.write("scope: demo\nraft: {self_addr: 'h:1'}\nregent: {journal: {dir: " + dir + "}}\n")

	told, errs, code := w.run("journal", "show")
	if code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{
		"2026-11-22 21:08:02.000  #1  agent pg01 started in cluster demo, version 0.1.0  =>  ",
		"init -> joining: ", "quiet for 1m30s, 10 routine events, still joining\n", "2026-11-22 21:58:02.000  #", "asked to end by SIGTERM", "-> stopping: ",
	} {
		if !strings.Contains(told, want) {
			t.Errorf("%q is missing in:\n%s", want, told)
		}
	}
	all, _, _ := w.run("journal", "show", "--all", "--dir", dir)
	if n := strings.Count(all, "heartbeat"); n != 10 || strings.Contains(all, "quiet for") {
		t.Errorf("%d heartbeats in:\n%s", n, all)
	}
	if last, _, _ := w.run("journal", "show", "-an2"); strings.Count(last, "\n") != 2 || !strings.HasSuffix(all, last) {
		t.Errorf("the last two lines are:\n%s", last)
	}
	if some, _, _ := w.run("journal", "show", "-a", "--since", "21:08:12", "--until", "2026-11-22T20:08:32Z"); strings.Count(some, "\n") != 3 {
		t.Errorf("from 21:08:12 to 21:08:32 there are three heartbeats, told:\n%s", some)
	}
	lines, _, _ := w.run("journal", "show", "-f", "json")
	for _, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		var c struct {
			Seq                                          int
			Time                                         time.Time
			Event, Fact, From, To, Trigger, Rule, Reason string
			Actions                                      []string
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil || c.Seq == 0 || c.Event == "" || c.Rule == "" || c.Time.IsZero() {
			t.Errorf("%v: %s", err, line)
		}
	}
	if out, errs, code := w.run("journal", "verify"); code != 0 || !strings.Contains(out, "The journal is sound: 1 segment, 0 marked gaps.\n") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	out, errs, code := w.run("journal", "replay")
	if code != 0 || !strings.Contains(out, "from record 1 on, written by program test: not compared, it isn't this program (--any does)\n") ||
		!strings.Contains(out, " decisions not compared (of another program") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	out, errs, code = w.run("journal", "replay", "--any")
	if code != 0 || !strings.Contains(out, " decisions compared and equal, up to record ") || strings.Contains(out, "0 decisions compared") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

func TestReplayFailsOnADecisionThatDiffers(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.dir, "journal")
	j := storytest.Open(t, dir)
	j.Step(storytest.Fact{At: noon(), Event: events.AgentStarted{Node: "pg01", Scope: "demo", Boot: "b"}})
	j.Fact(storytest.Fact{At: noon(), Event: events.Tick{}}, `{}`)
	j.Decided(noon(), fsm.Derived{From: fsm.Init, To: fsm.Leading, Rule: "init/usurp", Text: "because I can"})
	j.Close()
	out, errs, code := w.run("journal", "replay", "--any", "--dir", dir)
	if code != 1 || !strings.Contains(errs, "differs") || !strings.Contains(errs, "because I can") && !strings.Contains(errs, "leading") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

func TestVerifyFailsOnDamage(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.dir, "journal")
	writeJournal(t, dir)
	files, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(files[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := w.run("journal", "verify", "--dir", dir)
	if code != 1 || !strings.Contains(out, "problem: ") || !strings.Contains(errs, "is damaged: 1 problem\n") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

func TestJournalCommandsSayWhichFolderIsMissing(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(w.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"Error: Which journal? Give its folder by --dir": {"journal", "show"},
		"can't be read: no such file or directory":       {"why", "--dir", filepath.Join(w.dir, "nowhere")},
		"is no folder":                             {"journal", "verify", "--dir", file},
		"Unable to parse the time \"yesterday\"":   {"journal", "show", "--dir", w.dir, "--since", "yesterday"},
		"Error: Got unexpected extra argument (x)": {"why", "x"},
	} {
		if out, errs, code := w.run(args...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit %d: %s%s", args, code, out, errs)
		}
	}
}

func TestWhyExplainsNowAndThen(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.dir, "journal")
	writeJournal(t, dir)
	for at, want := range map[string][]string{
		"":                     {"As of 2026-11-22 21:58:02.000 pg01 is stop", "the way there:", "init -> joining"},
		"2026-11-22 21:30":     {"At 2026-11-22 21:30:00.000 pg01 was joining, since 2026-11-22 21:08:03.000.", "#", "heartbeat", "rejected:"},
		"45m":                  {"At 2026-11-22 21:23:02.476 pg01 was joining"},
		"21:08:02":             {"At 2026-11-22 21:08:02.000 pg01 was init, since 2026-11-22 21:08:02.000.", "agent pg01 started"},
		"2026-11-22T20:00:00Z": {"The journal has nothing from before 2026-11-22 20:00:00.000.\n"},
	} {
		args := []string{"why", "--dir", dir}
		if at != "" {
			args = append(args, "--at", at)
		}
		out, errs, code := w.run(args...)
		if code != 0 {
			t.Errorf("at %q: exit %d: %s", at, code, errs)
		}
		for _, s := range want {
			if !strings.Contains(out, s) {
				t.Errorf("at %q: %q is missing in:\n%s", at, s, out)
			}
		}
	}
}

func TestTimesAsPeopleWriteThem(t *testing.T) {
	now := noon() // 22:08:02 CET
	for text, want := range map[string]string{
		"2026-11-23T03:22:35Z":      "2026-11-23T04:22:35+01:00",
		"2026-11-23 03:22:35+02:00": "2026-11-23T02:22:35+01:00",
		"2026-11-20 03:22:35.5":     "2026-11-20T03:22:35.5+01:00",
		"2026-11-20 03:22":          "2026-11-20T03:22:00+01:00",
		"2026-11-20":                "2026-11-20T00:00:00+01:00",
		"22:08:01":                  "2026-11-22T22:08:01+01:00",
		"23:00":                     "2026-11-21T23:00:00+01:00", // not yet today
		"90s":                       "2026-11-22T22:06:32.476254321+01:00",
		"-1h":                       "2026-11-22T21:08:02.476254321+01:00",
	} {
		if got, err := parseTime(text, now); err != nil || got.In(zone()).Format(time.RFC3339Nano) != want {
			t.Errorf("%s: %s, %v, want %s", text, got.Format(time.RFC3339Nano), err, want)
		}
	}
	for _, text := range []string{"soon", "25:00", "2026-13-01", ""} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("%q was read as %s", text, got)
		}
	}
}

func TestConfigValidatePrintsEveryProblem(t *testing.T) {
	w := newWorld(t)
	w.write("scope: demo\nname: pg00\nbogus: 1\netcd3: {hosts: 'h:2379'}\nrestapi: {listen: nowhere}\n")
	c, err := config.Load(w.file(), nil)
	if err != nil {
		t.Fatal(err)
	}
	problems := config.Validate(c, Support())
	out, errs, code := w.run("config", "validate", w.file())
	for _, p := range problems {
		if !strings.Contains(out, p.Severity.String()+": "+p.String()+"\n") {
			t.Errorf("%s is missing in:\n%s", p, out)
		}
	}
	if strings.Count(out, "\n") != len(problems) || len(problems) < 3 || code != 1 || !strings.HasPrefix(errs, "Error: "+w.file()+" has ") {
		t.Errorf("exit %d, %d problems:\n%s%s", code, len(problems), out, errs)
	}

	w.write("scope: demo\n\traft: {}\n")
	if out, _, code := w.run("config", "validate", w.file()); code != 1 || !strings.Contains(out, "patroni.yml:2:1: a tab") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if _, errs, code := w.run("config", "validate"); code != 2 || !strings.Contains(errs, "Missing argument 'FILE'.") {
		t.Errorf("exit %d:\n%s", code, errs)
	}
	if _, errs, code := w.run("config", "validate", filepath.Join(w.dir, "none.yml")); code != 1 || !strings.Contains(errs, "none.yml doesn't exist") {
		t.Errorf("exit %d:\n%s", code, errs)
	}
}

func TestConfigValidateIsContentWithAGoodFile(t *testing.T) {
	w := newWorld(t)
	data := filepath.Join(w.dir, "data")
	w.write("scope: demo\nname: pg00\nrestapi: {listen: '10.0.0.1:8008'}\n" +
		"raft: {self_addr: '10.0.0.1:2222', partner_addrs: ['10.0.0.2:2222', '10.0.0.3:2222'], password: geheim}\n" +
		"postgresql:\n  listen: 10.0.0.1:5432\n  data_dir: " + data + "\n  authentication:\n" +
		"    superuser: {username: postgres, password: a}\n    replication: {username: repl, password: b}\n" +
		"regent: {run_dir: /run/regent}\n")
	if out, errs, code := w.run("config", "validate", w.file()); code != 0 || !strings.HasSuffix(out, w.file()+" is valid.\n") {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
}

func TestFsmPrintsTheTable(t *testing.T) {
	w := newWorld(t)
	out, _, code := w.run("fsm", "table")
	for _, e := range fsm.Table() {
		for _, from := range e.From {
			found := false
			for _, line := range strings.Split(out, "\n") {
				cells := strings.Split(line, "|")
				found = found || len(cells) == 6 && strings.TrimSpace(cells[1]) == string(from) &&
					strings.TrimSpace(cells[2]) == string(e.Trigger) && strings.TrimSpace(cells[3]) == string(e.To) && strings.TrimSpace(cells[4]) == e.Why
			}
			if !found {
				t.Errorf("%s -%s-> %s is missing", from, e.Trigger, e.To)
			}
		}
	}
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	for format, want := range map[string]string{"mermaid": "stateDiagram", "dot": "digraph"} {
		if out, _, code := w.run("fsm", "graph", "-f", format); code != 0 || !strings.Contains(out, want) || !strings.Contains(out, "leading") {
			t.Errorf("%s: exit %d:\n%s", format, code, out)
		}
	}
	if out, _, _ := w.run("fsm", "table", "-f", "markdown"); out != fsm.Markdown() {
		t.Error("the Markdown is another document")
	}
}

func TestReferenceHasEveryCommandAndOption(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(w.dir, "cli.md")
	if _, errs, code := w.run("docs", "cli", "-o", file); code != 0 {
		t.Fatal(errs)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n## regent switchover\n", "--candidate NAME", "\n## regent journal show\n", "| [`regent why`](#regent-why) |", "\n## Conventions\n", "-c, --config-file",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, hidden := range []string{"## regent docs", "--master ", "--dcs string"} {
		if strings.Contains(string(text), hidden) {
			t.Errorf("%q is told", hidden)
		}
	}
	if out, _, code := w.run("docs", "config"); code != 0 || out != config.Reference() {
		t.Error("the settings are another document")
	}
	if _, _, code := w.run("docs", "bogus"); code != 2 {
		t.Errorf("exit %d", code)
	}
}
