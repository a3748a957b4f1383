package livetest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m, "./cmd/regent", "./cmd/regent-keeper") }

// live is a running cluster under the operator's hands.
type live struct {
	t       *testing.T
	c       *sandbox.Cluster
	ctx     context.Context
	primary *sandbox.Node
}

func start(t *testing.T) *live {
	t.Helper()
	if testing.Short() {
		t.Skip("takes a minute: real clusters are left out of -short")
	}
	c, err := sandbox.New(sandbox.Options{
		Dir: filepath.Join(pgtest.SocketDir(t), "c"), Bin: filepath.Dir(pgtest.Binary(t, "regent")), PGBin: pgtest.BinDir(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	l := &live{t: t, c: c, ctx: ctx}
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			for _, n := range c.Nodes() {
				t.Logf("%s:\n%s", n.Name(), n.Tail(40))
			}
		}
		if err := c.Close(); err != nil {
			t.Errorf("close the cluster: %v", err)
		}
	})
	if err := c.PowerOn(); err != nil {
		t.Fatal(err)
	}
	l.whole()
	return l
}

// whole waits until one leads and all follow.
func (l *live) whole() {
	l.t.Helper()
	p, err := l.c.AwaitStreaming(l.ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	l.primary = p
}

// regent runs a command of the operator's, which must succeed and say so.
func (l *live) regent(want string, args ...string) string {
	l.t.Helper()
	return l.regentOn(l.primary, want, args...)
}

// regentOn is the same with another node's configuration file.
func (l *live) regentOn(n *sandbox.Node, want string, args ...string) string {
	l.t.Helper()
	cmd := exec.CommandContext(l.ctx, pgtest.Binary(l.t, "regent"), append([]string{"-c", n.ConfigFile()}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) {
		l.t.Fatalf("regent %s: %v\n%s\nwant: %s", strings.Join(args, " "), err, out, want)
	}
	return string(out)
}

// member is GET /patroni of a node; nil when it doesn't answer.
func (l *live) member(n *sandbox.Node) map[string]any {
	req, err := http.NewRequestWithContext(l.ctx, http.MethodGet, n.RESTURL()+"/patroni", nil)
	if err != nil {
		l.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	body, err := io.ReadAll(resp.Body)
	var doc map[string]any
	if err != nil || json.Unmarshal(body, &doc) != nil {
		return nil
	}
	return doc
}

func own(doc map[string]any, key string) any {
	part, _ := doc["regent"].(map[string]any)
	return part[key]
}

// await waits for a condition; what it is, is said when it doesn't come.
func (l *live) await(what string, until func() bool) {
	l.t.Helper()
	limit := time.After(30 * time.Second)
	for !until() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-limit:
			for _, n := range l.c.Nodes() {
				l.t.Logf("%s: %v", n.Name(), l.member(n))
			}
			l.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// replays proves that the machine comes to the same decisions from each journal.
func (l *live) replays() {
	l.t.Helper()
	for _, n := range l.c.Nodes() {
		if err := n.StopAgent(l.ctx); err != nil {
			l.t.Fatal(err)
		}
		l.regentOn(n, "", "journal", "replay")
	}
}

func (l *live) replica() *sandbox.Node {
	for _, n := range l.c.Nodes() {
		if n != l.primary {
			return n
		}
	}
	return nil
}

// Maintenance mode on a real cluster: a primary whose agent and store are gone stays up,
// nothing that is down is started, and the end of the mode brings everything back.
func TestMaintenanceMode(t *testing.T) {
	l := start(t)
	l.regent("Success: cluster management is paused", "pause", "--wait")
	p := l.primary
	l.await("the keeper's deadline is taken away", func() bool { return own(l.member(p), "fencing") == "paused" })
	postmaster, _ := p.PostmasterPID()

	// The primary's agent dies, and stays away for longer than the lease. Nobody takes
	// over, and PostgreSQL isn't fenced.
	if err := p.KillAgent(); err != nil {
		t.Fatal(err)
	}
	gone := time.Now()
	l.await("the agent is back", func() bool { return time.Since(gone) > l.c.TTL() && own(l.member(p), "phase") == "leading" })
	if now, ok := p.PostmasterPID(); !ok || now != postmaster {
		t.Errorf("the primary's postmaster was %d and is %d", postmaster, now)
	}

	// A standby that is stopped by hand stays down; its agent says why.
	r := l.replica()
	if err := r.KillPostmaster(); err != nil {
		t.Fatal(err)
	}
	l.await("the standby is left down", func() bool { return own(l.member(r), "status") == "PAUSE: postgres is not running" })
	l.regent("Maintenance mode: on", "list")

	// An agent that ends leaves its server running.
	if err := p.StopAgent(l.ctx); err != nil {
		t.Fatal(err)
	}
	if now, ok := p.PostmasterPID(); !ok || now != postmaster {
		t.Errorf("the primary's postmaster was %d and is %d after the agent's end", postmaster, now)
	}
	if err := p.PowerOn(); err != nil {
		t.Fatal(err)
	}
	l.await("the agent is back", func() bool { return own(l.member(p), "phase") == "leading" })

	l.regent("Success: cluster management is resumed", "resume", "--wait")
	l.await("the deadline stands again", func() bool { return own(l.member(p), "fencing") == "armed" })
	l.whole()
	if l.primary != p {
		t.Errorf("%s leads now, %s did", l.primary.Name(), p.Name())
	}
	if now, ok := p.PostmasterPID(); !ok || now != postmaster {
		t.Errorf("the primary's postmaster was %d and is %d in the end", postmaster, now)
	}
	l.replays()
}

// Maintenance mode ends while the primary's agent is dead: its PostgreSQL goes on, nobody
// takes over, and the list says who found what, until the agent is back.
func TestOrphanPrimaryIsListed(t *testing.T) {
	l := start(t)
	p, other := l.primary, l.replica()
	l.regent("paused", "pause", "--wait")
	l.await("the keeper's deadline is taken away", func() bool { return own(l.member(p), "fencing") == "paused" })
	p.PowerOff() // or it would be started again
	if err := p.KillAgent(); err != nil {
		t.Fatal(err)
	}
	l.regentOn(other, "resumed", "resume")
	l.await("the list names it", func() bool {
		return strings.Contains(l.regentOn(other, "", "list"), "Primary without the leader key: "+p.Name()+", found by ")
	})
	if _, runs := p.PostmasterPID(); !runs {
		t.Error("its PostgreSQL has ended")
	}
	l.await("its agent has ended", func() bool { return p.PowerOn() == nil })
	l.whole()
	if l.primary != p {
		t.Errorf("%s leads, %s did", l.primary.Name(), p.Name())
	}
	if out := l.regent("", "list"); strings.Contains(out, "without the leader key") {
		t.Errorf("the list still says so:\n%s", out)
	}
}

// A switchover in maintenance mode, asked for by an operator, is done, and the old primary
// follows.
func TestSwitchoverInMaintenanceMode(t *testing.T) {
	l := start(t)
	l.regent("paused", "pause", "--wait")
	old, next := l.primary, l.replica()
	l.regent("Successfully switched over to", "switchover", "--force", "--candidate", next.Name())
	l.whole()
	if l.primary != next {
		t.Errorf("%s leads, %s was asked for", l.primary.Name(), next.Name())
	}
	l.await("it runs without a deadline", func() bool { return own(l.member(next), "fencing") == "paused" })
	l.regent("resumed", "resume", "--wait")
	l.await("it has one again", func() bool { return own(l.member(next), "fencing") == "armed" })
	if own(l.member(old), "phase") != "following" {
		t.Errorf("%s: %v", old.Name(), l.member(old))
	}
}

// A changed parameter is pending until the restart, which an operator asks for, now or for
// later; a replica is built anew; a switchover comes when it was scheduled for.
func TestRestartReinitializeAndSchedules(t *testing.T) {
	l := start(t)
	scope := "demo"
	l.regent("Configuration changed", "edit-config", "--force", "-p", "max_connections=77", "-s", "postgresql.parameters.work_mem=6MB")
	l.await("a restart is pending everywhere", func() bool { return strings.Count(l.regent("", "list"), " | * ") == 3 })
	p, r := l.primary, l.replica()
	before, _ := p.PostmasterPID()
	l.regent("Success: restart on member "+p.Name(), "restart", scope, p.Name(), "--pending", "--force")
	if after, _ := p.PostmasterPID(); after == before {
		t.Error("the primary was not restarted")
	}
	l.await("it is pending no more", func() bool { return l.member(p)["pending_restart"] == nil })
	if l.whole(); l.primary != p {
		t.Errorf("the restart cost the leadership: %s leads", l.primary.Name())
	}

	before, _ = r.PostmasterPID()
	soon := time.Now().Add(3 * time.Second).UTC().Format(time.RFC3339)
	l.regent("Success: restart scheduled", "restart", scope, r.Name(), "--scheduled", soon, "--force")
	l.regent("Scheduled restart", "list")
	l.await("the scheduled restart", func() bool { after, ok := r.PostmasterPID(); return ok && after != before })
	l.await("it is forgotten", func() bool { return l.member(r)["scheduled_restart"] == nil })
	l.await("it has ended", func() bool { return own(l.member(r), "phase") == "following" })
	l.whole()

	before, _ = r.PostmasterPID()
	l.regent("Reinitialize is completed on: "+r.Name(), "reinit", scope, r.Name(), "--force", "--wait")
	l.whole()
	if after, _ := r.PostmasterPID(); after == before {
		t.Error("the replica was not built anew")
	}
	l.regent("Reload request received", "reload", scope, r.Name(), "--force")

	soon = time.Now().Add(3 * time.Second).UTC().Format(time.RFC3339)
	l.regent("Switchover scheduled", "switchover", scope, "--candidate", r.Name(), "--scheduled", soon, "--force")
	l.await("the scheduled switchover", func() bool { return own(l.member(r), "phase") == "leading" })
	l.whole()
	l.replays()
}

// Fencing off by the shared configuration: the primary survives its agent's death by far,
// and is armed again when fencing comes back.
func TestFencingOff(t *testing.T) {
	l := start(t)
	p := l.primary
	l.regent("Configuration changed", "edit-config", "--force", "-s", "regent.fencing=off")
	l.await("fencing is off", func() bool { return own(l.member(p), "fencing") == "off" })
	l.await("the list says so", func() bool { return strings.Contains(l.regent("", "list"), "Fencing off") })
	l.regent("Configuration changed", "edit-config", "--force", "-s", "regent.fencing=null")
	l.await("the deadline stands again", func() bool { return own(l.member(p), "fencing") == "armed" })
}
