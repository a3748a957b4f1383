package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newWorld is a world with one leader and one candidate.
func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), store: mem.New(func() events.Instant { return 1 })}
	w.seen = w.store.Client("ctl")
	t.Cleanup(func() { _ = w.seen.Close() })
	w.write("scope: demo\nraft: {self_addr: '127.0.0.1:2222'}\n")
	w.set("initialize 7711118317991320207")
	w.set("leader pg00")
	w.set(`members/pg00 {"conn_url":"postgres://h0:5432/postgres","api_url":"http://h0:8008/patroni","state":"running"}`)
	w.set(`members/pg01 {"conn_url":"postgres://h1:5432/postgres","api_url":"http://h1:8008/patroni","state":"running"}`)
	return w
}

// watched is a buffer that two goroutines may use.
type watched struct {
	lock chan struct{}
	text bytes.Buffer
}

func newWatched() *watched {
	s := &watched{lock: make(chan struct{}, 1)}
	s.lock <- struct{}{}
	return s
}

func (s *watched) Write(p []byte) (int, error) {
	<-s.lock
	defer func() { s.lock <- struct{}{} }()
	return s.text.Write(p)
}

func (s *watched) String() string {
	<-s.lock
	defer func() { s.lock <- struct{}{} }()
	return s.text.String()
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		timer := time.NewTimer(5 * time.Millisecond)
		<-timer.C
	}
}

func TestAnInterruptAtAPromptAborts(t *testing.T) {
	w := newWorld(t)
	in, operator, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer operator.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out, errs := newWatched(), newWatched()
	done := make(chan int, 1)
	go func() { done <- execute(ctx, w.env(in, out, errs), []string{"switchover"}) }()
	eventually(t, "the leader is asked for", func() bool { return strings.Contains(out.String(), "Primary [pg00]: ") })
	if _, err := operator.WriteString("pg00\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the candidate is asked for", func() bool { return strings.HasSuffix(out.String(), "Candidate ['pg01'] []: ") })
	interrupt()
	if code := <-done; code != 1 || errs.String() != "Aborted!\n" {
		t.Errorf("exit %d, stderr %q", code, errs.String())
	}
}

func TestInputIsReadLineByLine(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("one\r\ntwo\nfor the next command"); err != nil {
		t.Fatal(err)
	}
	l := &lines{from: r}
	for _, want := range []string{"one", "two"} {
		if got, err := l.next(t.Context()); got != want || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	rest := make([]byte, 64)
	if n, err := r.Read(rest); err != nil || string(rest[:n]) != "for the next command" {
		t.Errorf("left over: %q, %v", rest[:n], err)
	}
	if _, err := w.WriteString("half a line"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := l.next(t.Context()); !errors.Is(err, errAborted) {
		t.Errorf("half a line was taken for an answer: %q, %v", got, err)
	}
}

func TestWatchRepeatsUntilInterrupted(t *testing.T) {
	w := newWorld(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out, errs := newWatched(), newWatched()
	env := w.env(strings.NewReader(""), out, errs)
	env.Terminal = true
	done := make(chan int, 1)
	go func() { done <- execute(ctx, env, []string{"list", "-w", "0.01"}) }()
	eventually(t, "the list was printed three times", func() bool { return strings.Count(out.String(), "\x1b[2J\x1b[1;1H+ Cluster: demo") >= 3 })
	interrupt()
	if code := <-done; code != 1 || errs.String() != "Aborted!\n" {
		t.Errorf("exit %d, stderr %q", code, errs.String())
	}
}

func TestTheRequestIsWrittenToTheStoreOnlyOverWhatWasRead(t *testing.T) {
	for name, c := range map[string]struct {
		before string // the request key when the cluster is read
		during string // what somebody else writes while the member is being asked
		want   string // the key at the end
		told   string
	}{
		"no request yet":    {want: `{"leader":"pg00","member":"pg01"}`},
		"a cleared request": {before: `failover {}`, want: `{"leader":"pg00","member":"pg01"}`},
		"somebody was faster": {
			before: `failover {}`, during: `failover {"leader":"pg00","member":"pg02"}`,
			want: `{"leader":"pg00","member":"pg02"}`, told: "Another request was written",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.set(c.before)
			w.rest = []answer{{request: "POST http://h0:8008/switchover", status: -1, then: func() { w.set(c.during) }}}
			var out, errs bytes.Buffer
			code := execute(t.Context(), w.env(strings.NewReader(""), &out, &errs), []string{"switchover", "--candidate", "pg01", "--force"})
			v, err := w.seen.View(t.Context(), dcs.Linearizable)
			if err != nil {
				t.Fatal(err)
			}
			kv, _ := v.Get(dcs.KeyFailover)
			if string(kv.Value) != c.want {
				t.Errorf("the key holds %s", kv.Value)
			}
			if (code != 0) != (c.told != "") || !strings.Contains(errs.String(), c.told) {
				t.Errorf("exit %d, stderr %s", code, errs.String())
			}
		})
	}
}

func TestAnUnknownOutcomeOfTheWriteIsSaid(t *testing.T) {
	w := newWorld(t)
	w.rest = []answer{{request: "POST http://h0:8008/switchover", status: -1, then: func() {
		w.store.Inject(mem.Fault{Client: "ctl", Op: mem.OpCommit, Kind: mem.LoseReply})
	}}}
	var out, errs bytes.Buffer
	code := execute(t.Context(), w.env(strings.NewReader(""), &out, &errs), []string{"switchover", "--force"})
	if code != 1 || !strings.Contains(errs.String(), "It isn't known whether the request reached the store") {
		t.Errorf("exit %d, stderr %s", code, errs.String())
	}
}

func TestTheFileIsTheOptionsElseTheVariablesElseTheDefault(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	write := func(path, scope string) string {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("scope: "+scope+"\nraft: {self_addr: 'h:1', password: s-"+scope+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	option := write(filepath.Join(dir, "option.yml"), "option")
	variable := write(filepath.Join(dir, "variable.yml"), "variable")
	write(filepath.Join(home, ".config/patroni/patronictl.yaml"), "default")
	for name, c := range map[string]struct {
		environ []string
		home    string
		args    []string
		want    string
	}{
		"option before":        {environ: []string{"PATRONICTL_CONFIG_FILE=" + variable}, home: home, args: []string{"-c", option, "list"}, want: "/service/option/ [h:1] s-option"},
		"option after":         {environ: []string{"PATRONICTL_CONFIG_FILE=" + variable}, home: home, args: []string{"list", "-c" + option}, want: "/service/option/ [h:1] s-option"},
		"variable":             {environ: []string{"PATRONICTL_CONFIG_FILE=" + variable}, home: home, args: []string{"list"}, want: "/service/variable/ [h:1] s-variable"},
		"default":              {home: home, args: []string{"list"}, want: "/service/default/ [h:1] s-default"},
		"environment wins":     {environ: []string{"PATRONI_SCOPE=env", "PATRONI_NAMESPACE=/ns/"}, home: home, args: []string{"list"}, want: "/ns/env/ [h:1] s-default"},
		"environment alone":    {environ: []string{"PATRONI_SCOPE=env", "PATRONI_RAFT_SELF_ADDR=e:2"}, args: []string{"list"}, want: "/service/env/ [e:2] ***"},
		"store by option":      {home: home, args: []string{"list", "-d", "raft://a:1,b:2"}, want: "/service/default/ [a:1 b:2] s-default"},
		"store by variable":    {environ: []string{"DCS_URL=raft://a:1"}, home: home, args: []string{"list", "other"}, want: "/service/other/ [a:1] s-default"},
		"store without a file": {args: []string{"-d", "raft://a:1", "list", "demo"}, want: "/service/demo/ [a:1] ***"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			var got StoreAddress
			w := newWorld(t)
			env := w.env(strings.NewReader(""), &out, &errs)
			env.Environ, env.Home = c.environ, c.home
			env.Open = func(_ context.Context, at StoreAddress) (dcs.Store, error) {
				got = at
				return kept{w.seen}, nil
			}
			if code := execute(t.Context(), env, c.args); code != 0 {
				t.Fatalf("exit %d: %s", code, errs.String())
			}
			secret := "***"
			if got.Secret.Reveal() != "" {
				secret = got.Secret.Reveal()
			}
			if s := fmt.Sprint(got.Cluster, " ", got.Addrs, " ", secret); s != c.want {
				t.Errorf("%s, want %s", s, c.want)
			}
		})
	}
}

func TestInsecureReachesTheCaller(t *testing.T) {
	for _, args := range [][]string{{"-k", "switchover", "--force"}, {"switchover", "--force", "--insecure"}} {
		w := newWorld(t)
		w.rest = []answer{{request: "POST http://h0:8008/switchover", status: 200, text: "ok", then: func() {}}}
		var out, errs bytes.Buffer
		var got config.Ctl
		env := w.env(strings.NewReader(""), &out, &errs)
		env.Dial = func(c config.Ctl) (Caller, error) { got = c; return w, nil }
		if code := execute(t.Context(), env, args); code != 0 || !got.Insecure {
			t.Errorf("%v: exit %d, insecure %v", args, code, got.Insecure)
		}
	}
}

func TestUnderTheNamePatronictlTextsHaveThatName(t *testing.T) {
	w := newWorld(t)
	for args, want := range map[string]string{
		"version": "patronictl version 4.1.4\n",
		"bogus":   "Usage: patronictl [OPTIONS] COMMAND [ARGS]...\nTry 'patronictl --help' for help.\n\nError: No such command 'bogus'.\n",
	} {
		var both bytes.Buffer
		env := w.env(strings.NewReader(""), &both, &both)
		env.Program = "patronictl"
		execute(t.Context(), env, []string{args})
		if both.String() != want {
			t.Errorf("%s: %s", args, both.String())
		}
	}
}

func TestExitCodesOfOtherCommands(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		err  error
		code int
		told string
	}{
		"plain":     {errors.New("broken"), 1, "Error: broken\n"},
		"own code":  {&ExitError{Code: 3, Err: errors.New("fenced")}, 3, "Error: fenced\n"},
		"own, told": {fmt.Errorf("wrapped: %w", &ExitError{Code: 4}), 4, ""},
		"none":      {nil, 0, ""},
	} {
		var out, errs bytes.Buffer
		app := New(w.env(strings.NewReader(""), &out, &errs))
		root := app.Root()
		root.AddCommand(&cobra.Command{Use: "agent CONFIG", Args: cobra.ExactArgs(1), RunE: func(*cobra.Command, []string) error { return c.err }})
		if code := app.Execute(t.Context(), root, []string{"agent", "x.yml"}); code != c.code || errs.String() != c.told {
			t.Errorf("%s: exit %d, %q", name, code, errs.String())
		}
		errs.Reset()
		if code := app.Execute(t.Context(), root, []string{"agent"}); code != 2 || !strings.HasPrefix(errs.String(), "Usage: regent agent CONFIG\n") {
			t.Errorf("%s: exit %d, %q", name, code, errs.String())
		}
	}
}

// The embedded store, over its real port, with the secret and without.
func TestOpenStoreReachesTheEmbeddedStore(t *testing.T) {
	addr := freeAddr(t)
	node, err := embedded.Open(t.Context(), embedded.Config{
		Name: "pg00", Cluster: dcs.BasePath("/service", "demo"), SelfAddr: addr, DataDir: t.TempDir(),
		Secret: "geheim", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	commit := func() error {
		_, err := node.Commit(ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put(dcs.KeyInitialize, []byte("7711118317991320207"))}})
		return err
	}
	for err := commit(); err != nil; err = commit() {
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t)
	for name, c := range map[string]struct {
		scope, secret string
		code          int
		want          string
	}{
		"right secret":  {"demo", "geheim", 0, "+ Cluster: demo (7711118317991320207) "},
		"wrong secret":  {"demo", "falsch", 1, "secret differs"},
		"other cluster": {"other", "geheim", 1, "Error: open the store " + addr},
	} {
		t.Run(name, func(t *testing.T) {
			w.write("scope: " + c.scope + "\nraft: {self_addr: '" + addr + "', password: " + c.secret + "}\n")
			var both bytes.Buffer
			env := w.env(strings.NewReader(""), &both, &both)
			env.Open = OpenStore
			if code := execute(t.Context(), env, []string{"list"}); code != c.code || !strings.Contains(both.String(), c.want) {
				t.Errorf("exit %d:\n%s", code, both.String())
			}
		})
	}
}

func freeAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
