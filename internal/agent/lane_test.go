package agent

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/pgregent/regent/events"
)

// laneWorld is a lane that runs inside a bubble until the test ends it.
type laneWorld struct {
	*lane
	said []string // owned by whoever runs in the bubble, one at a time
	stop context.CancelFunc
	gone chan struct{}
}

func newLaneWorld(t *testing.T) *laneWorld {
	ctx, stop := context.WithCancel(t.Context())
	w := &laneWorld{lane: newLane(), stop: stop, gone: make(chan struct{})}
	go func() {
		defer close(w.gone)
		w.run(ctx)
	}()
	return w
}

func (w *laneWorld) end() {
	w.stop()
	<-w.gone
}

func id(seq uint64) events.ActionID { return events.ActionID{Seq: seq} }

// untilCancelled runs until it is cancelled, and then returns as slowly as it likes.
func (w *laneWorld) untilCancelled(name string, slow <-chan struct{}) func(context.Context) {
	return func(ctx context.Context) {
		w.said = append(w.said, name+" begins")
		<-ctx.Done()
		<-slow
		w.said = append(w.said, name+" ends")
	}
}

func (w *laneWorld) at(name string) func(context.Context) {
	return func(ctx context.Context) {
		if ctx.Err() != nil {
			name += " cancelled"
		}
		w.said = append(w.said, name)
	}
}

func (w *laneWorld) heard(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if len(w.said) != len(want) {
		t.Fatalf("%q, want %q", w.said, want)
	}
	for i := range want {
		if w.said[i] != want[i] {
			t.Fatalf("%q, want %q", w.said, want)
		}
	}
}

func TestLaneLetsACancelledOperationReturnFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLaneWorld(t)
		defer w.end()
		slow := make(chan struct{})
		w.enqueue(operation{id: id(1), run: w.untilCancelled("start", slow)})
		w.heard(t, "start begins")
		w.cancel(id(1))
		w.enqueue(operation{id: id(2), run: w.at("stop")})
		w.heard(t, "start begins")
		close(slow)
		w.heard(t, "start begins", "start ends", "stop")
	})
}

func TestLaneForgetsAWaitingOperationThatIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLaneWorld(t)
		defer w.end()
		none := make(chan struct{})
		close(none)
		w.enqueue(operation{id: id(1), run: w.untilCancelled("start", none)})
		w.heard(t, "start begins")
		w.enqueue(operation{id: id(2), run: w.at("follow")})
		w.enqueue(operation{id: id(3), run: w.at("stop")})
		w.cancel(id(2))
		w.cancel(id(7)) // unknown, or ended long ago
		w.cancel(id(1))
		w.heard(t, "start begins", "start ends", "stop")
		w.cancel(id(3))
		w.enqueue(operation{id: id(4), run: w.at("judge")})
		w.heard(t, "start begins", "start ends", "stop", "judge")
	})
}

// TestLaneDoesNotLetAStopWaitBehindAConfiguration: what can be tried again yields.
func TestLaneDoesNotLetAStopWaitBehindAConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLaneWorld(t)
		defer w.end()
		none := make(chan struct{})
		close(none)
		w.enqueue(operation{yields: true, run: w.untilCancelled("configure", none)})
		w.heard(t, "configure begins")
		w.enqueue(operation{yields: true, run: w.at("configure again")})
		w.heard(t, "configure begins")
		w.enqueue(operation{id: id(1), run: w.at("stop")})
		w.heard(t, "configure begins", "configure ends", "configure again", "stop")
	})
}

func TestLaneEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newLaneWorld(t)
		none := make(chan struct{})
		close(none)
		w.enqueue(operation{id: id(1), run: w.untilCancelled("start", none)})
		w.enqueue(operation{id: id(2), run: w.at("never")})
		synctest.Wait()
		w.end()
		w.heard(t, "start begins", "start ends")
	})
}
