package live

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/hosts"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// testOptions are those of a suite that works in the test's folder.
func testOptions(t *testing.T) Options {
	t.Helper()
	if testing.Short() {
		t.Skip("real clusters are left out of -short")
	}
	if err := hosts.Refused(); err != nil {
		pgtest.Need(t, err.Error())
	}
	bin := filepath.Dir(pgtest.Binary(t, "regent"))
	o := Options{
		Dir: pgtest.SocketDir(t), Bin: bin, PGBin: pgtest.BinDir(t), Out: lines{t}, Programs: map[sandbox.StoreKind]string{},
	}
	for _, k := range sandbox.StoreKinds() {
		if program := k.Program(); program != "" {
			o.Programs[k] = filepath.Join(bin, program)
			if _, err := os.Stat(o.Programs[k]); err != nil {
				pgtest.Need(t, "no server of "+string(k)+": scripts/"+program+"-server.sh builds one")
			}
		}
	}
	return o
}

// lines is a test's log as a writer.
type lines struct{ t *testing.T }

func (l lines) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// TestTheFailureTable replays every row on one store, and touches every store; which row on which
// store is the day's turn. A row that couldn't run fails like a broken one.
func TestTheFailureTable(t *testing.T) {
	o := testOptions(t)
	o.Rotate, o.Rotation, o.Budget = true, int(time.Now().Unix()/86400), 9*time.Minute
	t.Logf("again by hand: regent-chaos live --ci --rotation %d", o.Rotation)
	report, err := Run(t.Context(), o)
	if err != nil {
		t.Error(err)
	}
	for _, r := range report.Failed() {
		t.Errorf("%s on %s, %s: %s", r.Script, r.Store, r.Outcome, strings.Join(r.Why, "; "))
		tails(t, r)
	}
	if want := len(o.plan(scripts(t))); len(report.Results) != want {
		t.Errorf("%d results of %d rows", len(report.Results), want)
	}
}

// tails logs the ends of the logs that a broken row left, which go with the test's folder.
func tails(t *testing.T, r Result) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(r.Folder, "c", "*", "agent.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range logs {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		t.Logf("end of %s:\n%s", file, text[max(0, len(text)-6000):])
	}
}

func scripts(t *testing.T) []*Script {
	t.Helper()
	all, err := Scripts()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestAConditionHoldsOrItDoesNot: each condition that a script can name is asked of a healthy
// cluster, once so that it holds and once so that it doesn't. One that can't fail proves nothing.
func TestAConditionHoldsOrItDoesNot(t *testing.T) {
	o := testOptions(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	l, err := newLab(ctx, labKey{store: sandbox.RaftStore, program: sandbox.Regent, fencing: "keeper"}, o, filepath.Join(o.Dir, "lab"))
	t.Cleanup(func() {
		if err := l.close(false); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/conditions")
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]map[bool]bool{}
	r := newRun(l, &Script{Name: "conditions", Fencing: "keeper"})
	if err := r.settle(ctx); err != nil {
		t.Fatal(err)
	}
	story, over := context.WithCancel(ctx)
	defer func() { over(); r.work.Wait() }()
	r.over = story
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		want, words, _ := strings.Cut(line, " ")
		s, err := Parse("x", header+words+"\ndo wait 0s\nexpect lost rows at most 0\n")
		if err != nil {
			t.Fatal(err)
		}
		step := s.Steps[0]
		err = r.step(ctx, step)
		switch want {
		case "done:":
			if err != nil {
				t.Fatalf("%s: %v", words, err)
			}
			continue
		case "holds:":
			if err != nil {
				t.Errorf("%s: %v", words, err)
			}
		default:
			if err == nil {
				t.Errorf("%s: it holds", words)
			}
		}
		if asked[step.verb.Form] == nil {
			asked[step.verb.Form] = map[bool]bool{}
		}
		asked[step.verb.Form][want == "holds:"] = true
	}
	for _, v := range Verbs() {
		if v.holds != nil && len(asked[v.Form]) != 2 {
			t.Errorf("%q was asked %v only", v.Form, asked[v.Form])
		}
	}
}

// TestAWrongVerdictIsCaught replays the row with two primaries without the lines that allow
// them: its verdict must be that two promises are broken.
func TestAWrongVerdictIsCaught(t *testing.T) {
	o := testOptions(t)
	text, err := files.ReadFile("scenarios/08-fencing-off.txt")
	if err != nil {
		t.Fatal(err)
	}
	planted := strings.NewReplacer("allow     two primaries\n", "", "allow     lost rows\n", "").Replace(string(text))
	s, err := Parse("planted", planted)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	w := walker{o: o}
	result := w.replay(ctx, pair{s, s.labOn(sandbox.RaftStore)}, time.Now())
	result.line(o.Out)
	if result.Outcome != Broken {
		t.Fatalf("%s, with two primaries that nothing allows", result.Outcome)
	}
	why := strings.Join(result.Why, "\n")
	defer func() {
		if t.Failed() {
			tails(t, result)
		}
	}()
	for _, want := range []string{"two primaries: ", "lost rows: "} {
		if !strings.Contains(why, want) {
			t.Errorf("the verdict lacks %q: %s", want, why)
		}
	}
	if result.Outcome != Broken || result.Folder == "" || w.lab != nil {
		t.Errorf("%s, folder %q: a broken row's cluster is kept, and not used again", result.Outcome, result.Folder)
	}
}
