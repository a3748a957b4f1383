package demo

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/replay"
	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
)

// open makes a cluster out of three empty folders.
func (d *demo) open(ctx context.Context) error {
	d.print("%s\n", d.paint(bold, "Regent: three PostgreSQL nodes on this machine, one of them primary; then we break things."))
	d.print("Three acts: the primary's machine dies; only its agent dies; a planned switchover. A client inserts rows all the\n" +
		"time, and every member is asked for its role all the time. The times on the left are seconds since the start.\n")
	d.print("Everything lives in %s and is gone when the demo ends.\n", d.base.Dir)
	d.act("A cluster out of three empty folders")
	switch program := d.opt.Store.Program(); program {
	case "":
		d.step("three agents start; they agree through a store of their own, so nothing else is needed")
	default:
		d.step("three agents start; they agree through %s, one server of which runs beside them", program)
	}
	ctx, cancel := context.WithTimeout(ctx, sceneLimit)
	defer cancel()
	if err := d.cluster.PowerOn(); err != nil {
		return err
	}
	primary, err := d.cluster.AwaitPrimary(ctx)
	if err != nil {
		return d.withLogs(err)
	}
	d.step("%s made the cluster and is its %s", primary.Name(), d.paint(green, "primary"))
	for streaming := map[string]bool{}; len(streaming) < len(d.cluster.Nodes())-1; d.wait(ctx, liveEvery) {
		names, err := primary.Streaming(ctx)
		if err != nil && ctx.Err() != nil {
			return d.withLogs(fmt.Errorf("wait for the replicas: %w", context.Cause(ctx)))
		}
		for _, name := range names {
			if !streaming[name] {
				streaming[name] = true
				d.step("%s copied the primary and streams from it", name)
			}
		}
	}
	return nil
}

// withLogs adds the ends of the agents' logs to an error: the folder will be gone. Whoever
// interrupts the demo hasn't asked for them.
func (d *demo) withLogs(err error) error {
	if d.interrupted() {
		return errInterrupted
	}
	var b strings.Builder
	for _, n := range d.cluster.Nodes() {
		fmt.Fprintf(&b, "\n--- end of %s's log\n%s", n.Name(), n.Tail(15))
	}
	return fmt.Errorf("%w%s", err, b.String())
}

// list shows what an operator would, once the members have published that they stream. One
// that doesn't publish in time is listed as it is.
func (d *demo) list(ctx context.Context) error {
	first, deadline := d.cluster.Nodes()[0], time.Now().Add(settleLimit)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		states, err := first.Published(ctx)
		if err == nil && len(states) == len(d.cluster.Nodes()) && !slices.ContainsFunc(slices.Collect(maps.Values(states)), unsettled) {
			break
		}
		d.wait(ctx, liveEvery)
	}
	said, err := d.run(ctx, first, "list")
	d.block(said)
	if !d.listed && err == nil {
		d.listed = true
		d.note("TL is the timeline, which goes up by one whenever another member becomes primary. LSN is a position in\n" +
			"the WAL, Lag how many MB a replica is behind.")
		d.print("\n")
	}
	return err
}

func unsettled(state string) bool { return state != "running" && state != "streaming" }

// run runs the operator's command and returns it with its output.
func (d *demo) run(ctx context.Context, n *sandbox.Node, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	full := append([]string{"-c", n.ConfigFile()}, args...)
	out, err := exec.CommandContext(ctx, filepath.Join(d.base.Bin, "regent"), full...).CombinedOutput()
	said := "$ regent -c " + n.ConfigFile() + " " + strings.Join(args, " ") + "\n" + string(out)
	if err != nil {
		return said, fmt.Errorf("run regent %s: %w", strings.Join(args, " "), err)
	}
	return said, nil
}

// breathe lets a reader at a terminal catch up, and the client write, before something breaks.
func (d *demo) breathe(ctx context.Context) {
	if d.color {
		d.wait(ctx, 3*time.Second)
	}
}

// client starts the inserts.
func (d *demo) client(ctx context.Context) error {
	d.step("a client that knows all three hosts finds the primary by itself; so can you:")
	d.block("psql '" + d.cluster.DSN() + "'")
	ctx, cancel := context.WithTimeout(ctx, sceneLimit)
	defer cancel()
	if err := d.writer.Await(ctx, 200, 0); err != nil {
		return d.withLogs(err)
	}
	last := d.writer.Last()
	d.step("it inserts a row every 5 ms from now on (%d so far, at %s)", d.writer.Acked(), last.Node)
	return nil
}

// nodeDies is the power cut at the primary.
func (d *demo) nodeDies(ctx context.Context) error {
	d.act("1. The primary's machine dies")
	old, err := d.awaitWhole(ctx)
	if err != nil {
		return d.withLogs(err)
	}
	d.breathe(ctx)
	struck := time.Now()
	scene := d.watchFrom(struck)
	d.step("%s", d.paint(red, "kill -9 of everything at "+old.Name()+": "+pids(old)))
	if err := old.KillNode(); err != nil {
		return err
	}
	d.note("Nobody says goodbye, so the others wait until %s's lease ends: ttl, which is %s here. 30 s is the default,\n"+
		"as it is Patroni's; how short it may be depends on the network between the nodes.", old.Name(), d.cluster.TTL())
	if err := scene.tell(ctx, "the fail-over", d.primaryOtherThan(old)); err != nil {
		return d.withLogs(err)
	}
	d.outage("machine dies", struck)
	winner := d.primaryNow()
	if winner == nil {
		return d.withLogs(fmt.Errorf("after the fail-over: %w", sandbox.ErrNoPrimary))
	}
	if err := d.reasons(ctx, winner, struck, fsm.Leading); err != nil {
		return err
	}
	if err := d.comesBack(ctx, old); err != nil {
		return err
	}
	lost, err := d.loss(ctx)
	if err != nil {
		return err
	}
	d.step("%s of %d acknowledged ones lost%s", rows(lost), d.writer.Acked(), map[bool]string{
		true: " (replication is asynchronous here: what no replica had yet when the machine died is gone)", false: "",
	}[lost > 0])
	d.judgeRoles(struck)
	return d.list(ctx)
}

// comesBack powers a node on and waits until it streams.
func (d *demo) comesBack(ctx context.Context, n *sandbox.Node) error {
	began := time.Now()
	d.step("power on again at %s", n.Name())
	if err := n.PowerOn(); err != nil {
		return err
	}
	primary, err := d.awaitWhole(ctx)
	if err != nil {
		return d.withLogs(err)
	}
	d.step("%s found its way back as a replica and streams from %s", n.Name(), primary.Name())
	return d.reasons(ctx, n, began, fsm.Following)
}

func pids(n *sandbox.Node) string {
	text := ""
	for _, p := range []struct {
		what string
		pid  func() (int, bool)
	}{{"agent", n.AgentPID}, {"keeper", n.KeeperPID}, {"PostgreSQL", n.PostmasterPID}} {
		if pid, ok := p.pid(); ok {
			text += fmt.Sprintf(", %s %d", p.what, pid)
		}
	}
	return strings.TrimPrefix(text, ", ")
}

// agentDies kills only the agent, which must not give a second primary.
func (d *demo) agentDies(ctx context.Context) error {
	d.act("2. Only the agent dies, beside a healthy primary")
	old, err := d.awaitWhole(ctx)
	if err != nil {
		return d.withLogs(err)
	}
	d.breathe(ctx)
	agent, _ := old.AgentPID()
	struck := time.Now()
	scene := d.watchFrom(struck)
	old.PowerOff() // no supervisor rescues it this time
	d.step("%s", d.paint(red, fmt.Sprintf("kill -9 of the agent at %s (pid %d); its PostgreSQL runs on and takes writes", old.Name(), agent)))
	if err := old.KillAgent(); err != nil {
		return err
	}
	d.note("Nobody renews the lease now. The others will promote one of them when it ends, so the\n" +
		"keeper beside PostgreSQL has to stop it before. Every member is asked 200 times a second.")
	if err := scene.tell(ctx, "the fail-over", d.primaryOtherThan(old)); err != nil {
		return d.withLogs(err)
	}
	d.separation(old, struck)
	d.outage("agent dies", struck)
	if err := d.comesBack(ctx, old); err != nil {
		return err
	}
	return d.noLoss(ctx, "the agent's death", struck)
}

// noLoss checks what must hold wherever PostgreSQL was stopped cleanly.
func (d *demo) noLoss(ctx context.Context, what string, from time.Time) error {
	lost, err := d.loss(ctx)
	if err != nil {
		return err
	}
	if lost > 0 {
		d.breach("%s lost %s", what, rows(lost))
	} else {
		d.step("0 rows of %d acknowledged ones lost", d.writer.Acked())
	}
	d.judgeRoles(from)
	return nil
}

// separation tells how long nobody was primary between the old one and the new one.
func (d *demo) separation(old *sandbox.Node, from time.Time) {
	var ended, began time.Duration
	winner := ""
	for _, s := range d.watcher.Spans() {
		switch {
		case s.Role != history.Primary || s.LastAnswered < d.since(from):
		case s.Node == old.Name():
			ended = max(ended, s.LastAnswered)
		case winner == "" || s.FirstSent < began:
			winner, began = s.Node, s.FirstSent
		}
	}
	if winner == "" || began < ended {
		return // the judge will say so
	}
	d.step("the keeper stopped %s in time: it was last seen as primary at %.3f s, %s first at %.3f s: %s between them",
		old.Name(), ended.Seconds(), winner, began.Seconds(), duration(began-ended))
	rate, _ := history.Rate(d.watcher.Spans(), old.Name(), d.since(from), d.since(time.Now()))
	d.step("%s", d.paint(bold, fmt.Sprintf("never two primaries (%.0f looks a second)", rate)))
}

// switchover is the planned way.
func (d *demo) switchover(ctx context.Context) error {
	d.act("3. A planned switchover")
	old, err := d.awaitWhole(ctx)
	if err != nil {
		return d.withLogs(err)
	}
	candidate := d.cluster.Nodes()[0]
	if candidate == old {
		candidate = d.cluster.Nodes()[1]
	}
	d.breathe(ctx)
	struck := time.Now()
	scene := d.watchFrom(struck)
	d.step("hand the leadership from %s to %s", old.Name(), candidate.Name())
	said, err := "", error(nil)
	command := []string{"switchover", "--leader", old.Name(), "--candidate", candidate.Name(), "--force"}
	watch, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	var operator sync.WaitGroup
	operator.Go(func() {
		if said, err = d.run(ctx, old, command...); err != nil {
			failed(err)
		}
	})
	told := scene.tell(watch, "the switchover", func() bool {
		last := d.writer.Last()
		return d.primaryNow() == candidate && last.Node == candidate.Name() && last.Sent > d.since(struck)
	})
	operator.Wait()
	d.step("what the operator saw:")
	d.block(said)
	if err == nil {
		err = told
	}
	if err != nil {
		return d.withLogs(err)
	}
	d.outage("switchover", struck)
	if _, err := d.awaitWhole(ctx); err != nil {
		return d.withLogs(err)
	}
	return d.noLoss(ctx, "the switchover", struck)
}

// journals recomputes every decision that the agents took.
func (d *demo) journals(ctx context.Context) error {
	d.act("Afterwards")
	d.step("every decision was written down with what it was made of, and can be made again:")
	for _, n := range d.cluster.Nodes() {
		report, err := replay.Check(n.JournalDir(), replay.AnyProgram)
		if err != nil {
			d.breach("the journal of %s doesn't replay: %v", n.Name(), err)
			continue
		}
		d.step("%s's journal replayed: %d decisions recomputed, all equal", n.Name(), report.Compared)
	}
	return d.list(ctx)
}

// balance ends the script.
func (d *demo) balance(context.Context) error {
	if len(d.broken) > 0 {
		return fmt.Errorf("%w: %s", ErrPromise, strings.Join(d.broken, "; "))
	}
	for _, o := range d.outages {
		d.step("%-13s the client could not write for %s", o.what+":", duration(o.length))
	}
	d.step("%s", d.paint(green, fmt.Sprintf("done: %d rows acknowledged, %d lost, never two primaries", d.writer.Acked(), len(d.lost))))
	return nil
}

// invite says what to try while it stays up.
func (d *demo) invite() {
	regent := filepath.Join(d.base.Bin, "regent") + " -c " + d.cluster.Nodes()[0].ConfigFile()
	d.print("\nThe cluster stays up, and the client goes on writing. Try:\n\n")
	for _, line := range []string{
		regent + " list", regent + " switchover", regent + " why", regent + " journal show",
		"psql '" + d.cluster.DSN() + "'", "kill -9 one of its processes (each node's folder is below " + d.cluster.Dir() + ")",
	} {
		d.print("  %s\n", line)
	}
	d.print("\nCtrl-C ends it and leaves nothing behind.\n")
}
