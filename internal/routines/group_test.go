package routines

import (
	"sync/atomic"
	"testing"
)

func TestNobodyStartsAfterCloseAndWaitWaitsForTheOthers(t *testing.T) {
	var g Group
	var ended atomic.Bool
	hold := make(chan struct{})
	if !g.Start(func() { <-hold; ended.Store(true) }) {
		t.Fatal("an open group starts nobody")
	}
	g.Close()
	if g.Start(func() { t.Error("this must not run") }) {
		t.Error("a closed group says that it has started somebody")
	}
	close(hold)
	if g.Wait(); !ended.Load() {
		t.Error("it did not wait")
	}
}
