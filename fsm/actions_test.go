package fsm

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pgregent/regent/events"
)

// allActions is one value of every action type.
func allActions() []Action {
	up := events.Upstream{Name: "pg01", Host: "h", Port: 1}
	fence := Fence{Revision: 1, Deadline: 2, Budget: 3, Config: 4}
	return []Action{
		RefreshView{}, GrantLease{TTL: 1}, RenewLease{Lease: "l", Timeout: 1}, AcquireLeader{Lease: "l", Sync: 1, Config: 2, Failsafe: 3},
		ReleaseLeader{Lease: "l", Optime: 1}, HandOver{To: "a", ToLease: "m", Lease: "l", Optime: 1},
		AskPosition{Name: "a", APIURL: "u", At: 1, Timeout: 1}, ProbePeers{Peers: []PeerAddr{{Name: "a", APIURL: "u"}}, Timeout: 1},
		PublishMember{Member: events.Member{Name: "a"}}, ClaimInitialize{}, ClearInitialize{Version: 1},
		WriteInitialize{SystemID: "1", Version: 1}, WriteConfig{JSON: "{}"},
		WriteStatus{Optime: 1, Slots: []SlotPosition{{Name: "s", LSN: 1}}, RetainSlots: []string{"s"}, Lease: "l"},
		WriteHistory{Timeline: 1, Version: 1}, ClearFailover{Version: 1}, RequestFailover{From: "a", To: "b", At: "t"},
		WriteSync{Standbys: []events.NodeName{"a"}, Delete: true, Version: 1, Lease: "l"}, RevokeLease{Lease: "l"}, ObservePostgres{}, Bootstrap{}, PostBootstrap{}, Clone{From: up, Replace: true},
		StartStandby{Upstream: &up}, StartPrimary{Fence: fence}, Stop{Mode: "fast", Checkpoint: true, Patience: 1},
		Promote{Fence: fence, Sync: &events.SyncNames{Hold: true}}, SetSyncNames{Sync: events.SyncNames{Names: []events.NodeName{"a"}}}, Follow{Upstream: &up}, Judge{Upstream: up}, Rewind{Upstream: up}, Checkpoint{},
		SyncSlots{Want: []string{"a"}, Drop: []string{"b"}}, ExtendFence{Fence: fence}, Disarm{Reason: "pause", Config: 1},
		Cancel{ID: events.ActionID{Seq: 1, Index: 2}}, SetTimer{Name: "n", At: 1}, Respond{ID: "i", OK: true, Text: "t", Durable: true},
		Exit{Code: 1, Text: "t"},
		OpenTarget{Epoch: "e"}, ClaimMove{Config: 1, Lease: "l"}, WithdrawMove{Config: 1}, GrantTarget{TTL: 1},
		RenewTarget{Lease: "l", Timeout: 1}, CopyTarget{Epoch: "e", Config: 1, Sync: 2}, AcquireTarget{Lease: "l", Config: 1},
		AskFailsafe{Members: []PeerAddr{{Name: "a", APIURL: "u"}}, TTL: 1, Timeout: 2, ConnURL: "c", APIURL: "u", Slots: []SlotPosition{{Name: "s", LSN: 1}}},
		WriteFailsafe{Members: []events.FailsafeMember{{Name: "a", APIURL: "u"}}, Version: 1, Lease: "l"},
		SwitchStore{Lease: "l", Config: 1, Sync: 2}, SettleMove{Config: 1}, ChangeStore{Epoch: "e"},
	}
}

// declaredActions are the types with a lane, as the source has them.
func declaredActions(t *testing.T) []string {
	var out []string
	for _, name := range []string{"action_kinds.go", "move_actions.go", "failsafe_actions.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name == "lane" {
				out = append(out, f.Recv.List[0].Type.(*ast.Ident).Name)
			}
		}
	}
	return out
}

// Actions are plain data: they come back from JSON as they were, so that a journal or
// a simulator can hold them.
func TestActionsArePlainData(t *testing.T) {
	kinds := map[string]bool{}
	var types []string
	for _, a := range allActions() {
		typ := reflect.TypeOf(a)
		types = append(types, typ.Name())
		if kinds[a.Kind()] || a.Kind() == "" {
			t.Errorf("%s: its kind %q is not its own", typ.Name(), a.Kind())
		}
		kinds[a.Kind()] = true
		if want := strings.ToLower(typ.Name()); strings.ReplaceAll(a.Kind(), "-", "") != want {
			t.Errorf("%s calls itself %s", typ.Name(), a.Kind())
		}
		b, err := json.Marshal(a)
		if err != nil {
			t.Errorf("%s: %v", a.Kind(), err)
			continue
		}
		back := reflect.New(typ)
		if err := json.Unmarshal(b, back.Interface()); err != nil || !reflect.DeepEqual(back.Elem().Interface(), a) {
			t.Errorf("%s became %s, then %+v (%v)", a.Kind(), b, back.Elem().Interface(), err)
		}
		if Operation(a) && Silent(a) {
			t.Errorf("%s works on PostgreSQL, and nobody would learn how it ended", a.Kind())
		}
		if Operation(a) && Stored(a) {
			t.Errorf("%s is said to work on PostgreSQL and on the store", a.Kind())
		}
	}
	declared := declaredActions(t)
	slices.Sort(declared)
	slices.Sort(types)
	if !slices.Equal(declared, types) {
		t.Errorf("this test knows %v, the source %v", types, declared)
	}
}

// What makes a server writable, and what only the holder may write, says which lease
// it stands under and until when, so that an executor can give up in time.
func TestActionsUnderTheLeaseSaySo(t *testing.T) {
	for _, a := range allActions() {
		s := State{Now: 100, Settings: events.Settings{TTL: 10e9}, Lease: Lease{ID: "mine", TTL: 10e9, Trust: 10e9, Sent: 50}}
		e := &effects{State: &s, entry: events.Entry{Seq: 7}}
		e.order(a)
		o := e.out[0]
		bound := slices.Contains([]string{
			"start-primary", "promote", "hand-over", "write-status", "write-history", "write-sync", "write-failsafe", "set-sync-names", "extend-fence",
		}, a.Kind())
		if bound != (o.Needs == "mine") || bound != (o.Until == s.beliefEnd()) {
			t.Errorf("%s: needs %q until %d", a.Kind(), o.Needs, o.Until)
		}
		if o.ID != (events.ActionID{Seq: 7}) {
			t.Errorf("%s has the id %+v", a.Kind(), o.ID)
		}
		if inFlight := len(s.Flight) == 1; inFlight == Silent(a) {
			t.Errorf("%s: an outcome is awaited: %v", a.Kind(), inFlight)
		}
	}
}

func TestOneOperationSupersedesAnother(t *testing.T) {
	s := State{Now: 100}
	e := &effects{State: &s, entry: events.Entry{Seq: 7}}
	e.operate(Judge{})
	first := e.Op.ID
	e.operate(Stop{Mode: "fast"})
	if len(e.out) != 3 || e.out[1].Action != (Cancel{ID: first}) || e.out[2].Action.Kind() != (Stop{}).Kind() {
		t.Fatalf("ordered %+v", e.out)
	}
	if e.inFlightID(Flight{ID: first}) || e.Op.ID != e.out[2].ID || len(s.Flight) != 1 {
		t.Errorf("after it: operation %+v, in flight %+v", e.Op, s.Flight)
	}
}

func TestSlotNamesArePatronis(t *testing.T) {
	for name, want := range map[events.NodeName]string{
		"pg01": "pg01", "PG-01.example": "pg_01_example", "knoten_ä": "knoten_u0228", "a b": "au0032b",
	} {
		if got := SlotName(name); got != want {
			t.Errorf("%q: slot %q, not %q", name, got, want)
		}
	}
	long := SlotName(events.NodeName(strings.Repeat("x", 100)))
	if len(long) != 63 {
		t.Errorf("a slot's name has %d characters", len(long))
	}
}

func TestADecisionIsComparedInWords(t *testing.T) {
	a := Derived{From: Following, To: Racing, Trigger: LeaderGone, Rule: "r", Text: "t", Actions: []string{"follow"}, Digest: "1"}
	if diff := a.Differ(a); diff != "" {
		t.Errorf("the same differs: %s", diff)
	}
	for _, change := range []func(*Derived){
		func(d *Derived) { d.To = Following }, func(d *Derived) { d.Trigger = "" }, func(d *Derived) { d.Text = "other" },
		func(d *Derived) { d.Actions = nil }, func(d *Derived) { d.Digest = "2" },
	} {
		b := a
		change(&b)
		if a.Differ(b) == "" {
			t.Errorf("no difference is seen to %+v", b)
		}
	}
	if first, again := TableHash(), TableHash(); first == "" || first != again {
		t.Error("the table's hash is not stable")
	}
}
