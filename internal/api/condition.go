package api

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// condition is the member as one request finds it.
type condition struct {
	// state is the machine's, with the request's own observation of PostgreSQL in it.
	state fsm.State
	now   events.Instant
	// live: PostgreSQL answered while the request waited.
	live bool
	word string // state, as Patroni's interfaces say it
	role string
	// known: there is a view of the cluster that isn't older than the store's silence
	// may be. view is empty otherwise.
	known bool
	view  events.ClusterView
	mode  mode
}

// mode is what the dynamic configuration makes of the cluster.
type mode struct {
	paused bool
	// sync and quorum are the two kinds of synchronous mode; at most one is on.
	sync, quorum bool
	// standby: the whole cluster follows another one.
	standby bool
}

// modeOf reads a dynamic configuration. What can't be read is off.
func modeOf(raw json.RawMessage) mode {
	var c struct {
		Pause           any            `json:"pause"`
		SynchronousMode any            `json:"synchronous_mode"`
		StandbyCluster  map[string]any `json:"standby_cluster"`
	}
	_ = json.Unmarshal(raw, &c) // a field of another kind leaves the others readable
	m := mode{paused: isOn(c.Pause), sync: isOn(c.SynchronousMode)}
	if word, ok := c.SynchronousMode.(string); ok {
		m.quorum = strings.EqualFold(word, "quorum")
	}
	for _, key := range []string{"host", "port", "restore_command"} {
		v := c.StandbyCluster[key]
		m.standby = m.standby || (v != nil && v != "")
	}
	return m
}

func isOn(v any) bool {
	switch x := v.(type) {
	case bool:
		return x
	case string:
		switch strings.ToLower(x) {
		case "on", "true", "yes", "1":
			return true
		}
	case float64:
		return x == 1
	}
	return false
}

// glance is the member's condition as the machine knows it, PostgreSQL unasked.
func (s *Server) glance() condition {
	c := condition{state: *s.agent.Snapshot(), now: s.mono()}
	c.word, c.role = c.state.PostgresState(), c.state.Role()
	c.seeCluster()
	return c
}

// look is the member's condition with PostgreSQL asked now. A server that doesn't
// answer in time costs lookPatience and the details.
func (s *Server) look(ctx context.Context) condition {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	seen := s.looks.fresh(ctx)
	c := s.glance() // after the wait: the lease may have gone meanwhile
	if seen != nil && seen.began < c.state.Postgres.After && c.word == "running" {
		// An operation, leaving the old upstream say, has ended meanwhile, and the server runs.
		seen, c = s.looks.fresh(ctx), s.glance()
	}
	if seen == nil || seen.began < c.state.Postgres.After {
		// No answer, or one from before an operation or a crash that the machine knows of.
		c.unknownIfRunning()
		return c
	}
	before := c.state.Postgres
	c.state.Postgres.Known, c.state.Postgres.State = true, seen.state
	if !seen.state.Ready && seen.state.Running && c.word == "running" && before.State.PID == seen.state.PID {
		c.unknownIfRunning()
		return c
	}
	c.word, c.role = c.state.PostgresState(), c.state.Role()
	c.live = seen.state.Ready && (c.word == "running" || c.word == "starting" || c.word == "restarting")
	if c.live {
		c.role = c.liveRole()
	}
	return c
}

// unknownIfRunning: the server is there and says nothing.
func (c *condition) unknownIfRunning() {
	if c.word == "running" {
		c.word = "unknown"
	}
}

// liveRole is the role that the server itself shows.
func (c *condition) liveRole() string {
	switch {
	case !c.state.Postgres.State.InRecovery:
		return "primary"
	case c.mode.standby && c.leads():
		return "standby_leader"
	default:
		return "replica"
	}
}

// seeCluster takes the view, unless the store has been silent for a whole ttl: what
// it said then is nobody's word any more.
func (c *condition) seeCluster() {
	st := c.state.Store
	silent := st.DownSince != 0 && c.now.Sub(st.DownSince) > c.state.Settings.TTL
	if c.known = st.Known && !silent; c.known {
		c.view = st.View
	}
	c.mode = modeOf(c.view.Config.Raw)
	c.mode.paused = c.state.Settings.Pause
}

// leads: the member holds the leader lease, by its own clock, now.
//
// A bootstrapper takes the lock before its server exists; clients are to be sent to it
// only after the roles are there.
func (c *condition) leads() bool {
	return c.state.Leads(c.now) && c.state.Phase != fsm.Bootstrapping
}

// unlocked: nobody holds the leader lease, as far as is known.
func (c *condition) unlocked() bool { return !c.known || !c.view.Leader.Locked() }

// inSync: the member is one that commits may wait for.
func (c *condition) inSync() bool {
	return c.known && matchesSync(c.view.Sync, c.state.Self)
}

// matchesSync compares without case, as PostgreSQL does with these names.
func matchesSync(sync events.Sync, name events.NodeName) bool {
	for _, n := range sync.Standbys {
		if strings.EqualFold(string(n), string(name)) {
			return true
		}
	}
	return false
}

// tags are the member's tags as published.
func (c *condition) tags() json.RawMessage { return dcs.PublishedTags(c.state.Settings.Tags.Raw) }

// lastSeen is when the store last answered; 0 if never.
func (c *condition) lastSeen(wall time.Time) int64 {
	at := max(c.state.Store.Read, c.state.Store.At, c.state.Lease.Sent)
	if at == 0 {
		return 0
	}
	return wall.Add(at.Sub(c.now)).Unix()
}
