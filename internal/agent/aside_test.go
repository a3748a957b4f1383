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
