package fsm

import (
	"context"
	"errors"
	"fmt"

	looplab "github.com/looplab/fsm"
)

// arbiter answers one question: does the table have this edge? looplab/fsm is
// given no callbacks and no context but Background, because a cancelled context or
// a panicking callback wedges it for good (docs/decisions).
type arbiter struct {
	m *looplab.FSM
}

func newArbiter() *arbiter {
	return &arbiter{m: looplab.NewFSM(string(Init), descriptors(), nil)}
}

// descriptors translates the table for looplab.
func descriptors() looplab.Events {
	var out looplab.Events
	for _, e := range Table() {
		src := make([]string, len(e.From))
		for i, p := range e.From {
			src[i] = string(p)
		}
		out = append(out, looplab.EventDesc{Name: string(e.Trigger), Src: src, Dst: string(e.To)})
	}
	return out
}

// errNoEdge: the table has no such edge.
var errNoEdge = errors.New("no such edge")

// fire returns the phase that t leads to from p.
func (a *arbiter) fire(p Phase, t Trigger) (Phase, error) {
	a.m.SetState(string(p))
	err := a.m.Event(context.Background(), string(t))
	var same looplab.NoTransitionError
	if err != nil && !(errors.As(err, &same) && same.Err == nil) {
		return p, fmt.Errorf("%w: %s in phase %s", errNoEdge, t, p)
	}
	return Phase(a.m.Current()), nil
}

// why returns the table's sentence for the edge.
func why(p Phase, t Trigger) string {
	for _, e := range Table() {
		if e.Trigger != t {
			continue
		}
		for _, f := range e.From {
			if f == p {
				return e.Why
			}
		}
	}
	return ""
}
