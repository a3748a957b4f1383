package ctl

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/config"
)

// world is what a script's commands see: a store in memory, members' REST APIs that
// answer as the script says, and a folder with a configuration file.
type world struct {
	t      *testing.T
	dir    string
	store  *mem.Cluster
	seen   *mem.Client // the commands' connection, which remembers what it saw last
	rest   []answer
	calls  []string
	fault  error // of the next Open
	editor [][2]string
}

// answer is what one member says to one request, and what happens in the store.
type answer struct {
	request string // METHOD URL
	status  int
	text    string
	then    func()
}

// TestScripts runs the commands of testdata/scripts against the world that each script
// sets up. Directives:
//
//	file          writes the configuration file, or another one: file NAME
//	editor        what the editor does: from OLD, to NEW, store KEY VALUE, exit CODE, missing
//	store         sets keys, one a line; "-KEY" deletes one
//	rest          the answers to come: METHOD URL STATUS TEXT; "unreachable" and "lost" as
//	              STATUS; an indented KEY VALUE below is what the store then holds
//	partition     cuts the client off the store, or mends it
//	regent        runs a command; lines that begin with "< " are the operator's answers
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		w := &world{t: t, dir: t.TempDir()}
		t.Setenv("TMPDIR", w.dir)
		w.store = mem.New(func() events.Instant { return 1 })
		w.seen = w.store.Client("ctl")
		t.Cleanup(func() { _ = w.seen.Close() })
		w.write("scope: demo\nname: pg00\nraft:\n  self_addr: 127.0.0.1:2222\n")
		datadriven.RunTest(t, path, w.directive)
		if len(w.rest) > 0 {
			t.Errorf("%d answers of members were never asked for, the first: %s", len(w.rest), w.rest[0].request)
		}
	})
}

func (w *world) directive(t *testing.T, d *datadriven.TestData) string {
	w.t = t
	switch d.Cmd {
	case "file":
		name := "patroni.yml"
		if len(d.CmdArgs) > 0 {
			name = d.CmdArgs[0].Key
		}
		w.writeAs(name, d.Input+"\n")
	case "editor":
		w.edits(d.Input)
	case "store":
		for _, line := range strings.Split(d.Input, "\n") {
			w.set(line)
		}
	case "rest":
		w.expect(d.Input)
	case "partition":
		w.store.Cut("ctl", d.Input != "mend")
	case "regent":
		return w.command(d.Input)
	default:
		d.Fatalf(t, "unknown directive %s", d.Cmd)
	}
	return ""
}

func (w *world) file() string { return filepath.Join(w.dir, "patroni.yml") }

func (w *world) write(text string) { w.writeAs("patroni.yml", text) }

// edits prepares what the next editor does.
func (w *world) edits(input string) {
	w.editor = nil
	for _, line := range strings.Split(input, "\n") {
		word, rest, _ := strings.Cut(line, " ")
		w.editor = append(w.editor, [2]string{word, rest})
	}
}

// Edit implements Env.Edit.
func (w *world) edit(_ context.Context, programs []string, file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	code, from := 0, ""
	for _, step := range w.editor {
		switch step[0] {
		case "missing":
			return 0, fmt.Errorf("no %s", strings.Join(programs, ", no "))
		case "exit":
			if code, err = strconv.Atoi(step[1]); err != nil {
				return 0, err
			}
		case "from":
			from = step[1]
		case "to":
			text = bytes.ReplaceAll(text, []byte(from), []byte(step[1]))
		case "store":
			w.set(step[1])
		}
	}
	return code, os.WriteFile(file, text, 0o600)
}

func (w *world) writeAs(name, text string) {
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// set puts or deletes a key.
func (w *world) set(line string) {
	if line == "" {
		return
	}
	key, value, _ := strings.Cut(line, " ")
	write := dcs.Put(key, []byte(value))
	if name, ok := strings.CutPrefix(key, "-"); ok {
		write = dcs.Write{Key: name, Delete: true}
	}
	client := w.store.Client("operator")
	defer client.Close()
	if _, err := client.Commit(w.t.Context(), dcs.Txn{Writes: []dcs.Write{write}}); err != nil {
		w.t.Fatalf("set %s: %v", line, err)
	}
}

func (w *world) expect(input string) {
	for _, line := range strings.Split(input, "\n") {
		if change, ok := strings.CutPrefix(line, "  "); ok {
			last := &w.rest[len(w.rest)-1]
			before := last.then
			last.then = func() { before(); w.set(change) }
			continue
		}
		part := strings.SplitN(line, " ", 4)
		a := answer{request: part[0] + " " + part[1], then: func() {}}
		switch part[2] {
		case "unreachable":
			a.status = -1
		case "lost":
			a.status = -2
		default:
			n, err := strconv.Atoi(part[2])
			if err != nil {
				w.t.Fatalf("rest %s: %v", line, err)
			}
			a.status = n
		}
		if len(part) > 3 {
			a.text = part[3]
		}
		w.rest = append(w.rest, a)
	}
}

// Call implements Caller: the next answer of the script, which must be asked for as the
// script says.
func (w *world) Call(_ context.Context, method, url string, body []byte) (int, []byte, error) {
	w.calls = append(w.calls, fmt.Sprintf("%s %s %s", method, url, body))
	if len(w.rest) == 0 || w.rest[0].request != method+" "+url {
		w.t.Errorf("unexpected request %s %s", method, url)
		return 0, nil, fmt.Errorf("%w: no answer in the script", ErrUnreachable)
	}
	a := w.rest[0]
	w.rest = w.rest[1:]
	a.then()
	switch a.status {
	case -1:
		return 0, nil, fmt.Errorf("%w: connection refused", ErrUnreachable)
	case -2:
		return 0, nil, fmt.Errorf("connection reset")
	}
	return a.status, []byte(a.text), nil
}

// zone is the operator's, and noon its time.
func zone() *time.Location { return time.FixedZone("CET", 3600) }

func noon() time.Time { return time.Date(2026, 11, 22, 22, 8, 2, 476254321, zone()) }

// env is the world for one command.
func (w *world) env(in io.Reader, out, errs io.Writer) Env {
	return Env{
		Program: "regent", Version: "0.1.0", In: in, Out: out, Err: errs,
		Environ: []string{"PATRONICTL_CONFIG_FILE=" + w.file()},
		Home:    w.dir, Now: noon, Log: NewLogger(errs, noon),
		Open: func(context.Context, StoreAddress) (dcs.Store, error) {
			if w.fault != nil {
				return nil, w.fault
			}
			return kept{w.seen}, nil
		},
		Dial:       func(config.Ctl) (Caller, error) { return w, nil },
		Edit:       w.edit,
		Interrupts: func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} },
	}
}

func execute(ctx context.Context, env Env, args []string) int {
	app := New(env)
	return app.Execute(ctx, app.Root(), args)
}

// kept is a connection that outlives the command.
type kept struct{ dcs.Store }

func (kept) Close() error { return nil }

// command runs one command and puts all that an operator or a script sees into one text.
func (w *world) command(input string) string {
	var answers strings.Builder
	lines := strings.Split(input, "\n")
	for _, line := range lines[1:] {
		text, ok := strings.CutPrefix(line, "<")
		if !ok {
			w.t.Fatalf("neither a command nor an answer: %s", line)
		}
		answers.WriteString(strings.TrimPrefix(text, " ") + "\n")
	}
	var out, errs bytes.Buffer
	w.calls = nil
	code := execute(w.t.Context(), w.env(strings.NewReader(answers.String()), &out, &errs), strings.Fields(strings.ReplaceAll(lines[0], "DIR", w.dir)))
	var b strings.Builder
	b.WriteString(out.String())
	if out.Len() > 0 && !strings.HasSuffix(out.String(), "\n") {
		b.WriteString("\n")
	}
	for _, call := range w.calls {
		b.WriteString("[rest] " + regexp.MustCompile(`"key":"[0-9a-f]+"`).ReplaceAllString(call, `"key":"DRAWN"`) + "\n")
	}
	if errs.Len() > 0 {
		text := strings.ReplaceAll(strings.TrimSuffix(errs.String(), "\n"), w.dir, "DIR")
		text = regexp.MustCompile(`rejected-\d+`).ReplaceAllString(text, "rejected-N")
		b.WriteString("[stderr] " + strings.ReplaceAll(text, "\n", "\n[stderr] ") + "\n")
	}
	if code != 0 {
		fmt.Fprintf(&b, "[exit %d]\n", code)
	}
	return b.String()
}
