package fsm

import "testing"

func TestScripts(t *testing.T) {
	if len(runScripts(t)) == 0 {
		t.Fatal("no script visited any state")
	}
}
