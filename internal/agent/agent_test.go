package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

func needsPostgres(t *testing.T) {
	t.Helper()
	pgtest.BinDir(t)
}

// three starts a cluster of three and waits until all stream.
func three(t *testing.T) (w *world, primary *node, replicas []*node) {
	t.Helper()
	w = newWorld(t)
	primary = w.add("pg01")
	primary.await("bootstrap", leading)
	for _, name := range []string{"pg02", "pg03"} {
		replicas = append(replicas, w.add(name))
	}
	for _, r := range replicas {
		r.await("streaming", streaming)
	}
	primary.await("both standbys", func(s *fsm.State) bool {
		n := 0
		for _, st := range s.Postgres.State.Standbys {
			if st.State == "streaming" && st.Flushed != 0 {
				n++
			}
		}
		return n == len(replicas)
	})
	return w, primary, replicas
}

// allReplay ends every agent and replays its journal.
func (w *world) allReplay() {
	w.t.Helper()
	for _, n := range w.nodes {
		n.kill()
		n.replays()
		if strings.Contains(n.logs.String(), "invariant violated") {
			w.t.Errorf("%s: an invariant was violated", n.name)
		}
	}
}

// leaderOf waits until one of the members leads, and returns it.
func leaderOf(t *testing.T, nodes []*node) *node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	found := make(chan *node, len(nodes))
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	for _, n := range nodes {
		a := n.agent
		waiting.Go(func() {
			if a.Wait(ctx, leading) == nil {
				found <- n
			}
		})
	}
	select {
	case n := <-found:
		return n
	case <-ctx.Done():
		t.Fatal("nobody leads")
		return nil
	}
}

func TestOneMemberBootstrapsAndEnds(t *testing.T) {
	needsPostgres(t)
	w := newWorld(t)
	n := w.add("pg01")
	n.await("bootstrap", leading)
	if err := n.agent.Submit(events.ShutdownRequested{By: "test"}); err != nil {
		t.Fatal(err)
	}
	n.await("end", func(s *fsm.State) bool { return s.Phase == fsm.Stopped })
	if err := <-n.done; err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	w.allReplay()
}

func TestPrimaryHandsOverWhenItsAgentEnds(t *testing.T) {
	needsPostgres(t)
	w, primary, replicas := three(t)
	if err := primary.agent.Submit(events.ShutdownRequested{By: "test"}); err != nil {
		t.Fatal(err)
	}
	if err := <-primary.done; err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	next := leaderOf(t, replicas)
	if tl := next.agent.Snapshot().Postgres.State.Timeline; tl != 2 {
		t.Errorf("the new primary is on timeline %d, want 2", tl)
	}
	primary.kill()
	primary.start()
	primary.await("rejoin", streaming)
	w.allReplay()
}

// A server that archives switches its segment at shutdown, and lives until that is
// archived. Nothing is committed meanwhile, so the leadership doesn't wait (S15).
func TestTheLeadershipDoesNotWaitForTheArchiver(t *testing.T) {
	needsPostgres(t)
	w := newWorld(t)
	slow := filepath.Join(t.TempDir(), "slow")
	old := w.addArchiving("pg01", "for i in $(seq 200); do test -e "+slow+" || exit 0; sleep 0.1; done")
	old.await("bootstrap", leading)
	next := w.add("pg02")
	next.await("streaming", streaming)
	old.await("the standby", func(s *fsm.State) bool {
		return len(s.Postgres.State.Standbys) == 1 && s.Postgres.State.Standbys[0].Flushed != 0
	})
	if err := os.WriteFile(slow, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := old.agent.Submit(events.SwitchoverRequested{ID: "1", From: old.name, To: next.name}); err != nil {
		t.Fatal(err)
	}
	next.await("lead", leading)
	if s := old.agent.Snapshot(); s.Phase != fsm.Demoting || !s.Demote.Shut || s.Op == nil {
		t.Errorf("when the next one led, the former primary was in phase %s with %+v", s.Phase, s.Demote)
	}
	if err := os.Remove(slow); err != nil {
		t.Fatal(err)
	}
	old.await("follow", func(s *fsm.State) bool { return streaming(s) && s.Postgres.State.Timeline == 2 })
	w.allReplay()
}

func TestPostmasterKilledIsRevivedInPlace(t *testing.T) {
	needsPostgres(t)
	w, primary, _ := three(t)
	before := primary.agent.Snapshot().Postgres.State
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	primary.await("revival", func(s *fsm.State) bool {
		p := s.Postgres.State
		return leading(s) && p.Ready && p.PID != before.PID && p.Timeline == before.Timeline
	})
	w.allReplay()
}

func TestPrimaryCutFromTheStoreStopsBeforeAnotherLeads(t *testing.T) {
	needsPostgres(t)
	w, primary, replicas := three(t)
	w.store.Cut(string(primary.name), true)
	next := leaderOf(t, replicas)
	if s := primary.agent.Snapshot(); s.Postgres.State.Running && !s.Postgres.State.InRecovery && s.Postgres.State.Ready {
		t.Errorf("the former primary still runs as a primary, in phase %s", s.Phase)
	}
	w.store.Cut(string(primary.name), false)
	primary.await("rejoin", func(s *fsm.State) bool {
		return streaming(s) && s.Store.View.Leader.Name == next.name
	})
	w.allReplay()
}

func TestReplicaPromotedBehindTheAgentsBackIsFencedAndRejoins(t *testing.T) {
	needsPostgres(t)
	w, _, replicas := three(t)
	rogue := replicas[0]
	rogue.promoteByHand()
	rogue.await("fence", func(s *fsm.State) bool { return s.Phase == fsm.Demoting || s.Phase == fsm.Rejoining })
	rogue.await("rejoin", func(s *fsm.State) bool { return streaming(s) && s.Postgres.State.Timeline == 1 })
	w.allReplay()
}

func TestSwitchoverByRequest(t *testing.T) {
	needsPostgres(t)
	w, primary, replicas := three(t)
	to := replicas[1]
	if err := primary.agent.Submit(events.SwitchoverRequested{ID: "1", From: primary.name, To: to.name}); err != nil {
		t.Fatal(err)
	}
	to.await("lead", leading)
	primary.await("follow", streaming)
	replicas[0].await("follow", func(s *fsm.State) bool {
		return streaming(s) && s.Postgres.State.Timeline == 2
	})
	w.allReplay()
}

func TestRestartedAgentAdoptsWhatRuns(t *testing.T) {
	needsPostgres(t)
	w, primary, replicas := three(t)
	for _, n := range []*node{primary, replicas[0]} {
		before := n.agent.Snapshot()
		n.kill()
		n.start()
		n.await("adoption", func(s *fsm.State) bool { return s.Phase == before.Phase })
		if after := n.agent.Snapshot().Postgres.State.PID; after != before.Postgres.State.PID {
			t.Errorf("%s: PostgreSQL was restarted: pid %d became %d", n.name, before.Postgres.State.PID, after)
		}
	}
	w.allReplay()
}

func TestLostRepliesAreHarmless(t *testing.T) {
	needsPostgres(t)
	w, primary, replicas := three(t)
	for _, op := range []mem.Op{mem.OpCommit, mem.OpRenew, mem.OpView} {
		w.store.Inject(mem.Fault{Op: op, Kind: mem.LoseReply, Times: 3})
	}
	if err := primary.agent.Submit(events.SwitchoverRequested{ID: "1", From: primary.name, To: replicas[0].name}); err != nil {
		t.Fatal(err)
	}
	// The request itself may have been lost; what counts is that all end well.
	leaderOf(t, append([]*node{primary}, replicas...))
	w.allReplay()
}
