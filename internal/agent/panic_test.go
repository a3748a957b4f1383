package agent_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/internal/agent"
	"github.com/pgregent/regent/internal/replay"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// TestPanicEndsTheAgentAndLeavesAGuardedServer: the process ends with an error, the
// journal says why, the server stays armed, and the next run adopts it.
func TestPanicEndsTheAgentAndLeavesAGuardedServer(t *testing.T) {
	needsPostgres(t)
	w := newWorld(t)
	n := w.add("pg01")
	n.await("bootstrap", leading)
	before := n.agent.Snapshot().Postgres.State.PID
	n.panics.Store(true)
	n.agent.Reload()
	err := <-n.done
	if !errors.Is(err, agent.ErrPanic) || !strings.Contains(err.Error(), "injected") {
		t.Errorf("the agent ended with %v", err)
	}
	st, err := keeper.Peek(t.Context(), n.run)
	if err != nil || !st.Alive || st.Armed == nil {
		t.Errorf("the keeper says %+v, %v: the server is not guarded", st, err)
	}
	n.kill()
	told := false
	for e, err := range journal.Read(n.jdir) {
		if err != nil {
			t.Fatal(err)
		}
		told = told || e.Kind == replay.KindPanic && strings.Contains(string(e.Payload), "injected")
	}
	if !told {
		t.Error("the journal doesn't tell of the panic")
	}
	n.start()
	n.await("adoption", leading)
	if pid := n.agent.Snapshot().Postgres.State.PID; pid != before {
		t.Errorf("PostgreSQL was restarted: pid %d became %d", before, pid)
	}
	w.allReplay()
}
