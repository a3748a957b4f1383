package hosts

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs/etcd3/etcdtest"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestThreeEtcdServers(t *testing.T) {
	need(t)
	threeServers(t, sandbox.Etcd3Store, etcdtest.Binary(t, etcdtest.V34))
}

func TestThreeConsulServers(t *testing.T) {
	need(t)
	threeServers(t, sandbox.ConsulStore, consulProgram(t))
}

// threeServers does to three servers what a store can suffer: its leader moves, is cut off,
// killed and frozen, and the majority is lost.
func threeServers(t *testing.T, kind sandbox.StoreKind, program string) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	n := newNet(t)
	s, err := sandbox.StartStores(ctx, sandbox.StoreOptions{
		Kind: kind, Program: program, Dir: filepath.Join(pgtest.SocketDir(t), "s"), Members: 3,
		Hosts: func(name string) (sandbox.Machine, error) { return n.Host(name) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, m := range s.Members {
			if t.Failed() {
				t.Logf("log of %s:\n%s", m.Name(), m.Tail(30))
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	old, now, err := s.MoveLeader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the leader moved from %s to %s", old.Name(), now.Name())

	var flows []Flow
	for _, m := range s.Members {
		if m != now {
			flows = append(flows, Flow{From: now.Name(), To: m.Name()}, Flow{From: m.Name(), To: now.Name()})
		}
	}
	l, err := n.Cut(flows...)
	if err != nil {
		t.Fatal(err)
	}
	next := newLeader(ctx, t, s, now)
	t.Logf("%s was cut off, and %s leads", now.Name(), next.Name())
	must(t, l.Heal(), s.Await(ctx))

	must(t, next.Freeze())
	third := newLeader(ctx, t, s, next)
	t.Logf("%s was frozen, and %s leads", next.Name(), third.Name())
	must(t, next.Thaw(), s.Await(ctx))

	must(t, next.Kill(), third.Kill())
	if err := third.Thaw(); err == nil {
		t.Error("a killed server was thawed")
	}
	for _, m := range s.Members {
		for m != next && m != third { // it may believe in its leader for a second
			if _, err := s.Leader(ctx); err != nil {
				t.Logf("two are dead: %v", err)
				break
			}
			if !wait(ctx) {
				t.Fatalf("%s still knows a leader", m.Name())
			}
		}
	}
	must(t, next.Start(), third.Start(), s.Await(ctx))
	if _, err := s.Leader(ctx); err != nil {
		t.Error(err)
	}
}

// newLeader waits for a leader that isn't the old one, as the others see it.
func newLeader(ctx context.Context, t *testing.T, s *sandbox.Stores, old *sandbox.StoreServer) *sandbox.StoreServer {
	t.Helper()
	others := &sandbox.Stores{}
	for _, m := range s.Members {
		if m != old {
			others.Members = append(others.Members, m)
		}
	}
	for {
		leader, err := others.Leader(ctx)
		if err == nil && leader != old {
			return leader
		}
		if !wait(ctx) {
			t.Fatalf("nobody but %s leads: %v, %v", old.Name(), leader, err)
		}
	}
}

func wait(ctx context.Context) bool {
	select {
	case <-time.After(10 * time.Millisecond):
		return true
	case <-ctx.Done():
		return false
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
