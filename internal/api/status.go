package api

import (
	"context"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// member answers GET /patroni, which always succeeds.
func (s *Server) member(ctx context.Context, _ *request) *reply {
	c := s.look(ctx)
	return inJSON(200, s.describe(&c))
}

// describe is the document of GET /patroni and of the health checks. Other members
// compare positions by it, so its keys and their order are Patroni's; what is
// Regent's own comes last, in a key that Patroni ignores.
func (s *Server) describe(c *condition) []byte {
	var o object
	o.text("state", c.word)
	p := c.state.Postgres.State
	if c.live {
		o.textOrNull("postmaster_start_time", events.PythonTime(p.StartedAt))
	}
	o.text("role", s.spell(c.role))
	if c.live {
		s.describeServer(&o, c)
	}
	o.flag("pause", c.state.HeedsPause())
	o.flag("cluster_unlocked", c.unlocked())
	o.flag("failsafe_mode_is_active", c.state.FailsafeActive(c.now))
	o.integer("dcs_last_seen", c.lastSeen(s.wall()))
	if tags := c.tags(); tags != nil {
		o.stored("tags", tags)
	}
	if id := p.Data.SystemID; id != "" {
		o.text("database_system_identifier", string(id))
	}
	o.flag("pending_restart", p.PendingRestart)
	if p.PendingRestart && p.PendingReason != nil && !s.old() {
		o.stored("pending_restart_reason", p.PendingReason)
	}
	var who object
	who.text("version", fsm.PatroniVersion)
	who.text("scope", s.opt.Scope)
	who.text("name", string(s.opt.Name))
	o.mapping("patroni", &who)
	if r := scheduledRestart(&c.state); r != nil {
		o.mapping("scheduled_restart", r)
	}
	o.flag("watchdog_failed", p.Watchdog != "")
	own := s.describeSelf(c)
	o.mapping("regent", &own)
	return o.bytes()
}

// spell is the role in the words of the version that is imitated.
func (s *Server) spell(role string) string {
	if role == "primary" && s.old() {
		return "master"
	}
	return role
}

// old reports whether the words are those of 3.0.4.
func (s *Server) old() bool { return s.opt.Compat == "3.0.4" }

// describeServer adds what only an answering PostgreSQL knows.
func (s *Server) describeServer(o *object, c *condition) {
	p := c.state.Postgres.State
	o.integer("server_version", int64(p.ServerVersion))
	var xlog object
	if p.InRecovery {
		// What was flushed, because a hand-off waits for it (safety rule S15); before
		// anything was streamed, what was replayed.
		received := p.Received
		if received == 0 {
			received = p.Replayed
		}
		xlog.unsigned("received_location", uint64(received))
		xlog.unsigned("replayed_location", uint64(p.Replayed))
		xlog.textOrNull("replayed_timestamp", events.PythonTime(p.ReplayedAt))
		xlog.boolean("paused", p.ReplayPaused)
	} else {
		xlog.unsigned("location", uint64(p.Position))
	}
	o.mapping("xlog", &xlog)
	if c.role == "replica" && c.inSync() {
		o.flag("sync_standby", c.mode.sync)
		o.flag("quorum_standby", c.mode.quorum)
	}
	o.unsigned("timeline", uint64(p.Timeline))
	if word := replicationState(p); word != "" {
		o.text("replication_state", word)
	}
	if len(p.Standbys) > 0 {
		rows := make([][]byte, 0, len(p.Standbys))
		for _, row := range p.Standbys {
			rows = append(rows, describeStandby(row))
		}
		o.list("replication", rows)
	}
}

// replicationState is "" for a primary, and for a standby that doesn't stream.
func replicationState(p events.PostgresState) string {
	if p.InRecovery && p.Streaming {
		return "streaming"
	}
	return ""
}

func describeStandby(row events.StandbyState) []byte {
	var o object
	o.text("usename", row.User)
	o.text("application_name", string(row.Name))
	o.textOrNull("client_addr", row.Addr)
	o.text("state", row.State)
	o.text("sync_state", row.SyncState)
	o.integer("sync_priority", int64(row.SyncPriority))
	return o.bytes()
}

// describeSelf is Regent's own part.
func (s *Server) describeSelf(c *condition) object {
	var o object
	st := &c.state
	o.text("version", s.opt.Version)
	o.text("phase", string(st.Phase))
	o.text("status", st.Last.Status)
	o.text("rule", st.Last.Reason.Rule)
	o.text("reason", st.Last.Reason.Text)
	ttl := st.Lease.TTL
	if ttl == 0 {
		ttl = st.Settings.TTL
	}
	// B of safety rule S2: how long before the belief's end the server is stopped.
	o.integer("stop_budget_ms", events.StopBudget(ttl).Milliseconds())
	if c.leads() {
		o.integer("belief_left_ms", st.BeliefEnd().Sub(c.now).Milliseconds())
	}
	if p := st.Postgres.State; !p.Ready && p.Data.Content == events.DataCluster {
		// A race waits for a member that has more WAL than the others, and a server
		// that is down can't be asked.
		lsn, timeline := p.Data.End()
		o.unsigned("down_at", uint64(lsn))
		o.unsigned("down_timeline", uint64(timeline))
	}
	o.text("fencing", s.fencing(st))
	if why := st.Postgres.State.Watchdog; why != "" {
		o.text("watchdog", why)
	}
	if st.Journal != "" {
		o.text("journal_degraded", st.Journal)
	}
	return o
}

// scheduledRestart is the restart to come; nil: none.
func scheduledRestart(st *fsm.State) *object {
	r := st.Schedule
	if r == nil {
		return nil
	}
	var o object
	o.text("schedule", r.At)
	if r.Role != "" {
		o.text("role", r.Role)
	}
	if r.Version != "" {
		o.text("postgres_version", r.Version)
	}
	o.flag("restart_pending", r.Pending)
	if r.Timeout > 0 {
		o.integer("timeout", int64(r.Timeout/time.Second))
	}
	return &o
}

// fencing says what would stop this member's PostgreSQL in time: "armed" (the keeper,
// at the deadline), "ready" (the keeper, nothing to fence), "adopted" (a server that
// the keeper didn't start: no exit status, no death signal, safety rule S5),
// "stopping" (it is being stopped), "lost" (no keeper at the moment), "paused" (nothing:
// maintenance mode is on, S11), or "off" (nothing: the setting is off).
func (s *Server) fencing(st *fsm.State) string {
	switch {
	case st.Settings.FencingOff:
		return "off"
	case st.Unfenced() == events.WaivedPause:
		return "paused"
	case !st.Keeper.Up:
		return "lost"
	case st.Keeper.Fencing:
		return "stopping"
	case st.Keeper.Adopted && st.Postgres.State.Running:
		return "adopted"
	case st.Keeper.Armed:
		return "armed"
	default:
		return "ready"
	}
}
