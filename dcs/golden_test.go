package dcs_test

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

// The bytes of every key, as they stand in etcd and Consul: what is read from each form
// that was ever written, and what is written. Rewrite with
//
//	go test ./dcs -run Golden -rewrite
//
// and read the difference: Patroni must be able to live with each changed byte.
func TestGoldenBytes(t *testing.T) {
	datadriven.Walk(t, "testdata/bytes", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "read":
				return readBytes(t, d.Input)
			case "member":
				return written(t, d.Input, dcs.EncodeMember)
			case "status":
				prev, next, _ := strings.Cut(d.Input, "\n")
				return written(t, next, func(s dcs.StatusData) []byte { return dcs.EncodeStatus([]byte(prev), s) })
			case "sync":
				return written(t, d.Input, func(s events.Sync) []byte { return dcs.EncodeSync(s.Leader, s.Quorum, s.Standbys) })
			case "failover":
				return written(t, d.Input, dcs.EncodeFailover)
			case "history":
				return written(t, d.Input, dcs.EncodeHistory)
			case "failsafe":
				return written(t, d.Input, dcs.EncodeFailsafe)
			case "patch":
				return patched(d.Input)
			default:
				t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
				return ""
			}
		})
	})
}

// readBytes decodes lines of KEY VALUE, all written at revision 7 under lease L, and prints
// what of a cluster's view they fill.
func readBytes(t *testing.T, input string) string {
	t.Helper()
	v := dcs.View{Revision: 7}
	for line := range strings.Lines(input) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		v.KVs = append(v.KVs, dcs.KV{Key: key, Value: []byte(value), Lease: "L", Created: 7, Version: 7})
	}
	slices.SortFunc(v.KVs, func(a, b dcs.KV) int { return strings.Compare(a.Key, b.Key) })
	empty, full := fields(t, dcs.Decode(dcs.View{Revision: 7})), fields(t, dcs.Decode(v))
	var out []string
	for _, name := range []string{"initialize", "leader", "members", "config", "status", "sync", "failover", "history"} {
		if !bytes.Equal(empty[name], full[name]) {
			out = append(out, fmt.Sprintf("%s %s", name, full[name]))
		}
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, "\n")
}

func fields(t *testing.T, v any) map[string]json.RawMessage {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]json.RawMessage
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// written encodes what the input says, in Go's field names or the event's own.
func written[V any](t *testing.T, input string, encode func(V) []byte) string {
	t.Helper()
	var v V
	dec := json.NewDecoder(strings.NewReader(input))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%s: %v", input, err)
	}
	return string(encode(v))
}

// patched merges the second line into the first.
func patched(input string) string {
	config, patch, _ := strings.Cut(input, "\n")
	merged, changed, err := dcs.PatchConfig([]byte(config), []byte(patch))
	if err != nil {
		return "error: " + err.Error()
	}
	return fmt.Sprintf("changed: %v\n%s", changed, merged)
}
