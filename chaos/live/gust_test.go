package live

import (
	"strings"
	"testing"

	"github.com/pgregent/regent/internal/sandbox"
)

// Every gust is a script, the same one each time, and every strain occurs.
func TestGustsAreScriptsAndUseTheWholeVocabulary(t *testing.T) {
	all := func(Need) error { return nil }
	for _, store := range sandbox.StoreKinds() {
		var told strings.Builder
		for n := range uint64(300) {
			text := gust(7, n, store, n%2 == 0, all)
			if again := gust(7, n, store, n%2 == 0, all); again != text {
				t.Fatalf("gust %d is another one the second time:\n%s\n%s", n, text, again)
			}
			if _, err := Parse("gust", text); err != nil {
				t.Fatalf("gust %d: %v\n%s", n, err, text)
			}
			told.WriteString(text)
			// The agents of both replicas are the embedded store: nothing else happens then.
			faults := strings.Count(text, "\ndo ") - strings.Count(text, "\ndo        wait ")
			if store == sandbox.RaftStore && strings.Contains(text, "stop the store") && faults != 2 {
				t.Errorf("the embedded store is stopped, and something else is done:\n%s", text)
			}
		}
		for _, s := range strains() {
			if begin, _, _ := strings.Cut(s.begin, "X"); !strings.Contains(told.String(), begin) {
				t.Errorf("%s: no gust has %q", store, s.begin)
			}
		}
	}
}

func TestAGustWithoutCablesCutsNone(t *testing.T) {
	for n := range uint64(200) {
		text := gust(7, n, sandbox.Etcd3Store, false, func(need Need) error {
			if need == Cables {
				return errNoHosts
			}
			return nil
		})
		for _, word := range []string{"cut ", "heal ", "slow "} {
			if strings.Contains(text, "do        "+word) {
				t.Fatalf("gust %d:\n%s", n, text)
			}
		}
	}
}
