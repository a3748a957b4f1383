package dcs_test

import (
	"reflect"
	"testing"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

func moveIn(config string) events.ClusterView {
	return dcs.Decode(dcs.View{Revision: 9, KVs: []dcs.KV{{Key: dcs.KeyConfig, Value: []byte(config), Version: 7}}})
}

func TestAMoveIsWrittenBesideEverythingElse(t *testing.T) {
	m := &events.StoreMove{
		Epoch: "e1", Phase: events.MoveBoth, To: "etcd3 a:2379", Members: []events.NodeName{"pg01", "pg02"}, By: "pg01", Run: "r1",
	}
	for _, c := range []struct{ before, after string }{
		{`{"ttl":30}`, `{"ttl":30}`},
		{`{"regent":{"raft":{"x":1}},"ttl":30}`, `{"regent":{"raft":{"x":1}},"ttl":30}`},
		{``, `{}`},
		{`[1]`, `{}`},
	} {
		with := dcs.EncodeMove([]byte(c.before), m)
		if got := moveIn(string(with)).Move; !reflect.DeepEqual(got, m) {
			t.Errorf("%s became %s, which reads %+v", c.before, with, got)
		}
		if got := string(dcs.EncodeMove(with, nil)); got != c.after {
			t.Errorf("%s: without the move it is %s, not %s", c.before, got, c.after)
		}
	}
}

func TestWhatIsNoMoveIsNone(t *testing.T) {
	for _, config := range []string{``, `{}`, `[]`, `{"regent":1}`, `{"regent":{"move":null}}`, `{"regent":{"move":"x"}}`} {
		if m := moveIn(config).Move; m != nil {
			t.Errorf("%q says %+v", config, m)
		}
	}
	if m := moveIn(`{"regent":{"move":{"phase":"later"}}}`).Move; m == nil || m.Phase != "later" {
		t.Errorf("a phase of a later version reads %+v", m)
	}
}

// The guard of a race names the config key as it is, also when nobody can read it.
func TestAConfigThatIsNoMappingHasAVersionForGuards(t *testing.T) {
	for config, want := range map[string]events.Revision{`{}`: 7, `x`: 7, `[]`: 7} {
		if got := moveIn(config).Config.Stored(); got != want {
			t.Errorf("%s is guarded at %d", config, got)
		}
	}
	if got := dcs.Decode(dcs.View{}).Config.Stored(); got != 0 {
		t.Errorf("an absent one is guarded at %d", got)
	}
}
