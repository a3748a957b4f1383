package livetest

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/workload"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// writes begins to write, and returns a function that ends it.
func (l *live) writes(origin time.Time) (w *workload.Writer, stop func()) {
	w = workload.NewWriter(workload.WriterConfig{DSN: l.c.DSN(), Nodes: l.c.PortNames(), Origin: origin})
	ctx, cancel := context.WithCancel(l.ctx)
	var load sync.WaitGroup
	load.Go(func() { _ = w.Run(ctx) })
	stop = func() { cancel(); load.Wait() }
	l.t.Cleanup(stop)
	return w, stop
}

// health is the answer to a health check of a node; 0 when it doesn't answer.
func (l *live) health(n *sandbox.Node, path string) int {
	req, err := http.NewRequestWithContext(l.ctx, http.MethodGet, n.RESTURL()+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// synchronous waits for the synchronous standby.
func (l *live) synchronous() (found *sandbox.Node) {
	l.t.Helper()
	l.await("a standby is synchronous", func() bool {
		for _, n := range l.c.Nodes() {
			if n != l.primary && l.health(n, "/sync") == http.StatusOK {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

func (l *live) third(a, b *sandbox.Node) *sandbox.Node {
	for _, n := range l.c.Nodes() {
		if n != a && n != b {
			return n
		}
	}
	return nil
}

// missing are the acknowledged rows that the primary doesn't have.
func (l *live) missing(w *workload.Writer) int {
	l.t.Helper()
	log := w.Log() // before the rows are read: the writer goes on
	rows, err := workload.Rows(l.ctx, l.primary.DSN(), workload.Table)
	if err != nil {
		l.t.Fatal(err)
	}
	lost := log.Missing(rows)
	l.t.Logf("%d rows acknowledged, %d of unknown outcome, %d lost", len(log.Acks), len(log.Unknown), len(lost))
	return len(lost)
}

// Synchronous mode on real PostgreSQL: nothing that was acknowledged is lost when the
// primary's whole node dies under a writer, the synchronous standby takes over and not the
// other one, and a synchronous standby that is stopped doesn't keep commits waiting.
func TestSynchronousMode(t *testing.T) {
	l := start(t)
	l.regent("Configuration changed", "edit-config", "--force", "-s", "synchronous_mode=true")
	standby := l.synchronous()
	l.await("the list says so", func() bool { return strings.Contains(l.regent("", "list"), "Sync Standby") })
	async := l.third(l.primary, standby)
	if sync, other := l.health(standby, "/async"), l.health(async, "/async"); sync != 503 || other != 200 {
		t.Errorf("/async: %s says %d, %s %d", standby.Name(), sync, async.Name(), other)
	}
	if l.member(standby)["sync_standby"] != true {
		t.Errorf("%s: %v", standby.Name(), l.member(standby))
	}
	out, err := exec.CommandContext(l.ctx, pgtest.Binary(t, "regent"), "-c", l.primary.ConfigFile(),
		"switchover", "--force", "--candidate", async.Name()).CombinedOutput()
	if !strings.Contains(string(out), "candidate name does not match with sync_standby") {
		t.Errorf("a switchover to %s: %v, %s", async.Name(), err, out)
	}

	origin := time.Now()
	w, stop := l.writes(origin)
	if err := w.Await(l.ctx, 200, 0); err != nil {
		t.Fatal(err)
	}
	old := l.primary
	if err := old.KillNode(); err != nil {
		t.Fatal(err)
	}
	l.await("another primary", func() bool {
		p, err := l.c.Primary(l.ctx)
		l.primary = p
		return err == nil && p != old
	})
	if l.primary != standby {
		t.Fatalf("%s leads, and the synchronous standby was %s", l.primary.Name(), standby.Name())
	}
	if err := w.Await(l.ctx, 200, time.Since(origin)); err != nil {
		t.Fatal(err)
	}
	if l.missing(w) > 0 {
		t.Error("acknowledged rows are lost")
	}
	if err := old.PowerOn(); err != nil {
		t.Fatal(err)
	}
	l.whole()
	if l.primary != standby {
		t.Fatalf("%s leads now", l.primary.Name())
	}

	// The synchronous standby's agent ends, in order: it is released first.
	standby = l.synchronous()
	if err := w.Await(l.ctx, 50, time.Since(origin)); err != nil {
		t.Fatal(err)
	}
	from := time.Since(origin)
	if err := standby.StopAgent(l.ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.Await(l.ctx, 100, time.Since(origin)); err != nil {
		t.Fatal(err)
	}
	gap := w.Log().LongestGap(from, time.Since(origin))
	t.Logf("the longest time without a commit: %s", gap.Length())
	if gap.Length() > 2*time.Second {
		t.Errorf("commits waited for a standby that was stopped: %s", gap.Length())
	}
	if next := l.synchronous(); next == standby {
		t.Errorf("%s was stopped, and is synchronous", standby.Name())
	}
	if err := standby.PowerOn(); err != nil {
		t.Fatal(err)
	}
	l.whole()
	stop()
	if l.missing(w) > 0 {
		t.Error("acknowledged rows are lost")
	}

	l.regent("Configuration changed", "edit-config", "--force", "-s", "synchronous_mode=null")
	l.await("nobody is synchronous", func() bool { return !strings.Contains(l.regent("", "list"), "Sync Standby") })
	if err := l.primary.AwaitSetting(l.ctx, "synchronous_standby_names", ""); err != nil {
		t.Error(err)
	}
	l.replays()
}

// tagNoSync puts the tag nosync into a node's file, or takes it out, and reloads that.
func (l *live) tagNoSync(n *sandbox.Node, on bool) {
	l.t.Helper()
	const tag = "\ntags:\n  nosync: true\n"
	b, err := os.ReadFile(n.ConfigFile())
	if err != nil {
		l.t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), tag, "")
	if on {
		text += tag
	}
	if err := os.WriteFile(n.ConfigFile(), []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.regent("Reload request received", "reload", "demo", n.Name(), "--force")
}

// Without a usable synchronous standby the primary goes on alone, and nobody but it may lead
// then, however well he streams; in strict mode commits wait until there is a standby
// again. Nothing is lost.
func TestWithoutASynchronousStandby(t *testing.T) {
	l := start(t)
	l.regent("Configuration changed", "edit-config", "--force", "-s", "synchronous_mode=true")
	l.synchronous()
	origin := time.Now()
	w, stop := l.writes(origin)
	alone, first := l.primary, l.replica()
	for _, n := range []*sandbox.Node{first, l.third(alone, first)} {
		l.tagNoSync(n, true)
	}
	l.await("nobody is synchronous", func() bool { return !strings.Contains(l.regent("", "list"), "Sync Standby") })
	if err := w.Await(l.ctx, 100, time.Since(origin)); err != nil {
		t.Fatalf("nobody is left to wait for, and commits wait: %v", err)
	}
	if err := alone.KillNode(); err != nil {
		t.Fatal(err)
	}
	gone := time.Now()
	l.await("the others have had time to take over", func() bool {
		for _, n := range l.c.Nodes() {
			if n != alone && l.health(n, "/primary") == http.StatusOK {
				t.Fatalf("%s leads, and may lack what was acknowledged", n.Name())
			}
		}
		return time.Since(gone) > 3*l.c.TTL()
	})
	if status := own(l.member(first), "status"); status != "following a different leader because i am not the healthiest node" {
		t.Errorf("%s says %v", first.Name(), status)
	}
	if err := alone.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if l.whole(); l.primary != alone {
		t.Fatalf("%s leads now", l.primary.Name())
	}
	if err := w.Await(l.ctx, 50, time.Since(origin)); err != nil {
		t.Fatal(err)
	}

	l.regent("Configuration changed", "edit-config", "--force", "-s", "synchronous_mode_strict=true")
	if err := l.primary.AwaitSetting(l.ctx, "synchronous_standby_names", events.SyncHolder); err != nil {
		t.Fatal(err)
	}
	from := time.Since(origin)
	brief, cancel := context.WithTimeout(l.ctx, time.Second)
	err := w.Await(brief, 1, from+100*time.Millisecond) // one may have been on its way
	cancel()
	if err == nil {
		t.Error("in strict mode a commit was acknowledged without a standby")
	}
	l.tagNoSync(first, false)
	if standby := l.synchronous(); standby != first {
		t.Errorf("%s is synchronous, and tagged nosync", standby.Name())
	}
	if err := w.Await(l.ctx, 50, time.Since(origin)); err != nil {
		t.Fatal(err)
	}
	stop()
	if l.missing(w) > 0 {
		t.Error("acknowledged rows are lost")
	}
	l.replays()
}
