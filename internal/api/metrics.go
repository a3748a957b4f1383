package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/metrics"
)

// metrics answers GET /metrics, always with 200: Patroni's names, in its order and words,
// which dashboards know; then Regent's own.
func (s *Server) metrics(ctx context.Context, _ *request) *reply {
	c := s.look(ctx)
	labels := []metrics.Label{{Name: "scope", Value: s.opt.Scope}, {Name: "name", Value: string(s.opt.Name)}}
	if s.old() {
		labels = labels[:1]
	}
	p := metrics.NewPage(labels...)
	s.measureServer(p, &c)
	s.measureCluster(p, &c)
	if s.opt.Meter != nil {
		s.opt.Meter.Write(p, &c.state, c.now)
	}
	return &reply{code: 200, kind: metrics.ContentType, body: p.Bytes()}
}

// measureServer writes what Patroni tells of the member's PostgreSQL.
func (s *Server) measureServer(p *metrics.Page, c *condition) {
	gauge := func(name, help, value string) { p.Add(metrics.Gauge, "patroni_"+name, help, value) }
	is := func(name, what string, v bool) {
		gauge(name, "Value is 1 if this node is "+what+", 0 otherwise.", metrics.Flag(v))
	}
	counter := func(name, help string, value uint64) {
		p.Add(metrics.Counter, "patroni_"+name, help, metrics.Whole(value))
	}
	pg := c.state.Postgres.State
	recovering := c.live && pg.InRecovery
	var started, location, received, replayed, replayedAt = "0", uint64(0), uint64(0), uint64(0), "0"
	if c.live {
		started = epoch(pg.StartedAt)
	}
	switch {
	case recovering:
		received, replayed, replayedAt = uint64(pg.Received), uint64(pg.Replayed), epoch(pg.ReplayedAt)
		if received == 0 {
			received = replayed
		}
	case c.live:
		location = uint64(pg.Position)
	}
	gauge("version", "Patroni semver without periods.", packedVersion())
	gauge("postgres_running", "Value is 1 if Postgres is running, 0 otherwise.", metrics.Flag(c.word == "running"))
	gauge("postmaster_start_time", "Epoch seconds since Postgres started.", started)
	if s.old() {
		is("master", "the leader", c.role == "primary")
	}
	is("primary", "the leader", c.role == "primary")
	counter("xlog_location", "Current location of the Postgres transaction log, 0 if this node is a replica.", location)
	is("standby_leader", "the standby_leader", c.role == "standby_leader")
	is("replica", "a replica", c.role == "replica")
	synced := c.live && c.role == "replica" && c.inSync()
	is("sync_standby", "a sync standby", synced && c.mode.sync)
	if !s.old() {
		is("quorum_standby", "a quorum standby", synced && c.mode.quorum)
	}
	counter("xlog_received_location", "Current location of the received Postgres transaction log, 0 if this node is the primary.", received)
	counter("xlog_replayed_location", "Current location of the replayed Postgres transaction log, 0 if this node is the primary.", replayed)
	gauge("xlog_replayed_timestamp", "Current timestamp of the replayed Postgres transaction log, 0 if null.", replayedAt)
	gauge("xlog_paused", "Value is 1 if the Postgres xlog is paused, 0 otherwise.", metrics.Flag(recovering && pg.ReplayPaused))
	if c.live {
		gauge("postgres_streaming", "Value is 1 if Postgres is streaming, 0 otherwise.", metrics.Flag(replicationState(pg) == "streaming"))
		gauge("postgres_in_archive_recovery", "Value is 1 if Postgres is replicating from archive, 0 otherwise.",
			metrics.Flag(replicationState(pg) == "in archive recovery"))
	}
}

// measureCluster writes the rest of what Patroni tells.
func (s *Server) measureCluster(p *metrics.Page, c *condition) {
	pg := c.state.Postgres.State
	var version, timeline uint64
	if c.live {
		version, timeline = uint64(pg.ServerVersion), uint64(pg.Timeline)
	}
	name, kind := "patroni_postgres_server_version", metrics.Gauge
	const help = "Version of Postgres (if running), 0 otherwise."
	if s.old() {
		p.Family(kind, name, help)
		p.Sample(name+" ", metrics.Whole(version)) // with that version's blank
		kind = metrics.Counter
	} else {
		p.Add(kind, name, help, metrics.Whole(version))
	}
	gauge := func(name, help, value string, notes ...string) {
		p.Add(metrics.Gauge, "patroni_"+name, help, value, notes...)
	}
	gauge("cluster_unlocked", "Value is 1 if the cluster is unlocked, 0 if locked.", metrics.Flag(c.unlocked()))
	gauge("failsafe_mode_is_active", "Value is 1 if failsafe mode is active, 0 if inactive.", metrics.Flag(c.state.FailsafeActive(c.now)))
	p.Add(kind, "patroni_postgres_timeline", "Postgres timeline of this node (if running), 0 otherwise.", metrics.Whole(timeline))
	gauge("dcs_last_seen", "Epoch timestamp when DCS was last contacted successfully by Patroni.", strconv.FormatInt(c.lastSeen(s.wall()), 10))
	gauge("pending_restart", "Value is 1 if the node needs a restart, 0 otherwise.", metrics.Flag(pg.PendingRestart))
	gauge("is_paused", "Value is 1 if auto failover is disabled, 0 otherwise.", metrics.Flag(c.mode.paused))
	if !s.old() {
		gauge("postgres_state", "Numeric representation of Postgres state.", strconv.Itoa(slices.Index(stateWords(), c.word)), stateLegend)
	}
}

// stateWords are the states by the number that they have in the metrics.
func stateWords() []string {
	return []string{
		"initializing new cluster", "initdb failed", "running custom bootstrap script", "custom bootstrap failed", "creating replica",
		"running", "starting", "starting after custom bootstrap", "start failed", "restarting", "restart failed", "stopping", "stopped",
		"stop failed", "crashed",
	}
}

const stateLegend = "Values: 0=initdb, 1=initdb_failed, 2=custom_bootstrap, 3=custom_bootstrap_failed, 4=creating_replica, 5=running, " +
	"6=starting, 7=bootstrap_starting, 8=start_failed, 9=restarting, 10=restart_failed, 11=stopping, 12=stopped, 13=stop_failed, 14=crashed"

// packedVersion is the version that is imitated with two digits for each part.
func packedVersion() string {
	var b strings.Builder
	for part := range strings.SplitSeq(fsm.PatroniVersion, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			break // a suffix is no number
		}
		fmt.Fprintf(&b, "%02d", n)
	}
	return b.String()
}

// epoch rewrites a time as PostgreSQL prints it in seconds since 1970; 0 for none.
func epoch(s string) string {
	t, err := time.Parse("2006-01-02 15:04:05.999999-07:00", events.PythonTime(s))
	if err != nil {
		return "0"
	}
	return fmt.Sprintf("%d.%06d", t.Unix(), t.Nanosecond()/1000)
}
