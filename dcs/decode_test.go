package dcs_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

func view(pairs ...string) dcs.View {
	v := dcs.View{Revision: 100}
	for i := 0; i < len(pairs); i += 2 {
		v.KVs = append(v.KVs, dcs.KV{
			Key: pairs[i], Value: []byte(pairs[i+1]), Created: events.Revision(i + 1), Version: events.Revision(i + 2), Lease: "L",
		})
	}
	return v
}

func TestDecodeReadsWhatTheEncodersWrite(t *testing.T) {
	request := events.FailoverRequest{Leader: "a", Candidate: "b", ScheduledAt: "2030-01-01T00:00:00Z"}
	lines := []events.HistoryLine{{Timeline: 1, LSN: 5, Reason: "r", Timestamp: "t", NewLeader: "b"}}
	got := dcs.Decode(view(
		"config", `{"ttl":30}`,
		"failover", string(dcs.EncodeFailover(request)),
		"history", string(dcs.EncodeHistory(lines)),
		"initialize", "7711117251884910253",
		"leader", "a",
		"members/b", string(dcs.EncodeMember(dcs.MemberData{
			ConnURL: "postgres://h:1/d", APIURL: "http://h:2/patroni", State: "running", Role: "replica",
			Version: "4.1.4", CheckpointPending: true, XLogLocation: 9, Timeline: 2, ReplicationState: "streaming",
			Tags: json.RawMessage(`{"zone":"x","clonefrom":true}`), Pause: true, PendingRestart: true,
			Regent: "0.1.0", HandOff: "l1",
		})),
		"members/a", `{"state":"running","role":"master"}`,
		"status", string(dcs.EncodeStatus(nil, dcs.StatusData{Optime: 42, RetainSlots: []string{"b", "a"}})),
		"sync", string(dcs.EncodeSync("a", 1, []events.NodeName{"b", "c"})),
	))
	want := events.ClusterView{
		Revision:   100,
		Config:     events.DynamicConfig{Version: 2, Raw: json.RawMessage(`{"ttl":30}`)},
		Failover:   events.FailoverRequest{Version: 4, Leader: "a", Candidate: "b", ScheduledAt: "2030-01-01T00:00:00Z"},
		History:    events.History{Version: 6, Lines: lines, Raw: dcs.EncodeHistory(lines)},
		Initialize: events.Initialize{Version: 8, SystemID: "7711117251884910253"},
		Leader:     events.Leader{Name: "a", Lease: "L", Created: 9, Version: 10},
		Members: []events.Member{
			{Name: "a", Lease: "L", State: "running", Role: "master", Tags: events.Tags{FailoverPriority: 1}},
			{
				Name: "b", Lease: "L", ConnURL: "postgres://h:1/d", APIURL: "http://h:2/patroni", State: "running",
				Role: "replica", Version: "4.1.4", Regent: "0.1.0", HandOff: "l1", XLogLocation: 9, Timeline: 2,
				ReplicationState: "streaming", CheckpointPending: true, PendingRestart: true, Pause: true,
				Tags: events.Tags{FailoverPriority: 1, CloneFrom: true, Raw: json.RawMessage(`{"clonefrom":true,"zone":"x"}`)},
			},
		},
		Status: events.Status{Version: 16, Optime: 42, RetainSlots: []string{"a", "b"}},
		Sync:   events.Sync{Version: 18, Leader: "a", Standbys: []events.NodeName{"b", "c"}, Quorum: 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDecodeReadsOldForms(t *testing.T) {
	v := dcs.Decode(view("members/a", "postgres://h:5432/postgres?application_name=http://h:8008/patroni"))
	if m := v.Members[0]; m.ConnURL != "postgres://h:5432/postgres" || m.APIURL != "http://h:8008/patroni" {
		t.Errorf("member in URL form: %+v", m)
	}
	if v := dcs.Decode(view("status", "1234")); v.Status.Optime != 1234 {
		t.Errorf("status as an integer: %+v", v.Status)
	}
	if v := dcs.Decode(view("optime/leader", "77")); v.Status.Optime != 77 || v.Status.Version != 0 {
		t.Errorf("optime/leader: %+v", v.Status)
	}
	if v := dcs.Decode(view("optime/leader", "77", "status", "x")); v.Status.Optime != 0 {
		t.Errorf("an unreadable status falls back to an older key: %+v", v.Status)
	}
	if v := dcs.Decode(view("status", `{"optime":"5","retain_slots":"[\"b\"]"}`)); v.Status.Optime != 5 || len(v.Status.RetainSlots) != 1 {
		t.Errorf("status with texts: %+v", v.Status)
	}
	if f := dcs.Decode(view("failover", "a: b")).Failover; f.Leader != "a" || f.Candidate != "b" {
		t.Errorf("failover as text: %+v", f)
	}
	if f := dcs.Decode(view("failover", ":b")).Failover; f.Leader != "" || f.Candidate != "b" {
		t.Errorf("failover as text without a leader: %+v", f)
	}
	h := dcs.Decode(view("history", `[[1,5,"r"],[2,"6","r","t"],[3,7,"r","t","b"]]`)).History
	if len(h.Lines) != 3 || h.Lines[1].LSN != 6 || h.Lines[1].Timestamp != "t" || h.Timeline() != 4 {
		t.Errorf("history of three widths: %+v", h)
	}
	if h := dcs.Decode(view("history", `[]`)).History; h.Timeline() != 1 {
		t.Errorf("empty history: timeline %d, want 1", h.Timeline())
	}
	if s := dcs.Decode(view("sync", `{"leader":"a","sync_standby":" B ,c"}`)).Sync; len(s.Standbys) != 2 || s.Standbys[0] != "B" {
		t.Errorf("sync of 3.x: %+v", s)
	}
}

func TestDecodeTakesGarbageForEmpty(t *testing.T) {
	for _, bad := range []string{"", "x", "[", "{", "null", "[1]", `"a"`, "1.5e999", `{"a":`, "\xff\xfe", strings.Repeat("[", 5000)} {
		v := dcs.Decode(view("config", bad, "failover", bad, "history", bad, "initialize", "", "members/a", bad,
			"members/a/b", "{}", "status", bad, "sync", bad, "unknown", bad))
		if v.Failover.Pending() || v.Sync.Leader != "" || v.Status.Optime > 1 || v.Config.Version != 0 || len(v.History.Lines) != 0 {
			t.Errorf("value %.20q: %+v", bad, v)
		}
		if len(v.Members) != 1 || v.Members[0].APIURL != "" || v.Members[0].Tags.FailoverPriority != 1 {
			t.Errorf("value %.20q: members %+v", bad, v.Members)
		}
	}
	if h := dcs.Decode(view("history", `[[1,5,"r"],["x"]]`)).History; h.Timeline() != 0 {
		t.Errorf("history whose last line can't be read: timeline %d, want 0 (unknown)", h.Timeline())
	}
}

func TestTagsOverrideEachOther(t *testing.T) {
	tests := []struct {
		tags                string
		noFailover, noSync  bool
		priority            int
		cloneFrom, nostream bool
	}{
		{`{}`, false, false, 1, false, false},
		{`{"nofailover":"yes","nosync":true}`, true, true, 1, false, false},
		{`{"failover_priority":0,"sync_priority":-1}`, true, true, 0, false, false},
		{`{"failover_priority":"5"}`, false, false, 5, false, false},
		{`{"failover_priority":0,"nofailover":false,"sync_priority":0,"nosync":false}`, false, false, 0, false, false},
		{`{"clonefrom":"On","nostream":1}`, false, false, 1, true, true},
		{`{"clonefrom":"maybe","nostream":0}`, false, false, 1, false, false},
	}
	for _, tc := range tests {
		got := dcs.Decode(view("members/a", `{"tags":`+tc.tags+`}`)).Members[0].Tags
		if got.NoFailover != tc.noFailover || got.NoSync != tc.noSync || got.FailoverPriority != tc.priority ||
			got.CloneFrom != tc.cloneFrom || got.NoStream != tc.nostream {
			t.Errorf("tags %s: %+v", tc.tags, got)
		}
	}
}

// S17: the bootstrapper's name counts only while the claim it came with stands.
func TestBootstrapperIsKnownOnlyByItsOwnClaim(t *testing.T) {
	claim := dcs.ClaimInitialize("pg01")
	v := dcs.View{}
	for _, w := range claim.Writes {
		v.KVs = append(v.KVs, dcs.KV{Key: w.Key, Value: w.Value, Created: 7, Version: 7})
	}
	if got := dcs.Decode(v).Initialize; got.By != "pg01" || got.SystemID != "" || got.Version != 7 {
		t.Errorf("own claim: %+v", got)
	}
	for i := range v.KVs {
		if v.KVs[i].Key == dcs.KeyInitialize {
			v.KVs[i].Version = 8 // someone else, a Patroni, wrote an empty key since
		}
	}
	if got := dcs.Decode(v).Initialize; got.By != "" {
		t.Errorf("a later claim of somebody else is ascribed to %q", got.By)
	}
}

func TestTxnValidate(t *testing.T) {
	ok := dcs.Txn{Guards: []dcs.Guard{{Key: "a", Absent: true}}, Writes: []dcs.Write{dcs.Put("a", nil)}}
	if err := ok.Validate(); err != nil {
		t.Error(err)
	}
	w := dcs.Put("a", nil)
	for name, txn := range map[string]dcs.Txn{
		"no write":       {},
		"four writes":    {Writes: []dcs.Write{w, dcs.Put("b", nil), dcs.Put("c", nil), dcs.Put("d", nil)}},
		"one key twice":  {Writes: []dcs.Write{w, w}},
		"no condition":   {Guards: []dcs.Guard{{Key: "a"}}, Writes: []dcs.Write{w}},
		"absent, leased": {Guards: []dcs.Guard{{Key: "a", Absent: true, Lease: "l"}}, Writes: []dcs.Write{w}},
		"empty key":      {Writes: []dcs.Write{dcs.Put("", nil)}},
		"rooted key":     {Writes: []dcs.Write{dcs.Put("/a", nil)}},
	} {
		if err := txn.Validate(); dcs.ClassOf(err) != events.Unavailable || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBasePathCollapsesSlashes(t *testing.T) {
	for in, want := range map[[2]string]string{
		{"service", "pg"}: "/service/pg/", {"/service/", "pg"}: "/service/pg/", {"//a//b", "pg"}: "/a/b/pg/", {"", "pg"}: "/pg/",
	} {
		if got := dcs.BasePath(in[0], in[1]); got != want {
			t.Errorf("BasePath(%q, %q) = %q, want %q", in[0], in[1], got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "{}", "[]", "a:b", `{"leader":"a","member":"b"}`, `[[1,5,"r"]]`, "postgres://h/d?application_name=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v := dcs.Decode(view("config", s, "failover", s, "history", s, "initialize", s, "leader", s, "members/a", s,
			"status", s, "sync", s, "optime/leader", s, "regent/bootstrap", s))
		if _, err := json.Marshal(v); err != nil {
			t.Fatalf("the decoded view doesn't encode: %v", err)
		}
		if merged, _, err := dcs.PatchConfig([]byte(`{"a":{"b":1}}`), []byte(s)); err == nil && !json.Valid(merged) {
			t.Fatalf("patched configuration is no JSON: %s", merged)
		}
	})
}
