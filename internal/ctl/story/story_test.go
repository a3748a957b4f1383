package story_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/ctl/story"
	"github.com/pgregent/regent/internal/ctl/story/storytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func at(ms int) time.Time {
	return time.Date(2026, 11, 23, 3, 22, 35, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
}

func started() events.AgentStarted {
	return events.AgentStarted{Node: "pg01", Scope: "demo", Version: "0.1.0", Boot: "b", Settings: events.Settings{
		TTL: 30 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second, StopWait: 10 * time.Second, MayBootstrap: true,
	}}
}

// begin writes an agent that starts with an empty folder beside an empty store, which is
// enough for the machine to leave its first phase.
func begin(w *storytest.Writer) {
	w.Step(storytest.Fact{At: at(0), Event: started()})
	w.Step(storytest.Fact{At: at(10), Event: events.KeeperFound{}})
	w.Step(storytest.Fact{At: at(20), Event: events.PostgresObserved{State: events.PostgresState{Data: events.DataDir{Content: events.DataEmpty}}}})
	w.Step(storytest.Fact{At: at(30), Event: events.ClusterObserved{View: events.ClusterView{Revision: 1}, Read: events.Instant(at(25).UnixNano() % int64(24*time.Hour))}})
}

func chapters(t *testing.T, dir string) []story.Chapter {
	t.Helper()
	var out []story.Chapter
	for c, err := range story.Read(dir, time.UTC) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

func TestTheRecomputedStoryIsTheJournaledOne(t *testing.T) {
	dir := t.TempDir()
	w := storytest.Open(t, dir)
	begin(w)
	w.Close()
	turned := false
	for _, c := range chapters(t, dir) {
		if c.Journaled == nil || !c.Known || !c.Agrees() {
			t.Errorf("#%d %s: journaled %+v, known %v, recomputed %+v", c.Seq, c.Kind, c.Journaled, c.Known, c.Decision)
		}
		turned = turned || c.Turned()
	}
	if !turned {
		t.Error("the machine never left its first phase: this test sees nothing")
	}
}

// The clock is set back by an hour: the present is the journal's end all the same, and
// times before can still be asked for.
func TestWhyBearsAClockThatWasSetBack(t *testing.T) {
	dir := t.TempDir()
	w := storytest.Open(t, dir)
	begin(w)
	w.Step(storytest.Fact{At: at(10_000), Event: events.Tick{}})
	before := w.Step(storytest.Fact{At: at(20_000), Event: events.Tick{}})
	w.Close()
	const hour = 3_600_000
	w = storytest.Open(t, dir)
	w.Step(storytest.Fact{At: at(30_000 - hour), Event: started()})
	last := w.Step(storytest.Fact{At: at(31_000 - hour), Event: events.ShutdownRequested{By: "SIGTERM"}})
	w.Close()
	a, err := story.AskNow(dir, at(32_000-hour))
	if err != nil || !a.Now || a.Rule != last.Reason.Rule || !a.Time.Equal(at(31_000-hour)) {
		t.Errorf("now: %v, %+v, want %+v", err, a, last.Reason)
	}
	if a, err = story.Ask(dir, at(32_000-hour)); err != nil || a.Rule != last.Reason.Rule {
		t.Errorf("now, by its time: %v, %+v, want %+v", err, a, last.Reason)
	}
	if a, err = story.Ask(dir, at(25_000)); err != nil || a.Rule != before.Reason.Rule || !a.Time.Equal(at(20_000)) {
		t.Errorf("before the clock was set back: %v, %+v, want %+v", err, a, before.Reason)
	}
}

func TestAQuietStretchInWhichTheClockWasSetBackIsTold(t *testing.T) {
	i := story.Idle{Count: 7, From: at(0), To: at(-3_600_000), Phase: fsm.Following}
	if line := i.Line(); line != "2026-11-23 03:22:35.000  ...  quiet until 2026-11-23 02:22:35.000, by a clock that was set back, 7 routine events, still following" {
		t.Error(line)
	}
	var d story.Digest
	for _, ms := range []int{0, -3_600_000} {
		d.Take(story.Chapter{Seq: 1, From: at(ms), Wall: at(ms), Event: events.Tick{}})
	}
	if idle := d.End(); idle == nil || idle.Count != 2 {
		t.Errorf("left out: %+v", idle)
	}
}

func TestWhyNamesEveryRejectedAlternative(t *testing.T) {
	dir := t.TempDir()
	w := storytest.Open(t, dir)
	begin(w)
	w.Step(storytest.Fact{At: at(10_000), Event: events.Tick{}})
	d := w.Step(storytest.Fact{At: at(20_000), Event: events.Tick{}})
	w.Step(storytest.Fact{At: at(30_000), Event: events.ShutdownRequested{By: "SIGTERM"}})
	w.Close()
	a, err := story.Ask(dir, at(25_000))
	if err != nil {
		t.Fatal(err)
	}
	text := a.Text(time.UTC)
	want := []string{
		"At 2026-11-23 03:23:00.000 pg01 was " + string(d.To), "since 2026-11-23 03:22:35.030",
		"because  " + d.Reason.Text, "rule     " + d.Reason.Rule, "fact     #", "again    #", "2026-11-23 03:22:55.000: heartbeat", "asked before, and rejected:",
	}
	for _, r := range d.Reason.Rejected {
		want = append(want, "  "+r.Rule+": "+r.Why)
	}
	for _, s := range want {
		if !strings.Contains(text, s) {
			t.Errorf("%q is missing in:\n%s", s, text)
		}
	}
	if len(d.Reason.Rejected) == 0 {
		t.Error("the decision rejected nothing: this test sees nothing")
	}
	if strings.Contains(text, "SIGTERM") {
		t.Errorf("what happened later is told:\n%s", text)
	}
}

// handmade is a journal of another program: its rules are none of ours.
func handmade(t *testing.T, dir string) *storytest.Writer {
	w := storytest.Open(t, dir)
	w.Fact(storytest.Fact{At: at(0), Event: events.Tick{}}, `{}`)
	w.Decided(at(0), fsm.Derived{From: "leading", To: "leading", Rule: "leading/quiet", Text: "nothing to do"})
	w.Fact(storytest.Fact{At: at(10), Event: events.Tick{}}, `{}`)
	w.Decided(at(10), fsm.Derived{From: "leading", To: "leading", Rule: "leading/quiet", Text: "still nothing"})
	w.Fact(storytest.Fact{At: at(20), Event: events.PostgresDown{}}, `{"pid":42,"code":0,"signal":9}`)
	w.Decided(at(20), fsm.Derived{
		From: "leading", To: "reviving", Trigger: "postgres_crashed", Rule: "leading/crashed", Text: "the server\nis gone",
		Status: "starting as a leader", Actions: []string{"start-primary", "set-timer"},
	})
	w.Raw(journal.Record{Kind: "MoonPhaseChanged", Wall: at(30).UnixNano(), Boot: "b"})
	w.Decided(at(30), fsm.Derived{From: "reviving", To: "reviving", Rule: "reviving/wait", Text: "waiting"})
	w.Gap("the disk was full")
	w.Fact(storytest.Fact{At: at(40), Event: events.PostgresUp{}}, `{"pid":43}`)
	return w
}

func TestStoryOfAnotherProgramIsToldInItsOwnWords(t *testing.T) {
	dir := t.TempDir()
	handmade(t, dir).Close()
	var got []string
	for _, c := range chapters(t, dir) {
		got = append(got, c.Line())
	}
	want := []string{
		"2026-11-23 03:22:35.000  #1  heartbeat  =>  leading: nothing to do",
		"2026-11-23 03:22:35.010  #3  heartbeat  =>  leading: still nothing",
		"2026-11-23 03:22:35.020  #5  PostgreSQL is down unexpectedly (pid 42, signal 9)  =>  leading -> reviving: the server is gone  [start-primary]",
		"2026-11-23 03:22:35.030  #7  MoonPhaseChanged, which this version doesn't know  =>  reviving: waiting",
		"------- a gap: the disk was full -------",
	}
	if len(got) != len(want)+1 || fmt.Sprint(got[:len(want)]) != fmt.Sprint(want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if last := got[len(got)-1]; !strings.Contains(last, "#9  PostgreSQL accepts connections (pid 43)") {
		t.Errorf("after the gap: %s", last)
	}
	a, err := story.Ask(dir, at(25))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"At 2026-11-23 03:22:35.025 pg", "because  the server is gone", "edge     leading -postgres_crashed-> reviving",
		"status   starting as a leader", "ordered  start-primary\n",
	} {
		if s = strings.TrimSuffix(s, " pg"); !strings.Contains(a.Text(time.UTC), s) {
			t.Errorf("%q is missing in:\n%s", s, a.Text(time.UTC))
		}
	}
	if !strings.Contains(a.Text(time.UTC), "would decide otherwise") && !strings.Contains(a.Text(time.UTC), "can't be recomputed") {
		t.Errorf("our own rejected alternatives are sold as its:\n%s", a.Text(time.UTC))
	}
}

func TestAnEmptyJournalSaysSo(t *testing.T) {
	a, err := story.Ask(t.TempDir(), at(0))
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Text(time.UTC); got != "The journal has nothing from before 2026-11-23 03:22:35.000.\n" {
		t.Error(got)
	}
}

func TestDamageIsToldAndTheRestIsRead(t *testing.T) {
	dir := t.TempDir()
	w := handmade(t, dir)
	w.Close()
	files, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-20] ^= 1
	if err := os.WriteFile(files[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, c := range chapters(t, dir) {
		all.WriteString(c.Line() + "\n")
	}
	if got := all.String(); !strings.Contains(got, "unreadable") || !strings.Contains(got, "(pid 43)") || !strings.Contains(got, "#1 ") {
		t.Error(got)
	}
}

func TestALiveJournalCanBeRead(t *testing.T) {
	dir := t.TempDir()
	w := storytest.Open(t, dir)
	begin(w)
	w.Sync()
	before := len(chapters(t, dir))
	w.Step(storytest.Fact{At: at(100), Event: events.Tick{}})
	w.Sync()
	if after := len(chapters(t, dir)); before == 0 || after <= before {
		t.Errorf("%d chapters, then %d", before, after)
	}
}

func TestDigestLeavesOutWhatChangedNothing(t *testing.T) {
	dir := t.TempDir()
	w := storytest.Open(t, dir)
	for i := range 20 {
		w.Fact(storytest.Fact{At: at(500 * i), Event: events.Tick{}}, `{}`)
		rule := "following/quiet"
		if i == 10 {
			rule = "following/lagging"
		}
		w.Decided(at(500*i), fsm.Derived{From: "following", To: "following", Rule: rule, Text: fmt.Sprint(i, " bytes behind")})
	}
	w.Fact(storytest.Fact{At: at(10_000), Event: events.WalReceiverEnded{}}, `{}`)
	w.Decided(at(10_000), fsm.Derived{From: "following", To: "following", Rule: "following/quiet", Text: "ended"})
	w.Fact(storytest.Fact{At: at(10_100), Event: events.Tick{}}, `{}`)
	w.Decided(at(10_100), fsm.Derived{From: "following", To: "following", Rule: "following/quiet", Text: "too short to be told"})
	w.Close()
	var digest story.Digest
	var told []string
	for _, c := range chapters(t, dir) {
		if tell, idle := digest.Take(c); tell {
			if idle != nil {
				told = append(told, idle.Line())
			}
			told = append(told, fmt.Sprintf("#%d", c.Seq))
		}
	}
	if idle := digest.End(); idle != nil {
		told = append(told, idle.Line())
	}
	want := []string{
		"#1", "2026-11-23 03:22:35.500  ...  quiet for 4s, 9 routine events, still following", "#21", "#23",
		"2026-11-23 03:22:41.000  ...  quiet for 3.5s, 8 routine events, still following", "#41",
	}
	if got := strings.Join(told, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("told:\n%s", got)
	}
}

// quietHour writes a decision and an hour that confirms it, in three records.
func quietHour(t *testing.T, dir string) {
	t.Helper()
	w := storytest.Open(t, dir)
	begin(w)
	w.Step(storytest.Fact{At: at(1_000), Event: events.Tick{}})
	for i := range 3 {
		var facts []storytest.Fact
		for k := range 120 {
			facts = append(facts, storytest.Fact{At: at(10_000 + 1_200_000*i + 10_000*k), Event: events.Tick{}})
		}
		w.Quiet(facts...)
	}
	w.Step(storytest.Fact{At: at(3_700_000), Event: events.ShutdownRequested{By: "SIGTERM"}})
	w.Close()
}

func TestWhyAnswersForAMomentInWhichNothingHappened(t *testing.T) {
	dir := t.TempDir()
	quietHour(t, dir)
	for _, c := range chapters(t, dir) {
		if c.Quiet != nil && (!c.Known || !c.Agrees() || c.Quiet.Count != 120) {
			t.Errorf("#%d: known %v, %+v", c.Seq, c.Known, c.Quiet)
		}
	}
	a, err := story.Ask(dir, at(2_000_000)) // in the middle of the second record
	if err != nil {
		t.Fatal(err)
	}
	text := a.Text(time.UTC)
	for _, s := range []string{
		"At 2026-11-23 03:55:55.000 pg01 was ", ", since 2026-11-23 03:22:35.030.",
		"still    the same since 2026-11-23 03:22:45.000, last confirmed 2026-11-23 04:02:35.000, by 240 facts (240 heartbeats)",
		"asked before, and rejected:",
	} {
		if !strings.Contains(text, s) {
			t.Errorf("%q is missing in:\n%s", s, text)
		}
	}
	if strings.Contains(text, "SIGTERM") {
		t.Errorf("what happened later is told:\n%s", text)
	}
	var digest story.Digest
	lines := 0
	for _, c := range chapters(t, dir) {
		if tell, idle := digest.Take(c); tell && idle != nil {
			lines++
			if got := idle.Line(); got != "2026-11-23 03:22:36.000  ...  quiet for 59m59s, 361 routine events, still "+string(a.Phase) {
				t.Error(got)
			}
		}
	}
	if lines != 1 {
		t.Errorf("the quiet hour takes %d lines", lines)
	}
}

func TestEveryKindOfEventHasASentence(t *testing.T) {
	for _, kind := range events.Kinds() {
		e, err := events.Unmarshal(kind, []byte(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		if s := story.Sentence(e); s == "" || strings.Contains(s, "doesn't know") || strings.Contains(s, "%!") {
			t.Errorf("%s: %q", kind, s)
		}
	}
}
