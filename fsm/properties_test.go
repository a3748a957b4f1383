package fsm

import (
	"testing"

	"pgregory.net/rapid"
)

// Whatever happens, in whatever order and however often: no panic, no edge refused,
// no invariant broken, no restlessness, no change of the state that was given, always
// a reason and a timer, and a replay from a snapshot decides the same.
func TestAnyStoryIsHandled(t *testing.T) {
	begin := situations(t)
	rapid.Check(t, func(t *rapid.T) {
		w := newWalker(t, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }).from(begin)
		w.run(rapid.IntRange(1, 80).Draw(t, "steps"))
	})
}

func BenchmarkStep(b *testing.B) {
	state := uint32(7)
	w := newWalker(b, func(n int) int {
		state = state*1664525 + 1013904223
		return int(state>>8) % n
	})
	w.run(200)
	entries := samples(&w.s)
	m := New()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Step(w.s, entryFor(&w.s, entries[i%len(entries)]))
	}
}
