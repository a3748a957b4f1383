package fsm

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/datadriven"

	"github.com/pgregent/regent/events"
)

// Moves between stores in scripts: move=PHASE:EPOCH[:BY[:RUN]] on a line "cluster".

// unremarkable leaves out of an action that it is guarded by the config key as last seen,
// which every race and hand-over is.
func (e *env) unremarkable(action Action) Action {
	seen := e.s.Store.View.Config.Stored()
	switch a := action.(type) {
	case AcquireLeader:
		if a.Config == seen {
			a.Config = 0
		}
		return a
	case HandOver:
		if a.Config == seen {
			a.Config = 0
		}
		return a
	default:
		return action
	}
}

// storeMove reads what the config key says of a move.
func storeMove(spec string, members []string) *events.StoreMove {
	if spec == "" {
		return nil
	}
	f := append(strings.Split(spec, ":"), "", "", "")
	m := &events.StoreMove{Phase: events.MovePhase(f[0]), Epoch: f[1], By: events.NodeName(f[2]), Run: f[3], To: "etcd3"}
	for _, n := range members {
		m.Members = append(m.Members, events.NodeName(n))
	}
	return m
}

// moving is a line about a move: "moving" shows this member's part in it.
func (e *env) moving(*datadriven.TestData) {
	m := e.s.Move
	fmt.Fprintf(&e.out, "epoch=%s reached=%v leads=%v switch=%d unsure=%v switched=%v belief=+%s waits: %s\n", m.Epoch, m.Reached,
		m.Leads, m.Switch, m.Unsure, m.Switched, e.s.beliefEnd().Sub(e.now), orNone(e.waits()))
}

func (e *env) waits() string {
	if e.s.view().Move == nil {
		return ""
	}
	return e.s.moveWaits()
}
