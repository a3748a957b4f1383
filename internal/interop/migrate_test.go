package interop

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
)

// migration moves a cluster from one program to the other, member by member, under a writer.
type migration struct {
	*Cluster
	t     *testing.T
	ctx   context.Context
	store string
	load  *Load
	// runs are the postmasters from the beginning, which are those of the end.
	runs map[string]int
}

// A cluster of Patronis becomes one of Regents and one of Patronis again, as
// docs/operations/migrate-from-patroni.md says: in maintenance mode, member by member, from the
// same file. No PostgreSQL is restarted, no transaction fails, no row is lost. On both stores, but
// Consul only by `make interop`.
func TestMigration(t *testing.T) {
	for _, store := range []string{"etcd3", "consul"} {
		if store == "consul" && full() == "" {
			continue
		}
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			if testing.Short() {
				t.Skip("takes a minute: real clusters are left out of -short")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
			defer cancel()
			c := Start(t, Options{Store: store, Members: []sandbox.Program{p, p, p}})
			m := &migration{Cluster: c, t: t, ctx: ctx, store: store, runs: map[string]int{}}
			m.play()
		})
	}
}

func (m *migration) play() {
	if err := m.Nodes()[0].PowerOn(); err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.AwaitPrimary(m.ctx); err != nil {
		m.t.Fatal(err)
	}
	if err := m.PowerOn(); err != nil {
		m.t.Fatal(err)
	}
	leader := m.streaming()
	m.load = m.Load(m.ctx)
	m.written()
	for _, n := range m.Nodes() {
		pid, ok := n.PostmasterPID()
		if !ok {
			m.t.Fatalf("%s has no postmaster", n.Name())
		}
		m.runs[n.Name()] = pid
	}
	m.say("three Patronis, %s leads", leader.Name())
	m.move(r, m.Patronictl, m.Regent)
	m.move(p, m.Regent, m.Patronictl)
	figures, err := m.load.End(m.ctx)
	if err != nil {
		m.t.Error(err)
	}
	m.t.Logf("%s; 0 of %d servers restarted", figures, len(m.runs))
	m.line("and back: 0 servers restarted", figures.String())
	if figures.Lost != 0 || figures.Unknown != 0 {
		m.t.Errorf("a migration costs nothing: %s", figures)
	}
	m.nothingLeft(leader)
}

// nothingLeft: Patroni restarts its servers undisturbed by the keepers that Regent had, and
// those are gone with the servers that they had in their charge.
func (m *migration) nothingLeft(leader *sandbox.Node) {
	m.t.Helper()
	for _, n := range m.Nodes() {
		if out, err := m.Patronictl(m.ctx, n, "restart", "demo", n.Name(), "--force"); err != nil || !strings.Contains(out, "Success") {
			m.t.Fatalf("%v: %s", err, out)
		}
	}
	if now := m.streaming(); now != leader {
		m.t.Errorf("%s led, now %s does", leader.Name(), now.Name())
	}
	for _, n := range m.Nodes() {
		if pid, ok := n.KeeperPID(); ok {
			m.t.Errorf("a keeper of %s is left: process %d", n.Name(), pid)
		}
	}
}

// say logs a step with what the writer has done by then, and what failed it.
func (m *migration) say(format string, args ...any) {
	m.t.Helper()
	log := m.load.Log()
	m.t.Logf("%6.1f s  %-58s %6d rows acknowledged, %d transactions failed",
		m.load.Now().Seconds(), fmt.Sprintf(format, args...), len(log.Acks), len(log.Unknown))
	m.line(fmt.Sprintf(format, args...), fmt.Sprintf("%d rows acknowledged, %d transactions failed", len(log.Acks), len(log.Unknown)))
}

// line adds a line to the table that `make interop` prints. Its time is since the beginning.
func (m *migration) line(what, result string) {
	m.t.Helper()
	leader := "-"
	if n, err := m.Primary(m.ctx); err == nil {
		leader = fmt.Sprintf("%s (%s)", n.Program(), n.Name())
	}
	if dir := full(); dir != "" {
		line := fmt.Sprintf("| %s PPP migration | %s | %s | %s | at %.1f s |\n", m.store, leader, what, result, m.load.Now().Seconds())
		addTo(m.t, filepath.Join(dir, "migration-"+m.store), line)
	}
}

func (m *migration) streaming() *sandbox.Node {
	m.t.Helper()
	n, err := m.AwaitStreaming(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// written waits for rows that are acknowledged from now on.
func (m *migration) written() {
	m.t.Helper()
	if err := m.load.Await(m.ctx, 100, m.load.Now()); err != nil {
		m.t.Fatal(err)
	}
}

type command = func(context.Context, *sandbox.Node, ...string) (string, error)

// move replaces the agents, replicas first: the old program's command pauses, the new one's resumes.
func (m *migration) move(to sandbox.Program, pause, resume command) {
	m.t.Helper()
	leader := m.streaming()
	if out, err := pause(m.ctx, leader, "pause", "demo", "--wait"); err != nil {
		m.t.Fatalf("%v: %s", err, out)
	}
	m.say("paused")
	order := []*sandbox.Node{}
	for _, n := range m.Nodes() {
		if n != leader {
			order = append(order, n)
		}
	}
	for _, n := range append(order, leader) {
		m.replace(n, to)
	}
	if out, err := resume(m.ctx, leader, "resume", "demo", "--wait"); err != nil {
		m.t.Fatalf("%v: %s", err, out)
	}
	m.say("resumed")
	// Nothing that was decided in maintenance mode comes out later.
	select {
	case <-time.After(m.TTL() + 2*time.Second):
	case <-m.ctx.Done():
	}
	m.written()
	if now := m.streaming(); now != leader {
		m.t.Errorf("%s led, now %s does", leader.Name(), now.Name())
	}
	for _, n := range m.Nodes() {
		m.sameServer(n)
		if _, err := m.AwaitKeys(m.ctx, hasNot("members/"+n.Name(), "pending_restart", "pause")); err != nil {
			m.t.Error(err)
		}
	}
	if to == r {
		if said, err := ownStatus(m.ctx, leader); err != nil || said.Fencing != "adopted" || said.Phase != "leading" {
			m.t.Errorf("%s says %+v, %v", leader.Name(), said, err)
		}
	}
	m.say("a ttl later: %s leads, all members run %s", leader.Name(), to)
}

// replace ends a member's agent, starts the other one by the same file, and waits until it has
// taken charge of the running server.
func (m *migration) replace(n *sandbox.Node, to sandbox.Program) {
	m.t.Helper()
	if err := n.StopAgent(m.ctx); err != nil {
		m.t.Fatal(err)
	}
	m.sameServer(n)
	n.RunAs(to)
	if err := n.PowerOn(); err != nil {
		m.t.Fatal(err)
	}
	if err := m.taken(m.ctx, n, to); err != nil {
		m.t.Fatal(err)
	}
	m.sameServer(n)
	m.written()
	m.streaming()
	m.say("%s is run by %s", n.Name(), to)
}

// taken waits until a member, and the keys of the cluster, say that the program has taken charge.
func (c *Cluster) taken(ctx context.Context, n *sandbox.Node, of sandbox.Program) error {
	wanted := func(keys map[string]string) error {
		mine := keys["members/"+n.Name()]
		if !strings.Contains(mine, `"state":"running"`) || strings.Contains(mine, `"regent":`) != (of == r) || !strings.Contains(mine, `"pause":true`) {
			return fmt.Errorf("members/%s is %s", n.Name(), mine)
		}
		if keys["leader"] == "" {
			return fmt.Errorf("nobody leads")
		}
		return nil
	}
	if _, err := c.AwaitKeys(ctx, wanted); err != nil {
		return err
	}
	return n.AwaitHealthy(ctx)
}

// sameServer: the postmaster is that of the beginning.
func (m *migration) sameServer(n *sandbox.Node) {
	m.t.Helper()
	if pid, ok := n.PostmasterPID(); !ok || pid != m.runs[n.Name()] {
		m.t.Fatalf("the postmaster of %s was %d, now there is %d", n.Name(), m.runs[n.Name()], pid)
	}
}

// Two members exchange their programs in maintenance mode. The replica's PostgreSQL, which Regent's
// keeper started, is Patroni's to restart, and the keeper ends with it. The primary's, which Patroni
// started, is stopped when its Regent dies, by the keeper that adopted it, before the Patroni takes
// writes (S2, S5).
func TestExchangedProgramsGuardWhatTheyFound(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("real clusters are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c := Start(t, Options{Store: "etcd3", Members: []sandbox.Program{p, r}})
	old, heir := c.Nodes()[0], c.Nodes()[1]
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(old.PowerOn())
	_, err := c.AwaitPrimary(ctx)
	must(err)
	must(heir.PowerOn())
	_, err = c.AwaitStreaming(ctx)
	must(err)
	_, err = c.Regent(ctx, heir, "pause", "demo", "--wait")
	must(err)
	for n, to := range map[*sandbox.Node]sandbox.Program{old: r, heir: p} {
		before, _ := n.PostmasterPID()
		must(n.StopAgent(ctx))
		n.RunAs(to)
		must(n.PowerOn())
		must(c.taken(ctx, n, to))
		if now, ok := n.PostmasterPID(); !ok || now != before {
			t.Errorf("the postmaster of %s was %d, now there is %d", n.Name(), before, now)
		}
	}
	_, err = c.Regent(ctx, old, "resume", "demo", "--wait")
	must(err)
	if _, ok := heir.KeeperPID(); !ok {
		t.Error("the keeper has left the server that it is the parent of")
	}
	_, err = c.Patronictl(ctx, heir, "restart", "demo", heir.Name(), "--force")
	must(err)
	_, err = c.AwaitStreaming(ctx)
	must(err)
	if pid, ok := heir.KeeperPID(); ok {
		t.Errorf("keeper %d is left, without the server that it had", pid)
	}

	load := c.Load(ctx)
	must(load.Await(ctx, 100, load.Now()))
	old.PowerOff()
	must(old.KillAgent())
	for {
		now, err := c.AwaitPrimary(ctx)
		must(err)
		if now == heir {
			break
		}
	}
	must(load.Await(ctx, 100, load.Now()))
	if pid, ok := old.PostmasterPID(); ok {
		t.Errorf("postmaster %d of the primary without an agent still runs", pid)
	}
	figures, err := load.End(ctx)
	must(err)
	t.Log(figures)
}
