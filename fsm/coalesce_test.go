package fsm

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
)

// folding keeps a stretch for each machine, as the agent's recorder does.
type folding struct {
	t      *testing.T
	base   map[*node]State // where the stretch under way began
	quiet  int
	loud   int
	folded int
}

// stepped folds what is quiet, and at everything else checks that the fold leads to the
// very state, and from there to the very decision.
func (f *folding) stepped(n *node, before, after State, entry events.Entry, d Decision) {
	f.t.Helper()
	if Quiet(before, after, entry.Event, d) {
		f.quiet++
		if _, under := f.base[n]; !under {
			f.base[n] = before
		}
		if d.From != d.To || before.Phase != after.Phase || before.Last.Reason.Rule != d.Reason.Rule ||
			before.holds() != after.holds() || before.Store.View.Leader != after.Store.View.Leader || before.Op != after.Op {
			f.t.Fatalf("%s changed something and counts as quiet: %+v", entry.Event.Kind(), d)
		}
		return
	}
	f.loud++
	if before.Seq == 0 {
		delete(f.base, n) // its journal was lost
	}
	base, under := f.base[n]
	delete(f.base, n)
	if !under {
		return
	}
	f.folded++
	untouched := encoded(f.t, base)
	stretch, err := Fold(base, before)
	if err != nil {
		f.t.Fatal(err)
	}
	var read Stretch
	if err := json.Unmarshal([]byte(encoded(f.t, stretch)), &read); err != nil {
		f.t.Fatal(err)
	}
	got, err := read.Unfold(base)
	if err == nil {
		err = read.Verify(got)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	if !reflect.DeepEqual(got, before) {
		f.t.Fatalf("unfolded:\n%s\nwant\n%s", encoded(f.t, got), encoded(f.t, before))
	}
	if encoded(f.t, base) != untouched {
		f.t.Fatal("unfolding changed the state that it began from")
	}
	again, decision := New().Step(got, entry)
	x, errX := Derive(again, decision)
	y, errY := Derive(after, d)
	if diff := x.Differ(y); diff != "" || errX != nil || errY != nil {
		f.t.Fatalf("after unfolding: %s (%v, %v)", diff, errX, errY)
	}
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Whatever happens to a cluster, a fold of the quiet stretches loses nothing.
func TestAFoldedStretchLeadsToTheSameStateAndDecisions(t *testing.T) {
	seeds := 8
	if testing.Short() {
		seeds = 4
	}
	f := &folding{t: t, base: map[*node]State{}}
	for seed := range seeds {
		w := newWorld(t, uint64(500+seed), 3, args{})
		w.stepped = f.stepped
		for range 6 {
			w.run(w.between(0, 4*time.Second), nil)
			w.trouble()
		}
	}
	if f.folded < 100 || f.quiet < f.folded {
		t.Errorf("%d stretches of %d quiet steps: this test saw nothing", f.folded, f.quiet)
	}
	t.Logf("%d quiet steps in %d stretches, %d others", f.quiet, f.folded, f.loud)
}

// A healthy cluster has nothing to tell.
func TestAnIdleClusterIsQuiet(t *testing.T) {
	w := newWorld(t, 7, 3, args{})
	if !w.run(30*time.Second, w.healthy) {
		w.fail("no healthy cluster")
	}
	w.run(10*time.Second, nil)
	f := &folding{t: t, base: map[*node]State{}}
	w.stepped = func(n *node, before, after State, entry events.Entry, d Decision) {
		loud := f.loud
		if f.stepped(n, before, after, entry, d); f.loud > loud {
			t.Errorf("%s: %s is told: %s", n.name, entry.Event.Kind(), d.Reason.Text)
			eachChange(reflect.ValueOf(before), reflect.ValueOf(after), nil, func(path []string, to reflect.Value) bool {
				if !varies(path) {
					t.Errorf("%v is now %v", path, to)
				}
				return true
			})
		}
	}
	w.run(30*time.Second, nil)
	if f.quiet < 200 {
		t.Errorf("%d quiet steps in 30 s of three members", f.quiet)
	}
}

func TestAStretchFitsOnlyWhereItBegan(t *testing.T) {
	base := State{Schema: StateSchema, Phase: Leading, Flight: []Flight{{Kind: "renew-lease"}}}
	end := base
	end.Seq, end.Now = 7, 9
	f, err := Fold(base, end)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Unfold(base); err != nil || !reflect.DeepEqual(got, end) || f.Verify(got) != nil {
		t.Errorf("%+v, %v", got, err)
	}
	other := base
	other.Phase = Following
	if got, err := f.Unfold(other); err != nil || f.Verify(got) == nil {
		t.Errorf("put upon a state that it never began from, it leads to %+v, %v", got, err)
	}
	for _, path := range []string{"nothing", "seq.x", "flight.1.kind", "flight.x", "store.view.members.0.name", ""} {
		bad := f
		bad.Changes = map[string]json.RawMessage{path: json.RawMessage("1")}
		if _, err := bad.Unfold(base); err == nil {
			t.Errorf("a change of %q was taken", path)
		}
	}
	bad := f
	bad.Changes = map[string]json.RawMessage{"seq": json.RawMessage(`"x"`)}
	if _, err := bad.Unfold(base); err == nil {
		t.Error("a number that is a text was taken")
	}
}

// Every part of the state has a name in JSON: one without would be neither compared nor
// journaled.
func TestEveryPartOfTheStateHasAName(t *testing.T) {
	known, seen := map[string]bool{}, map[reflect.Type]bool{}
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer {
			if typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Struct {
				path += ".*"
			}
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] {
			return
		}
		seen[typ] = true
		for i := range typ.NumField() {
			field := typ.Field(i)
			name := fieldName(field)
			if name == "" && !(typ == reflect.TypeFor[Decision]() && field.Name == "Actions") {
				t.Errorf("%s.%s has no name", path, field.Name)
			}
			if name == "" {
				continue
			}
			known[path+"."+name] = true
			walk(path+"."+name, field.Type)
		}
	}
	walk("", reflect.TypeFor[State]())
	if len(known) < 150 {
		t.Errorf("%d parts: this test sees nothing", len(known))
	}
}

// The list of what may vary is short, and everything else is told.
func TestWhatMattersIsNotQuiet(t *testing.T) {
	base := State{Schema: StateSchema, Phase: Leading}
	base.Store.View.Members = []events.Member{{Name: "pg01", XLogLocation: 7}}
	base.Last.Reason.Rule = "leading/leading"
	ordered := func(a Action) Decision { return Decision{From: Leading, To: Leading, Actions: []Ordered{{Action: a}}} }
	after := base
	after.Seq, after.Now, after.Lease.Sent, after.Postgres.State.Position = 1, 2, 3, 4
	after.Flight = []Flight{{Kind: RenewLease{}.Kind()}}
	after.Store.View.Members = []events.Member{{Name: "pg01", XLogLocation: 8}}
	if !Quiet(base, after, events.Tick{}, ordered(SetTimer{})) {
		t.Error("time and positions are told")
	}
	for name, change := range map[string]func(*State){
		"phase":      func(s *State) { s.Phase = Following },
		"rule":       func(s *State) { s.Last.Reason.Rule = "leading/silent" },
		"status":     func(s *State) { s.Last.Status = "else" },
		"holder":     func(s *State) { s.Holder.Revision = 9 },
		"leader":     func(s *State) { s.Store.View.Leader.Name = "pg02" },
		"member":     func(s *State) { s.Store.View.Members = nil },
		"state word": func(s *State) { s.Store.View.Members = []events.Member{{Name: "pg01", State: "stopped"}} },
		"request":    func(s *State) { s.Store.View.Failover.Version = 3 },
		"operation":  func(s *State) { s.Op = &Flight{Kind: Stop{}.Kind()} },
		"in flight":  func(s *State) { s.Flight = []Flight{{Kind: Promote{}.Kind()}} },
		"failures":   func(s *State) { s.Lease.Failures = 1 },
		"settings":   func(s *State) { s.Settings.Pause = true },
		"running":    func(s *State) { s.Postgres.State.Running = true },
		"timeline":   func(s *State) { s.Postgres.State.Timeline = 2 },
		"keeper":     func(s *State) { s.Keeper.Armed = true },
		"store":      func(s *State) { s.Store.DownSince = 1 },
		"journal":    func(s *State) { s.Journal = "full" },
		"defects":    func(s *State) { s.Defects = 1 },
		"rewinds":    func(s *State) { s.Rejoin.Rewinds = 1 },
		"shutdown":   func(s *State) { s.Shutdown = "SIGTERM" },
	} {
		after := base
		if change(&after); Quiet(base, after, events.Tick{}, ordered(SetTimer{})) {
			t.Errorf("%s may change in silence", name)
		}
	}
	for _, ev := range []events.Event{
		events.RenewalFailed{}, events.LeaseLost{}, events.PostgresDown{}, events.Reconsider{}, events.TimeJumped{}, events.JournalDegraded{},
		events.ActionFinished{Action: RenewLease{}.Kind(), Class: events.Unknown}, events.ActionFinished{Action: Promote{}.Kind(), Class: events.Done},
	} {
		if Quiet(base, after, ev, ordered(SetTimer{})) {
			t.Errorf("%s counts as routine", ev.Kind())
		}
	}
	for _, a := range []Action{Promote{}, AcquireLeader{}, Stop{}, RefreshView{}, SyncSlots{}, Exit{}} {
		if Quiet(base, after, events.Tick{}, ordered(a)) {
			t.Errorf("%s counts as routine", a.Kind())
		}
	}
	fired := Decision{From: Leading, To: Leading, Trigger: Promoted}
	if Quiet(base, after, events.Tick{}, fired) {
		t.Error("a trigger that fired counts as quiet")
	}
	fired.Refused = true
	if Quiet(base, after, events.Tick{}, fired) {
		t.Error("a trigger that was refused counts as quiet")
	}
}
