package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// check is what a health check asks for.
type check int

const (
	checkNothing check = iota // never true
	checkStandbyLeader
	checkLeader
	checkPrimary
	checkReplica
	checkReadOnly
	checkHealth
	checkSync
	checkQuorum
	checkAsync
	checkReadOnlySync
	checkReadOnlyQuorum
)

// checkOf finds the check that a path asks for. Most names count wherever they are in
// the path, the first in this order: clients send //leader, /primary/ and the like.
func checkOf(path string) check {
	has := func(part string) bool { return strings.Contains(path, part) }
	switch {
	case path == "/":
		return checkPrimary
	case has("standby_leader"), has("standby-leader"):
		return checkStandbyLeader
	case has("leader"):
		return checkLeader
	case has("master"), has("primary"), has("read-write"):
		return checkPrimary
	case has("replica"):
		return checkReplica
	case has("read-only") && !has("sync") && !has("quorum"):
		return checkReadOnly
	case has("health"):
		return checkHealth
	}
	switch path {
	case "/sync", "/synchronous":
		return checkSync
	case "/quorum":
		return checkQuorum
	case "/async", "/asynchronous":
		return checkAsync
	case "/read-only-sync", "/read-only-synchronous":
		return checkReadOnlySync
	case "/read-only-quorum":
		return checkReadOnlyQuorum
	default:
		return checkNothing
	}
}

// byLease: the check asks for the lease, and takes no parameters.
func (k check) byLease() bool {
	return k == checkStandbyLeader || k == checkLeader || k == checkPrimary
}

// health answers a health check with the member's document.
func (s *Server) health(ctx context.Context, r *request) *reply {
	c := s.look(ctx)
	return inJSON(statusOf(c.passes(checkOf(r.path), r)), s.describe(&c))
}

// healthStatus answers it with the status alone. What depends on the lease only is
// not held up by a hanging PostgreSQL.
func (s *Server) healthStatus(ctx context.Context, r *request) *reply {
	k := checkOf(r.path)
	if k == checkNothing {
		return verdict(false)
	}
	c := s.glance()
	if !k.byLease() || (!c.known && c.mode.paused) {
		c = s.look(ctx)
	}
	return verdict(c.passes(k, r))
}

// passes decides a check.
func (c *condition) passes(k check, r *request) bool {
	if !k.byLease() && !c.tagsMatch(r) {
		return false
	}
	switch k {
	case checkStandbyLeader, checkLeader, checkPrimary:
		return c.passesByLease(k)
	case checkReplica:
		return c.servesReads(r)
	case checkReadOnly:
		return c.holdsEither() || c.servesReads(r)
	case checkHealth:
		return c.word == "running"
	case checkSync:
		return c.mode.sync && c.inSync() && c.servesReads(r)
	case checkQuorum:
		return c.mode.quorum && c.inSync() && c.servesReads(r)
	case checkAsync:
		return c.known && !((c.mode.sync || c.mode.quorum) && c.inSync()) && c.servesReads(r)
	case checkReadOnlySync:
		return c.holdsEither() || (c.mode.sync && c.inSync() && c.servesReads(r))
	case checkReadOnlyQuorum:
		return c.holdsEither() || (c.mode.quorum && c.inSync() && c.servesReads(r))
	default:
		return false
	}
}

// passesByLease decides by the lease, and the role of PostgreSQL plays no part; but
// in maintenance mode without a view there is nothing else to go by.
func (c *condition) passesByLease(k check) bool {
	if !c.known && c.mode.paused {
		switch k {
		case checkStandbyLeader:
			return c.role == "standby_leader"
		case checkPrimary:
			return c.role == "primary"
		default:
			return c.role == "primary" || c.role == "standby_leader"
		}
	}
	switch k {
	case checkStandbyLeader:
		return c.leads() && c.mode.standby && (c.role == "replica" || c.role == "standby_leader")
	case checkPrimary:
		return c.leads() && !c.mode.standby
	default:
		return c.leads()
	}
}

func (c *condition) holdsEither() bool {
	return c.passesByLease(checkPrimary) || c.passesByLease(checkStandbyLeader)
}

// servesReads: a running replica that may get clients, and isn't too far behind for
// this one.
func (c *condition) servesReads(r *request) bool {
	if c.word != "running" || c.role != "replica" || c.state.Settings.Tags.NoLoadBalance {
		return false
	}
	p := c.state.Postgres.State
	if want, ok := r.param("replication_state"); ok && want != replicationState(p) {
		return false
	}
	text, ok := r.param("lag")
	if !ok || !c.known || c.view.Status.Optime == 0 {
		return true
	}
	limit, ok := parseBytes(text)
	if !ok {
		return true
	}
	return int64(c.view.Status.Optime)-int64(p.Replayed) <= limit
}

// tagsMatch compares the member's tags with the tag_ parameters.
func (c *condition) tagsMatch(r *request) bool {
	var tags map[string]json.RawMessage
	for name := range r.query {
		key, isTag := strings.CutPrefix(name, "tag_")
		want, ok := r.param(name)
		if !isTag || !ok {
			continue
		}
		if tags == nil {
			tags = map[string]json.RawMessage{}
			_ = json.Unmarshal(c.tags(), &tags) // without tags there is nothing to match
		}
		if have, ok := tags[key]; !ok || tagText(have) != want {
			return false
		}
	}
	return true
}

// tagText is how a tag's value is compared: text as it is, anything else in lower case.
func tagText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil && string(raw) != "null" {
		return text
	}
	if string(raw) == "null" {
		return "none"
	}
	return strings.ToLower(string(raw))
}

// liveness tells whether the machine still gets its heartbeats. The grace is longer
// for members without a primary: restarting their agent is no help to anybody.
func (s *Server) liveness(context.Context, *request) *reply {
	st := s.agent.Snapshot()
	grace := st.Settings.TTL
	if p := st.Postgres.State; !p.Running || p.InRecovery {
		grace *= 2
	}
	due := st.NextTick
	if due == 0 { // not begun yet
		due, grace = s.born, max(grace, time.Minute)
	}
	return verdict(st.Settings.Pause || s.mono().Before(due.Add(grace)))
}

// readiness tells whether clients that this member gets will find what they need: the
// leadership, or a stream that is close enough to the primary.
func (s *Server) readiness(ctx context.Context, r *request) *reply {
	c := s.glance()
	if c.leads() {
		return verdict(true)
	}
	c = s.look(ctx)
	p := c.state.Postgres.State
	if c.word != "running" || replicationState(p) != "streaming" || !c.known && !c.state.FailsafeActive(c.now) {
		return verdict(false)
	}
	limit := c.state.Settings.MaximumLagOnFailover
	if text, ok := r.param("lag"); ok {
		if n, ok := parseBytes(text); ok {
			limit = n
		}
	}
	location := p.Replayed
	if how, _ := r.param("mode"); how == "write" {
		location = p.Received
	}
	return verdict(int64(c.view.Status.Optime)-int64(location) <= limit)
}

// absent answers what this release doesn't have: the page that clients take for
// "use something else".
func absent(r *request) *reply {
	return pageSaying(http.StatusNotImplemented, "Unsupported method ('"+r.method+"')")
}
