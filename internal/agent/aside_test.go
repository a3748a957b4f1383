package agent

import (
	"encoding/json"
	"testing"

	"github.com/pgregent/regent/events"
)

// A member that stands aside keeps its own tags, and says to both programs' members that it
// neither takes over nor is to be waited for.
func TestStandingAsideKeepsTheOtherTags(t *testing.T) {
	for raw, want := range map[string]string{
		``:                                      `{"nofailover":true,"nosync":true}`,
		`{"clonefrom":true,"nofailover":false}`: `{"clonefrom":true,"nofailover":true,"nosync":true}`,
	} {
		got := standsAside(events.Tags{CloneFrom: true, FailoverPriority: 1, Raw: json.RawMessage(raw)})
		if string(got.Raw) != want || !got.NoFailover || !got.NoSync || !got.CloneFrom {
			t.Errorf("%s became %+v (%s), want %s", raw, got, got.Raw, want)
		}
	}
}

// Patroni before 2.1 has no status key; a version that isn't one is nobody's.
func TestOldPatronisReadOptime(t *testing.T) {
	for version, want := range map[string]bool{
		"1.6.5": true, "2.0.2": true, "2.1.0": false, "3.0.2": false, "4.1.4": false, "": false, "x": false,
	} {
		if got := readsOptime(events.Member{Version: version}); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
}
