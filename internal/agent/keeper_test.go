package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// keeperPID asks the member's keeper, beside its agent.
func (n *node) keeperPID() int {
	n.t.Helper()
	st, err := keeper.Peek(n.t.Context(), n.run)
	if err != nil {
		n.t.Fatalf("%s: ask the keeper: %v", n.name, err)
	}
	return st.KeeperPID
}

func signal(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("send %s to %d: %v", sig, pid, err)
	}
}

// primaries lists the members whose server takes writes, by their own word.
func primaries(nodes []*node) (names []string) {
	for _, n := range nodes {
		n.mu.Lock()
		a := n.agent
		n.mu.Unlock()
		if a == nil {
			continue
		}
		if p := a.Snapshot().Postgres.State; p.Running && p.Ready && !p.InRecovery {
			names = append(names, string(n.name))
		}
	}
	return names
}

// TestKeeperKilledAtThePrimary: S4. The server goes down with its keeper; a new keeper
// guards it when it is writable again, here or elsewhere.
func TestKeeperKilledAtThePrimary(t *testing.T) {
	needsPostgres(t)
	w, primary, replicas := three(t)
	all := append([]*node{primary}, replicas...)
	old, before := primary.keeperPID(), primary.agent.Snapshot().Postgres.State
	signal(t, old, syscall.SIGKILL)
	primary.await("another server, or another leader", func(s *fsm.State) bool {
		return s.Postgres.State.PID != before.PID && (leading(s) && s.Postgres.State.Ready || streaming(s))
	})
	next := leaderOf(t, all)
	next.await("a primary that is guarded", func(s *fsm.State) bool { return leading(s) && s.Keeper.Up && s.Keeper.Armed })
	if pid := primary.keeperPID(); pid == old {
		t.Errorf("the keeper is still %d", pid)
	}
	if p := primaries(all); len(p) != 1 {
		t.Errorf("primaries: %v", p)
	}
	w.allReplay()
}

// TestKeeperFrozenAtThePrimary: S4. A keeper that stands still would not fence. It is
// killed well within the belief, and its server with it.
func TestKeeperFrozenAtThePrimary(t *testing.T) {
	needsPostgres(t)
	w, primary, replicas := three(t)
	all := append([]*node{primary}, replicas...)
	old, before := primary.keeperPID(), primary.agent.Snapshot().Postgres.State
	signal(t, old, syscall.SIGSTOP)
	primary.await("another server, or another leader", func(s *fsm.State) bool {
		return s.Postgres.State.PID != before.PID && (leading(s) && s.Postgres.State.Ready || streaming(s))
	})
	leaderOf(t, all).await("a primary that is guarded", func(s *fsm.State) bool { return leading(s) && s.Keeper.Armed })
	if pid := primary.keeperPID(); pid == old {
		t.Errorf("the keeper is still %d", pid)
	}
	w.allReplay()
}

// TestKeeperFrozenAndStoreCut is the worst of it: nobody but the agent can stop the
// server in time, and it can't ask the keeper to.
func TestKeeperFrozenAndStoreCut(t *testing.T) {
	needsPostgres(t)
	w, primary, replicas := three(t)
	before := primary.agent.Snapshot()
	signal(t, primary.keeperPID(), syscall.SIGSTOP)
	w.store.Cut(string(primary.name), true)
	next := leaderOf(t, replicas)
	led := next.agent.Snapshot().Holder.Since
	// The server was gone before the other one got the key: /proc is the judge.
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", before.Postgres.State.PID)); err == nil {
		t.Errorf("the former primary (pid %d) still lives; the new one leads since %s", before.Postgres.State.PID, mono.Now().Sub(led))
	}
	w.store.Cut(string(primary.name), false)
	primary.await("rejoin", streaming)
	w.allReplay()
}

// TestAgentStartedBesideAFrozenKeeper: what a former run left behind counts as well.
func TestAgentStartedBesideAFrozenKeeper(t *testing.T) {
	needsPostgres(t)
	w := newWorld(t)
	n := w.add("pg01")
	n.await("bootstrap", leading)
	old := n.keeperPID()
	n.kill()
	signal(t, old, syscall.SIGSTOP)
	n.start()
	n.await("a keeper that answers", func(s *fsm.State) bool { return leading(s) && s.Keeper.Armed && s.Postgres.State.Ready })
	if pid := n.keeperPID(); pid == old {
		t.Errorf("the keeper is still %d", pid)
	}
	w.allReplay()
}

// TestServerOfADeadKeeperIsAdoptedOrGone: a server without keeper that runs on, because
// it was started by hand, is taken in charge and stopped: it is no primary of ours (S5).
func TestServerStartedByHandIsTakenInCharge(t *testing.T) {
	needsPostgres(t)
	w, _, replicas := three(t)
	n := replicas[0]
	n.kill()
	pgtest.KillIn(t, n.data)
	pgtest.KillIn(t, n.run) // its keeper
	n.startByHand()
	n.start()
	n.await("a standby in charge of its keeper", func(s *fsm.State) bool { return streaming(s) && s.Keeper.Adopted })
	st, err := keeper.Peek(t.Context(), n.run)
	if err != nil || !st.Alive || !st.Adopted {
		t.Errorf("the keeper's status: %+v, %v", st, err)
	}
	w.allReplay()
}

// startByHand does what an operator does who knows nothing of the agent.
func (n *node) startByHand() {
	n.t.Helper()
	out, err := command(filepath.Join(pgtest.BinDir(n.t), "pg_ctl"), "start", "-w", "-D", n.data,
		"-l", filepath.Join(n.run, "by-hand.log"), "-o", fmt.Sprintf("-p %d -c listen_addresses=127.0.0.1 -c cluster_name=demo", n.port))
	if err != nil {
		n.t.Fatalf("pg_ctl start: %v: %s", err, strings.TrimSpace(out))
	}
}
