package fsm

import (
	"sort"
	"strings"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/pgregent/regent/events"
)

// Facts of the scripts, from one line each.

const testSystemID = events.SystemID("7000000000000000001")

// settings of a member under test: ttl 2 s, loop_wait 1 s, unless the line says otherwise.
func (a args) settings(self events.NodeName) events.Settings {
	return events.Settings{
		TTL: a.dur("ttl", 2*time.Second), LoopWait: a.dur("loop_wait", time.Second), RetryTimeout: time.Second,
		PrimaryStartTimeout: a.dur("start_timeout", 300*time.Second), PrimaryStopTimeout: a.dur("stop_timeout", 0), MaximumLagOnFailover: 1000,
		MemberSlotsTTL: a.dur("slots_ttl", 30*time.Minute), UseSlots: a.has("slots"), UsePgRewind: !a.has("no_rewind"),
		RemoveDataDir: !a.has("keep_data"), CheckTimeline: a.has("check_timeline"),
		StopWait: 10 * time.Second, MayBootstrap: true, Pause: a.has("pause"), FencingOff: a.has("fencing_off"), ConfigVersion: events.Revision(a.with(args{"config": "1"}).num("config")),
		Failsafe: a.has("failsafe_mode"), Sync: a.has("sync_mode") || a.has("strict"), SyncStrict: a.has("strict"), MaximumLagOnSync: int64(a.num("lag_on_sync")),
		Tags: events.Tags{
			NoFailover: a.has("nofailover"), FailoverPriority: max(1, int(a.num("priority"))),
			ReplicateFrom: events.NodeName(a["replicatefrom"]), NoStream: a.has("nostream"),
		},
		ConnURL: "postgres://" + string(self) + ":5432/postgres", APIURL: "http://" + string(self) + ":8008/patroni",
		BootstrapConfig: `{"ttl":2}`,
	}
}

// postgres is what the sensor sees: empty, broken, stopped, silent, primary or standby.
func (e *env) postgres(d *datadriven.TestData, what string, a args) events.PostgresState {
	p := events.PostgresState{ServerVersion: 150000, StartedAt: a["started"], PendingRestart: a.has("pending")}
	if a.has("no_watchdog") {
		p.Watchdog = "there is no /dev/watchdog"
	}
	p.Data = events.DataDir{Content: events.DataCluster, SystemID: testSystemID, CanRewind: !a.has("norewind")}
	if a.has("sysid") {
		p.Data.SystemID = events.SystemID(a["sysid"])
	}
	tl, lsn := events.Timeline(max(a.num("tl"), 1)), events.LSN(a.num("lsn"))
	p.CheckpointTimeline = tl
	if a.has("unchecked") {
		p.CheckpointTimeline = tl - 1
	}
	up := func() { p.Running, p.Ready, p.PID, p.Timeline = true, true, 4242, tl }
	switch what {
	case "empty":
		p.Data = events.DataDir{Content: events.DataEmpty}
	case "broken":
		p.Data = events.DataDir{Content: events.DataBroken, Problem: "no control file"}
		if a.has("half_rewound") {
			p.Data.SystemID, p.Data.Problem = testSystemID, "left unusable by an interrupted rewind"
		}
	case "stopped":
		p.Data.Standby = a.has("standby_data")
		if a.has("signal") {
			p.Ended = &events.PostgresDown{PID: int(max(a.num("ended"), 4242)), Signal: int(a.num("signal"))}
		}
	case "silent":
		p.Running, p.PID, p.Why = true, 4242, "timeout"
	case "primary":
		up()
		p.Position = lsn
		// Parentheses and spaces have a meaning in scripts: names=(2~[a,b]).
		p.SyncNames, p.SyncHeld = strings.NewReplacer("[", "(", "]", ")", "~", " ").Replace(a["names"]), a.has("names")
		for _, n := range a.list("standbys") {
			p.Standbys = append(p.Standbys, standby(n, lsn))
		}
		for _, n := range a.list("slots") {
			p.Slots = append(p.Slots, events.SlotState{Name: n, Type: "physical", Active: true, RestartLSN: lsn})
		}
	case "standby":
		up()
		p.InRecovery, p.Received, p.Replayed, p.Data.Standby = true, lsn, lsn, true
		if u := a["upstream"]; u != "" {
			p.ConfiguredUpstream, p.Upstream, p.Streaming = u+":5432", u+":5432", !a.has("cut")
		}
	default:
		e.t.Fatalf("%s: unknown postgres %q", d.Pos, what)
	}
	return p
}

// standby is one of those connected: NAME[:lsn=N][:sync][:catchup].
func standby(spec string, lsn events.LSN) events.StandbyState {
	f := strings.Split(spec, ":")
	st := events.StandbyState{Name: events.NodeName(f[0]), State: "streaming", Flushed: lsn, SyncState: "async"}
	for _, x := range f[1:] {
		k, val, _ := strings.Cut(x, "=")
		switch k {
		case "lsn":
			st.Flushed = events.LSN(args{"v": val}.num("v"))
		case "sync", "potential":
			st.SyncState = k
		default:
			st.State = k
		}
	}
	return st
}

// view is the store's content:
//
//	leader=NAME/LEASE@VERSION  members=(NAME:ROLE[:lsn=N][:tl=N][:FLAG…],…)
//	fresh | claimed-by=NAME | init=SYSID  optime=N  history=TIMELINE
//	failover=FROM>TO [scheduled=TIME]  sync=VERSION[/LEADER[/STANDBY,…]]  config=VERSION
//	failsafe=VERSION/NAME,…
func (e *env) view(a args) events.ClusterView {
	v := events.ClusterView{Revision: events.Revision(a.num("rev"))}
	switch {
	case a.has("claimed-by"):
		v.Initialize = events.Initialize{Version: max(1, events.Revision(a.num("claim"))), By: events.NodeName(a["claimed-by"])}
	case a.has("init"):
		v.Initialize = events.Initialize{Version: 1, SystemID: events.SystemID(a["init"])}
	case !a.has("fresh"):
		v.Initialize = events.Initialize{Version: 1, SystemID: testSystemID}
	}
	if !a.has("fresh") && !a.has("claimed-by") {
		v.Config = events.DynamicConfig{Version: max(1, events.Revision(a.num("config")))}
	}
	if l := a["leader"]; l != "" {
		l, at, _ := strings.Cut(l, "@")
		name, lease, _ := strings.Cut(l, "/")
		since := v.Revision
		if at != "" {
			since = events.Revision(args{"v": at}.num("v"))
		}
		v.Leader = events.Leader{Name: events.NodeName(name), Lease: events.LeaseID(lease), Created: since, Version: since}
	}
	for _, m := range a.list("members") {
		v.Members = append(v.Members, member(m, a))
	}
	sort.Slice(v.Members, func(i, j int) bool { return v.Members[i].Name < v.Members[j].Name })
	v.Status = events.Status{Version: 1, Optime: events.LSN(a.num("optime")), RetainSlots: a.list("retained")}
	if at, names, ok := strings.Cut(a["sync"], "/"); at != "" {
		v.Sync.Version = events.Revision(args{"v": at}.num("v"))
		leader, standbys, _ := strings.Cut(names, "/")
		if ok {
			v.Sync.Leader = events.NodeName(leader)
		}
		for _, n := range strings.FieldsFunc(standbys, func(r rune) bool { return r == ',' }) {
			v.Sync.Standbys = append(v.Sync.Standbys, events.NodeName(n))
		}
	}
	v.Failsafe = failsafeKey(a["failsafe"])
	v.Move = storeMove(a["move"], a.list("expected"))
	if f := a["failover"]; f != "" {
		from, to, _ := strings.Cut(f, ">")
		v.Failover = events.FailoverRequest{Version: v.Revision, Leader: events.NodeName(from), Candidate: events.NodeName(to)}
		v.Failover.ScheduledAt = a["scheduled"]
		if a.has("asked") {
			v.Failover.Version = events.Revision(a.num("asked"))
		}
	}
	if tl := a.num("history"); tl > 0 {
		v.History = events.History{Version: 1}
		for i := uint64(1); i < tl; i++ {
			v.History.Lines = append(v.History.Lines, events.HistoryLine{Timeline: events.Timeline(i), LSN: 1})
		}
	}
	return v
}

// schedule is a restart in so many seconds: in=N [role=R] [older=N] [pending].
func (e *env) schedule(a args) *events.RestartSchedule {
	if !a.has("in") {
		return nil
	}
	at := e.now.Add(a.dur("in", 0))
	return &events.RestartSchedule{
		At: time.Unix(0, int64(at)).UTC().Format(time.RFC3339Nano), Wall: int64(at), Role: a["role"], OlderThan: int(a.num("older")),
		Pending: a.has("pending"), Timeout: a.dur("timeout", 0), StartedAt: e.s.Postgres.State.StartedAt,
	}
}

// member is a member's key.
func member(spec string, a args) events.Member {
	f := strings.Split(spec, ":")
	m := events.Member{
		Name: events.NodeName(f[0]), Role: "replica", State: "running", Regent: "test",
		ConnURL: "postgres://" + f[0] + ":5432/postgres", APIURL: "http://" + f[0] + ":8008/patroni",
		HandOff: events.LeaseID("L-" + f[0]), Timeline: events.Timeline(max(a.num("tl"), 1)), XLogLocation: events.LSN(a.num("optime")),
		Tags: events.Tags{FailoverPriority: 1},
	}
	if len(f) > 1 {
		m.Role = f[1]
	}
	for _, x := range f[min(2, len(f)):] {
		k, val, _ := strings.Cut(x, "=")
		n := args{"v": val}.num("v")
		switch k {
		case "lsn":
			m.XLogLocation = events.LSN(n)
		case "tl":
			m.Timeline = events.Timeline(n)
		case "patroni":
			m.HandOff, m.Regent = "", ""
		case "nofailover":
			m.Tags.NoFailover = true
		case "clonefrom":
			m.Tags.CloneFrom = true
		case "nosync":
			m.Tags.NoSync = true
		case "sync_priority":
			m.Tags.SyncPriority = int(n)
		case "unchecked":
			m.CheckpointPending = true
		case "paused":
			m.Pause = true
		case "move":
			m.Move = val
		case "barred":
			m.Barred = "there is no /dev/watchdog"
		case "unfit":
			m.Unfit = "exit status 1"
		case "stopped", "starting":
			m.State = k
		}
	}
	return m
}

// found is what a member publishes of others.
func found(m events.Member) string {
	if m.Orphan == "" {
		return ""
	}
	return " orphan=" + string(m.Orphan)
}

// failingStarts lets PostgreSQL fail to start a number of times, after the pauses between.
func (e *env) failingStarts(d *datadriven.TestData, n int) {
	down := e.postgres(d, "stopped", args{"standby_data": ""})
	e.quietly(func() {
		for range n {
			e.finish("judge", events.Result{Divergence: &events.Divergence{Verdict: events.VerdictFollow}, Postgres: &down})
			e.step(events.ActionFinished{
				ID: e.last["start-standby"], Action: "start-standby", Class: events.Unavailable, Why: "exit status 1",
				Result: events.Result{Postgres: &down},
			})
			e.now = max(e.now, e.s.Rejoin.NotBefore)
			e.step(events.TimerFired{Name: "rejoin"})
		}
	})
	e.why()
}
