package live

import (
	"strings"
	"testing"
)

func TestEveryScriptIsReadable(t *testing.T) {
	scripts, err := Scripts()
	if err != nil {
		t.Fatal(err)
	}
	if len(scripts) == 0 {
		t.Fatal("there are none")
	}
	for _, s := range scripts {
		if strings.TrimSpace(s.English.Action) == "" {
			t.Errorf("%s: no action", s.Name)
		}
	}
}
