package live

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// TestBesidePatroni: both programs get the same rows, on the same store, and none that only one can
// be put through.
func TestBesidePatroni(t *testing.T) {
	all := scripts(t)
	o := Options{Pace: Beside, Stores: []sandbox.StoreKind{sandbox.Etcd3Store}}
	rows := map[sandbox.Program][]string{}
	for _, p := range o.plan(all) {
		if p.key.store != sandbox.Etcd3Store || p.key.fencing != "keeper" {
			t.Errorf("%s on %+v", p.script.Name, p.key)
		}
		rows[p.key.program] = append(rows[p.key.program], p.script.Name)
	}
	for _, names := range rows {
		slices.Sort(names)
	}
	ours, theirs := rows[sandbox.Regent], rows[sandbox.Patroni]
	if !slices.Equal(ours, theirs) || len(ours) < 30 || len(rows) != 2 {
		t.Errorf("Regent %v, Patroni %v", ours, theirs)
	}
	for _, name := range []string{"08-fencing-off", "07-no-standby-has-it-all", "23-killed-in-promote"} {
		if slices.Contains(theirs, name) {
			t.Errorf("%s is for Regent alone", name)
		}
	}
	if ttl, loopWait, retry := Beside.Timings(sandbox.Etcd3Store); ttl != 20*time.Second || loopWait != time.Second || retry != 3*time.Second {
		t.Errorf("timings %v %v %v", ttl, loopWait, retry)
	}
}

// TestLinesAboutRegentAreLeftOutForPatroni, and no other line.
func TestLinesAboutRegentAreLeftOutForPatroni(t *testing.T) {
	s, err := Parse("x", header+`
do        kill agent of replica
wait for  journal of replica says DCSUnavailable within 1s
expect    noticed of replica at most 1s
expect    outage at most 1s
`)
	if err != nil {
		t.Fatal(err)
	}
	for program, want := range map[sandbox.Program][]bool{
		sandbox.Regent: {false, false, false, false}, sandbox.Patroni: {false, true, true, false},
	} {
		r := newRun(&lab{key: labKey{store: sandbox.Etcd3Store, program: program}}, s)
		var out []bool
		for _, step := range s.Steps {
			out = append(out, r.leftOut(step))
		}
		if !slices.Equal(out, want) {
			t.Errorf("%s: left out %v, want %v", program, out, want)
		}
	}
}

func TestTheTableOfBothSaysWhatWasNotKept(t *testing.T) {
	r := Report{Results: []Result{
		{Script: "03-replica-agent-killed", Program: sandbox.Regent, Outcome: Kept, Outage: 20 * time.Millisecond},
		{Script: "03-replica-agent-killed", Program: sandbox.Patroni, Outcome: Broken, Lost: 7, Why: []string{"it's all\ngone"}},
	}}
	var text strings.Builder
	if err := r.Beside(&text, "patroni 3.0.2"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"patroni 3.0.2", "| outage 20ms · lost 0 · two primaries 0 · all stream after 0 | **not kept** outage 0 · lost 7 ·",
		"* patroni, `03-replica-agent-killed`: it's all gone\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String(), "not chosen") {
		t.Errorf("a row that nobody was put through is in the table:\n%s", text.String())
	}
}

// TestWhatAnEarlierRunKeptIsTakenOver, and what it didn't is replayed.
func TestWhatAnEarlierRunKeptIsTakenOver(t *testing.T) {
	all := scripts(t)
	p := Options{Row: "03-replica-agent-killed", Stores: []sandbox.StoreKind{sandbox.RaftStore}}.plan(all)[0]
	earlier := Result{Script: p.script.Name, Store: p.key.store, Program: p.key.program, Outcome: Kept, Outage: time.Second}
	o := Options{Earlier: &Report{Results: []Result{earlier}}}
	if r, ok := o.kept(p); !ok || r.Outage != time.Second {
		t.Errorf("a row that was kept isn't taken over: %+v", r)
	}
	for _, change := range []func(*Result){
		func(r *Result) { r.Outcome = Broken }, func(r *Result) { r.Store = sandbox.Etcd3Store },
		func(r *Result) { r.Program = sandbox.Patroni }, func(r *Result) { r.Script = "04-replica-without-store" },
	} {
		other := earlier
		change(&other)
		o.Earlier.Results = []Result{other}
		if _, ok := o.kept(p); ok {
			t.Errorf("a row is taken over from %+v", other)
		}
	}
	if _, ok := (Options{}).kept(p); ok {
		t.Error("a row is taken over from nowhere")
	}
}
