package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// What Patroni wrote is read, and written back as the same bytes. The scripts hold the keys that
// each moment of a live Patroni's life changed (TestPatroniWritesWhatIsRecorded compares them
// with a living one), and show what was read of them, and which bytes Regent would write where
// those are others.
func TestRecordedKeys(t *testing.T) {
	datadriven.Walk(t, "testdata/keys", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "keys" {
				t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
			}
			v := dcs.View{Revision: 7}
			for line := range strings.Lines(d.Input) {
				key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
				v.KVs = append(v.KVs, dcs.KV{Key: key, Value: []byte(value), Lease: "L", Created: 7, Version: 7})
			}
			slices.SortFunc(v.KVs, func(a, b dcs.KV) int { return strings.Compare(a.Key, b.Key) })
			view := dcs.Decode(v)
			var out []string
			for _, kv := range v.KVs {
				out = append(out, kv.Key+" "+readAs(t, view, kv))
				back := writtenBack(t, view, kv)
				if back != nil && !bytes.Equal(back, kv.Value) {
					out = append(out, "  written as "+string(back))
				}
			}
			return strings.Join(out, "\n")
		})
	})
}

// readAs is what was understood of a key, without what every key has.
func readAs(t *testing.T, view events.ClusterView, kv dcs.KV) string {
	t.Helper()
	parts := map[string]any{
		dcs.KeyInitialize: view.Initialize, dcs.KeyLeader: view.Leader, dcs.KeyStatus: view.Status, dcs.KeySync: view.Sync,
		dcs.KeyFailover: view.Failover, dcs.KeyHistory: view.History.Lines, dcs.KeyConfig: view.Config.Version,
	}
	part, ok := parts[kv.Key]
	if name, is := dcs.MemberName(kv.Key); is {
		part, ok = at(t, view, name), true
	}
	if !ok {
		return "is not read"
	}
	text, err := json.Marshal(part)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func at(t *testing.T, view events.ClusterView, name events.NodeName) events.Member {
	t.Helper()
	m, ok := view.Member(name)
	if !ok {
		t.Fatalf("member %s was not read", name)
	}
	return m
}

// writtenBack is the key as Regent writes that state; nil if it never does.
func writtenBack(t *testing.T, view events.ClusterView, kv dcs.KV) []byte {
	t.Helper()
	if name, ok := dcs.MemberName(kv.Key); ok {
		return memberBack(t, at(t, view, name), kv.Value)
	}
	switch kv.Key {
	case dcs.KeyInitialize:
		return dcs.EncodeInitialize(view.Initialize.SystemID)
	case dcs.KeyLeader:
		return []byte(view.Leader.Name)
	case dcs.KeyConfig:
		return configBack(t, kv.Value)
	case dcs.KeyStatus:
		return dcs.EncodeStatus(kv.Value, dcs.StatusData{Optime: view.Status.Optime})
	case dcs.KeySync:
		return dcs.EncodeSync(view.Sync.Leader, view.Sync.Quorum, view.Sync.Standbys)
	case dcs.KeyFailover:
		return dcs.EncodeFailover(view.Failover)
	case dcs.KeyHistory:
		return dcs.EncodeHistory(view.History.Lines)
	case dcs.KeyOptime:
		return dcs.EncodeOptime(dcs.Decode(dcs.View{KVs: []dcs.KV{kv}}).Status.Optime)
	case dcs.KeyFailsafe:
		urls := map[events.NodeName]string{}
		if err := json.Unmarshal(kv.Value, &urls); err != nil {
			t.Fatal(err)
		}
		return dcs.EncodeFailsafe(urls)
	}
	t.Fatalf("%s is a key that nobody knows", kv.Key)
	return nil
}

// configBack is the configuration after a setting was changed and changed back. Agents of both
// programs write it without the blanks that patronictl edit-config leaves in it: those don't count.
func configBack(t *testing.T, value []byte) []byte {
	t.Helper()
	back := value
	for _, patch := range []string{`{"ttl":21}`, `{"ttl":20}`} {
		next, changed, err := dcs.PatchConfig(back, []byte(patch))
		if err != nil || !changed {
			t.Fatalf("patch %s: changed: %v, %v", patch, changed, err)
		}
		back = next
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, value); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(compact.Bytes(), back) {
		return nil
	}
	return back
}

// memberBack writes a member's state as Regent would, with what only its own agent knows taken
// from the recording.
func memberBack(t *testing.T, m events.Member, value []byte) []byte {
	t.Helper()
	var doc struct {
		ScheduledRestart json.RawMessage `json:"scheduled_restart"`
	}
	if err := json.Unmarshal(value, &doc); err != nil {
		t.Fatal(fmt.Errorf("%s: %w", m.Name, err))
	}
	return dcs.EncodeMember(dcs.MemberData{
		ConnURL: m.ConnURL, APIURL: m.APIURL, State: m.State, Role: m.Role, Version: m.Version,
		CheckpointPending: m.CheckpointPending, Tags: dcs.PublishedTags(m.Tags.Raw), PendingRestart: m.PendingRestart,
		XLogLocation: m.XLogLocation, ReceiveLSN: m.ReceiveLSN, ReplayLSN: m.ReplayLSN, ReplicationState: m.ReplicationState,
		Timeline: m.Timeline, Pause: m.Pause, ScheduledRestart: doc.ScheduledRestart,
	})
}
