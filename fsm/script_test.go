package fsm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/pgregent/regent/events"
)

// The scripts in testdata are the behavioural specification. Each line is a fact
// (or an outcome of an action that was ordered); below it stands what the machine
// decided, with its reason, and what it ordered. Run `go test ./fsm -rewrite` after
// a change, and read the diff before you keep it.

// runScripts plays every script and returns the states that were visited.
func runScripts(t *testing.T) []State {
	var visited []State
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		e := newEnv(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			e.out.Reset()
			e.t = t
			e.run(d)
			return e.out.String()
		})
		if e.s.Defects != 0 {
			t.Errorf("%s: the machine counted %d defects", path, e.s.Defects)
		}
		visited = append(visited, e.visited...)
	})
	return visited
}

// env is one agent's machine under a script.
type env struct {
	t       *testing.T
	m       *Machine
	s       State
	seq     uint64
	now     events.Instant
	out     strings.Builder
	last    map[string]events.ActionID // latest action of each kind
	kinds   map[events.ActionID]string
	held    map[string]bool // kinds whose outcomes the script tells itself
	fed     events.Event    // the latest event, for "again"
	said    string
	quiet   bool
	renews  bool // renewals succeed, and aren't worth a line
	visited []State
}

func newEnv(t *testing.T) *env {
	return &env{t: t, m: New(), now: events.Instant(100 * time.Second), last: map[string]events.ActionID{}, kinds: map[events.ActionID]string{}, held: map[string]bool{}}
}

// args of one line.
type args map[string]string

func parseArgs(d *datadriven.TestData) args {
	a := args{}
	for _, c := range d.CmdArgs {
		a[c.Key] = strings.Join(c.Vals, ",")
	}
	return a
}

func (a args) has(k string) bool { _, ok := a[k]; return ok }

func (a args) num(k string) uint64 {
	n, _ := strconv.ParseUint(a[k], 10, 64)
	return n
}

func (a args) dur(k string, def time.Duration) time.Duration {
	if d, err := time.ParseDuration(a[k]); err == nil {
		return d
	}
	return def
}

func (a args) list(k string) []string {
	return strings.FieldsFunc(a[k], func(r rune) bool { return r == ',' || r == ' ' })
}

// with returns a copy with defaults for what the line doesn't say.
func (a args) with(defaults args) args {
	out := args{}
	for k, v := range defaults {
		out[k] = v
	}
	for k, v := range a {
		out[k] = v
	}
	return out
}

// step feeds one event, and the Reconsiders that follow it.
func (e *env) step(ev events.Event) {
	e.t.Helper()
	e.fed = ev
	for {
		e.seq++
		before := e.s
		was, err := json.Marshal(before)
		if err != nil {
			e.t.Fatal(err)
		}
		s, d := e.m.Step(e.s, events.Entry{Seq: e.seq, At: e.now, Wall: int64(e.now), Event: ev})
		if is, err := json.Marshal(before); err != nil || string(is) != string(was) {
			e.t.Fatalf("step %d changed the state it was given", e.seq)
		}
		for _, v := range Violations(before, s, d) {
			e.fault("%s: %s", ev.Kind(), v)
		}
		e.s = s
		e.report(d)
		if !d.Fired() {
			e.visited = append(e.visited, s) // at rest, where events find it
			return
		}
		ev = events.Reconsider{}
	}
}

// fault notes in the script's output what must never happen. A rewrite shows it
// where it happened; the next run fails on it.
func (e *env) fault(format string, a ...any) {
	line := fmt.Sprintf(format, a...)
	fmt.Fprintf(&e.out, "VIOLATION: %s\n", line)
	if !rewriting() {
		e.t.Error(line)
	}
}

func (e *env) report(d Decision) {
	for _, o := range d.Actions {
		if !Silent(o.Action) {
			e.last[o.Action.Kind()], e.kinds[o.ID] = o.ID, o.Action.Kind()
		}
	}
	if e.quiet {
		return
	}
	if d.Fired() {
		fmt.Fprintf(&e.out, "%s -%s-> %s: %s\n", d.From, d.Trigger, d.To, d.Reason.Text)
	} else if line := d.Reason.Rule + ": " + d.Reason.Text; line != e.said && !strings.HasSuffix(d.Reason.Rule, "/leading") {
		fmt.Fprintf(&e.out, "%s\n", line)
		e.said = line
	}
	for _, o := range d.Actions {
		if line := e.describe(o.Action); line != "" {
			fmt.Fprintf(&e.out, "  %s\n", line)
		}
	}
}

// describe puts an action into one line, times relative; empty for those that
// every other step has.
func (e *env) describe(action Action) string {
	fence := func(f Fence) string {
		return fmt.Sprintf("%s fence=+%s revision=%d", action.Kind(), f.Deadline.Sub(e.now).Round(10*time.Millisecond), f.Revision)
	}
	switch a := action.(type) {
	case SetTimer, ObservePostgres, ExtendFence:
		return ""
	case RenewLease:
		if e.renews {
			return ""
		}
		return fmt.Sprintf("renew-lease %s", a.Lease)
	case GrantLease:
		return fmt.Sprintf("grant-lease %s", a.TTL)
	case PublishMember:
		if a.Member.Tags.NoSync {
			return fmt.Sprintf("publish-member %s %s %s%s", a.Member.Role, a.Member.State, a.Member.Tags.Raw, found(a.Member))
		}
		return fmt.Sprintf("publish-member %s %s%s", a.Member.Role, a.Member.State, found(a.Member))
	case WriteStatus:
		return fmt.Sprintf("write-status %d", a.Optime)
	case Cancel:
		return "cancel " + e.kinds[a.ID]
	case StartPrimary:
		return fence(a.Fence)
	case Promote:
		if a.Sync != nil {
			return fmt.Sprintf("%s names=%q", fence(a.Fence), a.Sync.Text())
		}
		return fence(a.Fence)
	case Stop:
		return fmt.Sprintf("stop %s checkpoint=%v patience=%s", a.Mode, a.Checkpoint, a.Patience)
	default:
		b, err := json.Marshal(e.unremarkable(a))
		if err != nil {
			e.t.Fatal(err)
		}
		return a.Kind() + " " + string(b)
	}
}

// run carries out one line. What every script would have to say again and again,
// that the member key, the status key and the keeper's deadline were written, is
// said for it unless it asked to tell those itself ("hold").
func (e *env) run(d *datadriven.TestData) {
	a := parseArgs(d)
	switch d.Cmd {
	case "start":
		e.start(a)
	case "replica":
		e.replica(d, a)
	case "primary":
		e.primary(d, a)
	case "hold":
		for k := range a {
			e.held[k] = true
		}
	case "keeper":
		e.step(events.KeeperFound{PID: int(a.num("pid")), Armed: a.has("armed"), Deadline: e.now.Add(a.dur("armed", 0)),
			Waived: a["waived"], WaivedAt: max(1, events.Revision(a.num("at")))})
	case "postgres":
		began := e.now.Add(-a.dur("begun", 0))
		e.step(events.PostgresObserved{State: e.postgres(d, d.CmdArgs[0].Key, a), Began: began})
	case "cluster":
		e.cluster(a)
	case "done", "refused", "unavailable", "unknown":
		e.outcome(d, a)
	case "acquired":
		e.step(events.LeaseAcquired{ID: e.last["acquire-leader"], Revision: events.Revision(a.num("rev"))})
	case "renewed":
		e.renewed(a.has("leader"), a.dur("sent", 0))
	case "renewal-failed":
		e.step(events.RenewalFailed{ID: e.last["renew-lease"], Class: events.Unavailable, Why: "timeout"})
	case "lease-lost":
		lease := e.s.Lease.ID
		if a.has("lease") {
			lease = events.LeaseID(a["lease"])
		}
		e.step(events.LeaseLost{Cause: events.LossCause(a["cause"]), Lease: lease})
	case "advance":
		e.advance(a)
	case "failing-starts":
		e.failingStarts(d, int(a.num("n")))
	case "why":
		e.why()
	case "moving":
		e.moving(d)
	case "asked", "answer", "promises":
		e.failsafe(d, a)
	default:
		e.simple(d, a)
	}
	e.settle()
	fmt.Fprintf(&e.out, "= %s, %s\n", e.s.Phase, e.s.Last.Status)
	e.now = e.now.Add(time.Millisecond) // nothing is instantaneous
}

// settle tells the outcomes that no script is about.
func (e *env) settle() {
	for _, kind := range []string{"publish-member", "write-status", "extend-fence"} {
		for _, f := range e.s.Flight {
			if f.Kind == kind && !e.held[kind] {
				e.step(events.ActionFinished{ID: f.ID, Action: kind, Class: events.Done})
			}
		}
	}
}

// simple are facts that need no more than their fields.
func (e *env) simple(d *datadriven.TestData, a args) {
	name := func(k string) events.NodeName { return events.NodeName(a[k]) }
	switch d.Cmd {
	case "down":
		pid := e.s.Postgres.State.PID
		if a.has("pid") {
			pid = int(a.num("pid"))
		}
		e.step(events.PostgresDown{PID: pid, Signal: int(a.num("signal")), Ours: a.has("ours"), Fenced: a.has("fenced")})
	case "up":
		e.step(events.PostgresUp{PID: 4242})
	case "fence-begun":
		e.step(events.FenceBegun{Why: "deadline"})
	case "keeper-lost":
		e.step(events.KeeperLost{Why: "killed"})
	case "rogue":
		e.step(events.UnexpectedPrimary{Timeline: events.Timeline(a.num("tl"))})
	case "clean-shutdown":
		e.step(events.CleanShutdown{ID: e.last["stop"], End: events.LSN(a.num("end"))})
	case "walreceiver-ended":
		e.step(events.WalReceiverEnded{})
	case "sync-lost":
		e.step(events.SyncLost{Standby: name("standby"), Mode: "sync"})
	case "peer":
		e.step(events.PeerObserved{ID: e.last["probe-peers"], Peer: events.Peer{
			Name: name("name"), Reachable: !a.has("silent"), Primary: a.has("primary"),
			Timeline: events.Timeline(max(1, a.num("tl"))), Position: events.LSN(a.num("lsn")),
			Tags:   events.Tags{NoFailover: a.has("nofailover"), FailoverPriority: max(1, int(a.num("priority")))},
			Barred: a.has("barred"),
		}})
	case "store-down":
		e.step(events.DCSUnavailable{Why: "no answer"})
	case "store-up":
		e.step(events.DCSRestored{})
	case "shutdown":
		e.step(events.ShutdownRequested{By: "SIGTERM"})
	case "switchover":
		e.step(events.SwitchoverRequested{ID: "s1", From: name("from"), To: name("to"), ScheduledAt: a["at"]})
	case "failover":
		e.step(events.FailoverRequested{ID: "f1", To: name("to")})
	case "restart":
		id := "r1"
		if a.has("id") {
			id = a["id"]
		}
		e.step(events.RestartRequested{ID: id, Timeout: a.dur("timeout", 0), Schedule: e.schedule(a)})
	case "withdraw":
		e.step(events.RestartWithdrawn{ID: "w1"})
	case "reinit":
		e.step(events.ReinitRequested{ID: "i1", Force: a.has("force"), FromLeader: a.has("from_leader")})
	case "pause", "resume":
		e.step(events.PauseChanged{Paused: d.Cmd == "pause", Revision: events.Revision(a.num("rev"))})
	case "config":
		e.step(events.ConfigChanged{Settings: a.settings(e.s.Self)})
	case "journal-degraded":
		e.step(events.JournalDegraded{Why: a["why"]})
	case "time-jumped":
		e.now = e.now.Add(a.dur("by", time.Minute))
		e.step(events.TimeJumped{By: a.dur("by", time.Minute)})
	case "start-timeout":
		e.step(events.PrimaryStartTimeout{})
	case "again":
		e.step(e.fed)
	default:
		e.t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	}
}

func (e *env) start(a args) {
	self := events.NodeName(a["self"])
	if self == "" {
		self = e.s.Self
	}
	if a.has("former") {
		e.s.Lease = Lease{ID: events.LeaseID(a["former"])} // the journal's
	}
	boot := "boot1"
	if a.has("boot") {
		boot = a["boot"]
	}
	e.step(events.AgentStarted{Node: self, Scope: "demo", Version: "test", Boot: boot, Settings: a.settings(self), Run: a["run"], Arrived: a["arrived"]})
}

// replica is a standby of pg01 that has been streaming for a while; its lease is L-NAME.
func (e *env) replica(d *datadriven.TestData, a args) {
	a = a.with(args{"self": "pg02", "rev": "10", "leader": "pg01/L-pg01", "members": "pg01:primary,pg02:replica,pg03:replica", "optime": "900", "lsn": "900"})
	upstream, _, _ := strings.Cut(a["leader"], "/")
	e.quietly(func() {
		e.s, e.held = State{}, map[string]bool{} // an empty journal
		e.start(a)
		e.step(events.KeeperFound{PID: 4242})
		e.step(events.PostgresObserved{State: e.postgres(d, "standby", a.with(args{"upstream": upstream})), Began: e.now})
		e.cluster(a.with(args{"read": ""}))
		e.finish("grant-lease", events.Result{Lease: events.LeaseID("L-" + a["self"]), TTL: e.s.Settings.TTL, SentAt: e.now})
		e.settle()
		e.now = e.now.Add(10 * time.Millisecond)
	})
}

// primary is the holder with its lease L-NAME, followed by pg02 and pg03.
func (e *env) primary(d *datadriven.TestData, a args) {
	a = a.with(args{
		"self": "pg01", "rev": "10", "members": "pg01:primary,pg02:replica,pg03:replica", "optime": "900", "lsn": "900",
		"standbys": "pg02,pg03", "retained": "pg01",
	})
	if !a.has("leader") {
		a["leader"] = a["self"] + "/L-" + a["self"] + "@5"
	}
	e.quietly(func() {
		e.s, e.held = State{}, map[string]bool{} // an empty journal
		e.start(a)
		e.step(events.KeeperFound{PID: 4242, Armed: true, Deadline: e.now.Add(time.Second)})
		e.step(events.PostgresObserved{State: e.postgres(d, "primary", a), Began: e.now})
		e.cluster(a.with(args{"read": ""}))
		e.renewed(true, 0)
		e.settle()
		e.now = e.now.Add(10 * time.Millisecond)
	})
}

func (e *env) quietly(do func()) {
	e.quiet = true
	do()
	e.quiet = false
}

func (e *env) cluster(a args) {
	ev := events.ClusterObserved{View: e.view(a)}
	if !a.has("read") {
		e.step(ev)
		return
	}
	ev.Read = e.now.Add(-a.dur("read", 0))
	e.step(ev)
	e.finish("refresh-view", events.Result{})
}

// finish ends the latest action of a kind well, if it is under way.
func (e *env) finish(kind string, r events.Result) {
	if id := e.last[kind]; e.s.inFlightID(Flight{ID: id}) {
		e.step(events.ActionFinished{ID: id, Action: kind, Class: events.Done, Result: r})
	}
}

func (e *env) outcome(d *datadriven.TestData, a args) {
	kind := d.CmdArgs[0].Key
	id, ok := e.last[kind]
	if !ok {
		e.fault("no %s was ordered", kind)
		return
	}
	r := events.Result{
		Lease: events.LeaseID(a["lease"]), TTL: a.dur("ttl", e.s.Settings.TTL), SentAt: e.now,
		Held: a.has("held"), Revision: events.Revision(a.num("rev")), EndLSN: events.LSN(a.num("end")), Position: events.LSN(a.num("lsn")),
	}
	if a.has("verdict") {
		r.Divergence = &events.Divergence{Verdict: events.Verdict(a["verdict"]), Why: "as judged"}
	}
	if a.has("postgres") {
		p := e.postgres(d, a["postgres"], a)
		r.Postgres = &p
	}
	if kind == "revoke-lease" && r.Lease == "" {
		r.Lease = e.s.Lease.ID
	}
	why := ""
	if d.Cmd != "done" {
		why = "as told by the script"
	}
	e.step(events.ActionFinished{ID: id, Action: kind, Class: events.Class(d.Cmd), Why: why, Result: r})
}

// renewed confirms the renewal under way, sent a while ago.
func (e *env) renewed(leader bool, sent time.Duration) {
	lease := e.s.Lease.ID
	if l := e.s.Store.View.Leader; l.Name == e.s.Self && lease == "" {
		lease = l.Lease
	}
	keys := []string{"members/" + string(e.s.Self)}
	if leader {
		keys = append(keys, "leader")
	}
	slices.Sort(keys)
	e.step(events.LeaseRenewed{ID: e.last["renew-lease"], Lease: lease, TTL: e.s.Settings.TTL, SentAt: e.now.Add(-sent), Keys: keys})
}

// advance lets time pass; the timer fires on its way. With renewing, renewals
// succeed at once, and are not printed; with failing, they fail at once.
func (e *env) advance(a args) {
	var by time.Duration
	for k := range a {
		if d, err := time.ParseDuration(k); err == nil {
			by = d
		}
	}
	end := e.now.Add(by)
	for e.s.Timer.At != 0 && e.s.Timer.At <= end {
		e.now = e.s.Timer.At
		e.renews = a.has("renewing")
		e.step(TimerEvent(e.s.Timer.Name))
		switch {
		case a.has("renewing") && e.s.InFlight(RenewLease{}):
			e.renewed(e.s.holds(), 0)
		case a.has("failing") && e.s.InFlight(RenewLease{}):
			e.step(events.RenewalFailed{ID: e.last["renew-lease"], Class: events.Unavailable, Why: "timeout"})
		}
		e.renews = false
		e.settle()
	}
	e.now = end
}

func (e *env) why() {
	r := e.s.Last.Reason
	fmt.Fprintf(&e.out, "%s: %s\n", r.Rule, r.Text)
	for _, x := range r.Rejected {
		fmt.Fprintf(&e.out, "  not %s: %s\n", x.Rule, x.Why)
	}
}
