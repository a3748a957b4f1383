package fsm

import (
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"sort"
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

var corpus []State //nolint:gochecknoglobals // states visited by the scripts, for the report

func TestScripts(t *testing.T) {
	corpus = nil
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		e := &env{t: t, m: New(), last: map[string]events.ActionID{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			e.out.Reset()
			e.t = t
			e.run(d)
			return e.out.String()
		})
		if e.s.Defects != 0 {
			t.Errorf("%s: the machine counted %d defects", path, e.s.Defects)
		}
	})
	if !flag.Parsed() {
		t.Fatal("flags are not parsed")
	}
	checkReport(t)
}

// env is one agent's machine under a script.
type env struct {
	t    *testing.T
	m    *Machine
	s    State
	seq  uint64
	now  events.Instant
	out  strings.Builder
	last map[string]events.ActionID // latest action of each kind
	said string
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

// step feeds one event, and the Reconsiders that follow it.
func (e *env) step(ev events.Event) {
	e.t.Helper()
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
			fmt.Fprintf(&e.out, "VIOLATION: %s\n", v)
			e.t.Errorf("%s: %s", ev.Kind(), v)
		}
		e.s = s
		corpus = append(corpus, s)
		e.report(d)
		if !d.Fired() {
			return
		}
		ev = events.Reconsider{}
	}
}

func (e *env) report(d Decision) {
	if d.Fired() {
		fmt.Fprintf(&e.out, "%s -%s-> %s: %s\n", d.From, d.Trigger, d.To, d.Reason.Text)
	} else if line := d.Reason.Rule + ": " + d.Reason.Text; line != e.said && !strings.HasSuffix(d.Reason.Rule, "/leading") {
		fmt.Fprintf(&e.out, "%s\n", line)
		e.said = line
	}
	for _, o := range d.Actions {
		if !Silent(o.Action) {
			e.last[o.Action.Kind()] = o.ID
		}
		switch a := o.Action.(type) {
		case SetTimer, ObservePostgres:
			continue
		case PublishMember:
			fmt.Fprintf(&e.out, "  publish-member %s %s\n", a.Member.Role, a.Member.State)
		default:
			b, err := json.Marshal(a)
			if err != nil {
				e.t.Fatal(err)
			}
			fmt.Fprintf(&e.out, "  %s %s\n", a.Kind(), b)
		}
	}
}

func (e *env) run(d *datadriven.TestData) {
	a := parseArgs(d)
	switch d.Cmd {
	case "start":
		e.start(a)
	case "keeper":
		e.step(events.KeeperFound{PID: int(a.num("pid")), Armed: a.has("armed"), Deadline: e.now.Add(a.dur("armed", 0))})
	case "postgres":
		e.step(events.PostgresObserved{State: e.postgres(d, a), Began: e.now})
	case "cluster":
		e.cluster(a)
	case "done", "refused", "unavailable", "unknown":
		e.outcome(d, a)
	case "acquired":
		e.step(events.LeaseAcquired{ID: e.last["acquire-leader"], Revision: events.Revision(a.num("rev"))})
	case "renewed":
		var keys []string
		if a.has("leader") {
			keys = append(keys, "leader")
		}
		e.renewed(append(keys, "members/"+string(e.s.Self)))
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
	case "why":
		e.why()
	default:
		e.simple(d, a)
	}
	fmt.Fprintf(&e.out, "= %s, %s\n", e.s.Phase, e.s.Last.Status)
}

// simple are facts that need no more than their fields.
func (e *env) simple(d *datadriven.TestData, a args) {
	switch d.Cmd {
	case "down":
		e.step(events.PostgresDown{PID: e.s.Postgres.State.PID, Signal: int(a.num("signal")), Ours: a.has("ours"), Fenced: a.has("fenced")})
	case "fence-begun":
		e.step(events.FenceBegun{Why: "deadline"})
	case "keeper-lost":
		e.step(events.KeeperLost{Why: "killed"})
	case "rogue":
		e.step(events.UnexpectedPrimary{Timeline: events.Timeline(a.num("tl"))})
	case "walreceiver-ended":
		e.step(events.WalReceiverEnded{})
	case "sync-lost":
		e.step(events.SyncLost{Standby: events.NodeName(a["standby"]), Mode: "sync"})
	case "peer":
		e.step(events.PeerObserved{ID: e.last["probe-peers"], Peer: events.Peer{
			Name: events.NodeName(a["name"]), Reachable: !a.has("silent"), Primary: a.has("primary"),
			Timeline: events.Timeline(a.num("tl")), Position: events.LSN(a.num("lsn")),
			Tags: events.Tags{NoFailover: a.has("nofailover"), FailoverPriority: max(1, int(a.num("priority")))},
		}})
	case "store-down":
		e.step(events.DCSUnavailable{Why: "no answer"})
	case "store-up":
		e.step(events.DCSRestored{})
	case "shutdown":
		e.step(events.ShutdownRequested{By: "SIGTERM"})
	case "switchover":
		e.step(events.SwitchoverRequested{ID: "1", From: events.NodeName(a["from"]), To: events.NodeName(a["to"])})
	case "restart":
		e.step(events.RestartRequested{ID: "2"})
	case "time-jumped":
		e.now = e.now.Add(a.dur("by", time.Minute))
		e.step(events.TimeJumped{By: a.dur("by", time.Minute)})
	case "start-timeout":
		e.step(events.PrimaryStartTimeout{})
	case "reconsider":
		e.step(events.Reconsider{})
	default:
		e.t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	}
}

func (e *env) start(a args) {
	if e.now == 0 {
		e.now = events.Instant(100 * time.Second)
	}
	self := events.NodeName(a["self"])
	if self == "" {
		self = e.s.Self
	}
	set := events.Settings{
		TTL: a.dur("ttl", 2*time.Second), LoopWait: a.dur("loop_wait", time.Second), RetryTimeout: time.Second,
		PrimaryStartTimeout: a.dur("start_timeout", 300*time.Second), MaximumLagOnFailover: 1000,
		MemberSlotsTTL: 30 * time.Minute, UseSlots: a.has("slots"), UsePgRewind: true, RemoveDataDir: !a.has("keep_data"),
		StopWait: 10 * time.Second, MayBootstrap: true, Pause: a.has("pause"),
		Tags:    events.Tags{NoFailover: a.has("nofailover"), FailoverPriority: max(1, int(a.num("priority")))},
		ConnURL: "postgres://" + string(self) + ":5432/postgres", APIURL: "http://" + string(self) + ":8008/patroni",
		BootstrapConfig: `{"ttl":2}`,
	}
	e.step(events.AgentStarted{Node: self, Scope: "demo", Version: "test", Boot: "boot1", Settings: set})
}

func (e *env) postgres(d *datadriven.TestData, a args) events.PostgresState {
	p := events.PostgresState{ServerVersion: 150000}
	p.Data = events.DataDir{Content: events.DataCluster, SystemID: "7000000000000000001", CanRewind: !a.has("norewind")}
	if a.has("sysid") {
		p.Data.SystemID = events.SystemID(a["sysid"])
	}
	tl, lsn := events.Timeline(max(a.num("tl"), 1)), events.LSN(a.num("lsn"))
	p.CheckpointTimeline = tl
	if a.has("unchecked") {
		p.CheckpointTimeline = tl - 1
	}
	up := func() { p.Running, p.Ready, p.PID, p.Timeline = true, true, 4242, tl }
	switch d.CmdArgs[0].Key {
	case "empty":
		p.Data = events.DataDir{Content: events.DataEmpty}
	case "broken":
		p.Data = events.DataDir{Content: events.DataBroken, Problem: "no control file"}
	case "stopped":
		p.Data.Standby = a.has("standby_data")
	case "silent":
		p.Running, p.PID, p.Why = true, 4242, "timeout"
	case "primary":
		up()
		p.Position = lsn
		for _, n := range strings.Split(a["standbys"], ",") {
			if n != "" {
				p.Standbys = append(p.Standbys, events.StandbyState{Name: events.NodeName(n), State: "streaming", Flushed: lsn})
			}
		}
	case "standby":
		up()
		p.InRecovery, p.Received, p.Replayed, p.Data.Standby = true, lsn, lsn, true
		if u := a["upstream"]; u != "" {
			p.ConfiguredUpstream, p.Upstream, p.Streaming = u+":5432", u+":5432", a.has("streaming")
		}
	default:
		e.t.Fatalf("%s: unknown postgres %q", d.Pos, d.CmdArgs[0].Key)
	}
	return p
}

func (e *env) cluster(a args) {
	v := events.ClusterView{Revision: events.Revision(a.num("rev"))}
	if a.has("init") {
		v.Initialize = events.Initialize{Version: 1, SystemID: events.SystemID(a["init"]), By: events.NodeName(a["by"])}
	} else if !a.has("fresh") {
		v.Initialize = events.Initialize{Version: 1, SystemID: "7000000000000000001"}
	}
	if !a.has("fresh") {
		v.Config = events.DynamicConfig{Version: 1}
	}
	if l := a["leader"]; l != "" {
		name, lease, _ := strings.Cut(l, "/")
		since := v.Revision
		if a.has("since") {
			since = events.Revision(a.num("since"))
		}
		v.Leader = events.Leader{Name: events.NodeName(name), Lease: events.LeaseID(lease), Created: since, Version: since}
	}
	for _, m := range strings.Split(a["members"], ",") {
		if m == "" {
			continue
		}
		f := strings.Split(m, ":")
		mem := events.Member{Name: events.NodeName(f[0]), Role: f[1], State: "running", Regent: "test",
			ConnURL: "postgres://" + f[0] + ":5432/postgres", APIURL: "http://" + f[0] + ":8008/patroni",
			HandOff: events.LeaseID("L-" + f[0]), Timeline: events.Timeline(max(a.num("tl"), 1)), XLogLocation: events.LSN(a.num("optime")),
			Tags: events.Tags{FailoverPriority: 1}}
		for _, x := range f[2:] {
			switch x {
			case "patroni":
				mem.HandOff, mem.Regent = "", ""
			case "nofailover":
				mem.Tags.NoFailover = true
			case "unchecked":
				mem.CheckpointPending = true
			case "stopped":
				mem.State = "stopped"
			}
		}
		v.Members = append(v.Members, mem)
	}
	sort.Slice(v.Members, func(i, j int) bool { return v.Members[i].Name < v.Members[j].Name })
	v.Status = events.Status{Version: 1, Optime: events.LSN(a.num("optime"))}
	if f := a["failover"]; f != "" {
		from, to, _ := strings.Cut(f, ">")
		v.Failover = events.FailoverRequest{Version: v.Revision, Leader: events.NodeName(from), Candidate: events.NodeName(to)}
	}
	if tl := a.num("history"); tl > 0 {
		v.History = events.History{Version: 1}
		for i := uint64(1); i < tl; i++ {
			v.History.Lines = append(v.History.Lines, events.HistoryLine{Timeline: events.Timeline(i), LSN: 1})
		}
	}
	ev := events.ClusterObserved{View: v}
	if a.has("read") {
		ev.Read = e.now
		e.step(ev)
		if id := e.last["refresh-view"]; e.s.inFlightID(Flight{ID: id}) {
			e.step(events.ActionFinished{ID: id, Action: "refresh-view", Class: events.Done})
		}
		return
	}
	e.step(ev)
}

func (e *env) outcome(d *datadriven.TestData, a args) {
	kind := d.CmdArgs[0].Key
	id, ok := e.last[kind]
	if !ok {
		e.t.Fatalf("%s: no %s was ordered", d.Pos, kind)
	}
	r := events.Result{
		Lease: events.LeaseID(a["lease"]), TTL: a.dur("ttl", e.s.Settings.TTL), SentAt: e.now,
		Revision: events.Revision(a.num("rev")), EndLSN: events.LSN(a.num("end")), Position: events.LSN(a.num("lsn")),
	}
	if a.has("verdict") {
		r.Divergence = &events.Divergence{Verdict: events.Verdict(a["verdict"]), Why: "as judged"}
	}
	if a.has("postgres") {
		words := strings.Split(a["postgres"], ",")
		p := e.postgres(&datadriven.TestData{Pos: d.Pos, CmdArgs: []datadriven.CmdArg{{Key: words[0]}}}, a)
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

func (e *env) renewed(keys []string) {
	lease := e.s.Lease.ID
	if l := e.s.Store.View.Leader; l.Name == e.s.Self && lease == "" {
		lease = l.Lease
	}
	slices.Sort(keys)
	e.step(events.LeaseRenewed{ID: e.last["renew-lease"], Lease: lease, TTL: e.s.Settings.TTL, SentAt: e.now, Keys: keys})
}

// advance lets time pass; the timer fires on its way. With renewing, renewals
// succeed at once.
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
		e.step(TimerEvent(e.s.Timer.Name))
		if a.has("renewing") && e.s.InFlight(RenewLease{}) {
			var keys []string
			if e.s.holds() {
				keys = append(keys, "leader")
			}
			e.renewed(keys)
		}
		if a.has("failing") && e.s.InFlight(RenewLease{}) {
			e.step(events.RenewalFailed{ID: e.last["renew-lease"], Class: events.Unavailable, Why: "timeout"})
		}
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
