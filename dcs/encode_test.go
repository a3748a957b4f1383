package dcs_test

import (
	"encoding/json"
	"testing"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// The expected bytes are what Patroni 4.1 and 3.0 write for the same content.
func TestEncodedMembersAreByteEqualToPatronis(t *testing.T) {
	replica := dcs.MemberData{
		ConnURL: "postgres://127.0.0.1:15432/postgres", APIURL: "http://127.0.0.1:18002/patroni",
		State: "running", Role: "replica", Version: "4.1.4",
		Tags:         json.RawMessage(`{"clonefrom": true}`),
		XLogLocation: 83886176, ReplayLSN: 83886176, ReceiveLSN: 83886176,
		ReplicationState: "streaming", Timeline: 1,
	}
	full := dcs.MemberData{
		ConnURL: "postgres://[::1]:5432/app", APIURL: "https://db1:8008/patroni",
		State: "running", Role: "primary", Version: "4.1.4", ProxyURL: "postgres://lb:6432/app",
		CheckpointPending: true, Tags: json.RawMessage(`{"b":1,"a":"x"}`),
		PendingRestart:       true,
		PendingRestartReason: json.RawMessage(`{"max_connections":{"old_value":"100","new_value":"200"}}`),
		XLogLocation:         1 << 40, Timeline: 7,
		ScheduledRestart: json.RawMessage(`{"schedule":"2030-01-01T00:00:00+00:00","postmaster_start_time":null}`),
		Pause:            true, Regent: "0.1.0", HandOff: "ab12",
		Extra: []dcs.Field{{Name: "zone", Value: json.RawMessage(`"a"`)}},
	}
	tests := map[string]struct {
		in   dcs.MemberData
		want string
	}{
		"replica of 4.1": {replica, `{"conn_url":"postgres://127.0.0.1:15432/postgres","api_url":"http://127.0.0.1:18002/patroni","state":"running","role":"replica","version":"4.1.4","tags":{"clonefrom":true},"xlog_location":83886176,"replay_lsn":83886176,"receive_lsn":83886176,"replication_state":"streaming","timeline":1}`},
		"replica of 3.0, restart pending": {dcs.MemberData{
			ConnURL: "postgres://127.0.0.1:25432/postgres", APIURL: "http://127.0.0.1:28008/patroni",
			State: "running", Role: "replica", Version: "3.0.2", PendingRestart: true, XLogLocation: 100663624, Timeline: 3,
		}, `{"conn_url":"postgres://127.0.0.1:25432/postgres","api_url":"http://127.0.0.1:28008/patroni","state":"running","role":"replica","version":"3.0.2","pending_restart":true,"xlog_location":100663624,"timeline":3}`},
		"every field":   {full, `{"conn_url":"postgres://[::1]:5432/app","api_url":"https://db1:8008/patroni","state":"running","role":"primary","version":"4.1.4","proxy_url":"postgres://lb:6432/app","checkpoint_after_promote":false,"tags":{"b":1,"a":"x"},"pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"200"}},"xlog_location":1099511627776,"timeline":7,"scheduled_restart":{"schedule":"2030-01-01T00:00:00+00:00","postmaster_start_time":null},"pause":true,"regent":"0.1.0","regent_lease":"ab12","zone":"a"}`},
		"nothing known": {dcs.MemberData{}, `{"conn_url":"","api_url":"","state":"","role":"","version":""}`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := string(dcs.EncodeMember(tc.in)); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestOtherKeysAreByteEqualToPatronis(t *testing.T) {
	tests := []struct{ name, got, want string }{
		{"status", string(dcs.EncodeStatus(nil, dcs.StatusData{
			Optime: 117440840, Slots: map[string]events.LSN{"pg01": 5, "pg00": 117440840}, RetainSlots: []string{"pg01", "pg00"},
		})), `{"optime":117440840,"slots":{"pg00":117440840,"pg01":5},"retain_slots":["pg00","pg01"]}`},
		{"status, position only", string(dcs.EncodeStatus(nil, dcs.StatusData{Optime: 7})), `{"optime":7}`},
		{"status keeps what it isn't told", string(dcs.EncodeStatus(
			[]byte(`{"optime": 3, "retain_slots": ["a"], "slots": {"a": 3}, "other": [1]}`), dcs.StatusData{Optime: 7})),
			`{"optime":7,"slots":{"a":3},"retain_slots":["a"],"other":[1]}`},
		{"status over the old integer form", string(dcs.EncodeStatus([]byte(`12`), dcs.StatusData{Optime: 13})), `{"optime":13}`},
		{"optime", string(dcs.EncodeOptime(24399856)), `24399856`},
		{"sync", string(dcs.EncodeSync("pg01", 0, []events.NodeName{"pg03", "pg02"})), `{"leader":"pg01","quorum":0,"sync_standby":"pg02,pg03"}`},
		{"sync, nobody", string(dcs.EncodeSync("n2", 0, nil)), `{"leader":"n2","quorum":0,"sync_standby":null}`},
		{"failover", string(dcs.EncodeFailover(events.FailoverRequest{Leader: "a", Candidate: "b", ScheduledAt: "2030-01-01T00:00:00+00:00"})), `{"leader":"a","member":"b","scheduled_at":"2030-01-01T00:00:00+00:00"}`},
		{"failover, none", string(dcs.EncodeFailover(events.FailoverRequest{})), `{}`},
		{"history", string(dcs.EncodeHistory([]events.HistoryLine{
			{Timeline: 1, LSN: 84170568, Reason: "no recovery target specified", Timestamp: "2026-11-22T21:55:25.804408+00:00", NewLeader: "n2"},
			{Timeline: 2, LSN: 9, Reason: "r", Timestamp: "t"}, {Timeline: 3, LSN: 10, Reason: "r"},
		})), `[[1,84170568,"no recovery target specified","2026-11-22T21:55:25.804408+00:00","n2"],[2,9,"r","t"],[3,10,"r"]]`},
		{"history, timeline 1", string(dcs.EncodeHistory(nil)), `[]`},
		{"failsafe", string(dcs.EncodeFailsafe(map[events.NodeName]string{"b": "http://b", "a": "http://a"})), `{"a":"http://a","b":"http://b"}`},
		{"initialize", string(dcs.EncodeInitialize("7711117251884910253")), `7711117251884910253`},
		{"escapes", string(dcs.EncodeSync("nö\"\\\n\x7f<&>😀", 0, nil)), `{"leader":"n\u00f6\"\\\n\u007f<&>\ud83d\ude00","quorum":0,"sync_standby":null}`},
	}
	for _, tc := range tests {
		if tc.got != tc.want {
			t.Errorf("%s: got  %s\nwant %s", tc.name, tc.got, tc.want)
		}
	}
}

func TestPublishedTagsHideFlagsThatAreOff(t *testing.T) {
	tests := []struct{ in, want string }{
		{`{"nofailover":false,"noloadbalance":false,"clonefrom":false,"nosync":false}`, ``},
		{`{"nofailover":false,"failover_priority":"1","zone":"a"}`, `{"nofailover":false,"failover_priority":"1","zone":"a"}`},
		{`{"nosync":false,"sync_priority":2,"nostream":true}`, `{"nosync":false,"sync_priority":2,"nostream":true}`},
		{`[]`, ``}, {``, ``},
	}
	for _, tc := range tests {
		if got := string(dcs.PublishedTags(json.RawMessage(tc.in))); got != tc.want {
			t.Errorf("tags %s: got %s, want %s", tc.in, got, tc.want)
		}
	}
}

func TestPatchConfigMergesLikePatroni(t *testing.T) {
	base := `{"ttl":30,"postgresql":{"parameters":{"a":"100","z":1},"use_slots":true},"list":[1,"x"],"none":null}`
	tests := []struct {
		name, patch, want string
		changed           bool
	}{
		{"replace and add", `{"ttl":20,"new":{"x":null}}`,
			`{"ttl":20,"postgresql":{"parameters":{"a":"100","z":1},"use_slots":true},"list":[1,"x"],"none":null,"new":{"x":null}}`, true},
		{"deep merge and removal", `{"postgresql":{"parameters":{"z":null,"b":2}}}`,
			`{"ttl":30,"postgresql":{"parameters":{"a":"100","b":2},"use_slots":true},"list":[1,"x"],"none":null}`, true},
		{"same text, other type", `{"ttl":"30","postgresql":{"parameters":{"a":100},"use_slots":"True"},"list":[1,"x"]}`, base, false},
		{"removing what isn't there", `{"absent":null}`, base, false},
		{"removing a null is no change", `{"none":null}`,
			`{"ttl":30,"postgresql":{"parameters":{"a":"100","z":1},"use_slots":true},"list":[1,"x"]}`, false},
		{"mapping over scalar", `{"ttl":{"a":1}}`,
			`{"ttl":{"a":1},"postgresql":{"parameters":{"a":"100","z":1},"use_slots":true},"list":[1,"x"],"none":null}`, true},
		{"lists replace", `{"list":[1]}`,
			`{"ttl":30,"postgresql":{"parameters":{"a":"100","z":1},"use_slots":true},"list":[1],"none":null}`, true},
		{"floats by value", `{"ttl":30.0}`,
			`{"ttl":30.0,"postgresql":{"parameters":{"a":"100","z":1},"use_slots":true},"list":[1,"x"],"none":null}`, true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, changed, err := dcs.PatchConfig([]byte(base), []byte(tc.patch))
			if err != nil || string(got) != tc.want || changed != tc.changed {
				t.Errorf("changed %v, err %v\ngot  %s\nwant %s", changed, err, got, tc.want)
			}
		})
	}
	for _, bad := range [][2]string{{`[]`, `{}`}, {`{}`, `1`}, {`{`, `{}`}, {`{}`, `{"a"`}} {
		if _, _, err := dcs.PatchConfig([]byte(bad[0]), []byte(bad[1])); err == nil {
			t.Errorf("patch %s over %s: no error", bad[1], bad[0])
		}
	}
}
