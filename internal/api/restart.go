package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// reload answers POST /reload at once; the reload follows.
func (s *Server) reload(context.Context, *request) *reply {
	select {
	case s.asked <- struct{}{}:
	default: // one that has not begun will see everything that this one would
	}
	return inText(http.StatusAccepted, "reload scheduled")
}

// restart answers POST /restart when PostgreSQL is up again, or isn't going to be.
func (s *Server) restart(ctx context.Context, r *request) *reply {
	filters, _, refusal := r.mapping(true)
	if refusal != nil {
		return refusal
	}
	c := s.look(ctx)
	satisfied, refusal := s.checkRestart(filters, &c)
	if refusal != nil {
		return refusal
	}
	failed := func(text string) *reply { return inText(http.StatusServiceUnavailable, text) }
	switch {
	case !satisfied:
		return failed("restart conditions are not satisfied")
	case c.state.Op != nil || c.state.Phase == fsm.Restarting:
		return failed(underWay(&c.state) + " already in progress")
	case !c.live:
		return failed("postgres is still starting")
	case c.state.Phase != fsm.Leading && c.state.Phase != fsm.Following:
		// The machine would keep the request until it can act on it, long after the
		// operator was told that nothing happened.
		return failed("restart failed")
	}
	id, err := requestID("restart")
	if err != nil {
		return inText(http.StatusBadRequest, "restart failed")
	}
	s.log.Info("received a restart request", "client", r.conn.RemoteAddr().String())
	limit := max(c.state.Settings.PrimaryStartTimeout, time.Minute) + 2*time.Minute
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ok, text, err := s.opt.Ask(ctx, id, events.RestartRequested{ID: id})
	switch {
	case err != nil && ctx.Err() == nil:
		return failed("restart failed")
	case err != nil:
		return failed("postgres is still starting")
	case !ok:
		return failed(text)
	default:
		return inText(http.StatusOK, "restarted successfully")
	}
}

// underWay is what keeps PostgreSQL busy, in Patroni's words.
func underWay(st *fsm.State) string {
	if st.Op == nil || st.Phase == fsm.Restarting {
		return "restart"
	}
	switch st.Op.Kind {
	case (fsm.Promote{}).Kind():
		return "promote"
	case (fsm.Clone{}).Kind():
		return "reinitialize"
	case (fsm.Rewind{}).Kind():
		return "pg_rewind"
	case (fsm.Bootstrap{}).Kind(), (fsm.PostBootstrap{}).Kind():
		return "bootstrap"
	default:
		return st.Op.Kind
	}
}

// checkRestart reads the conditions in the order in which they were written, and
// tells whether this member satisfies them.
func (s *Server) checkRestart(filters fields, c *condition) (satisfied bool, refusal *reply) {
	satisfied = true
	for _, f := range filters {
		var ok bool
		switch f.key {
		case "schedule":
			text, _ := filters.text("schedule")
			return false, s.refuseSchedule(text, c)
		case "restart_pending":
			ok = !truthy(f.value) || c.state.Postgres.State.PendingRestart
		case "role":
			ok, refusal = s.checkRole(filters, c)
		case "postgres_version":
			ok, refusal = checkOlder(f.value, c)
		case "timeout":
			ok, refusal = false, refuseTimeout(f.value)
		default:
			refusal = inText(http.StatusBadRequest, "Unknown filter for the scheduled restart: "+f.key)
		}
		if refusal != nil {
			return false, refusal
		}
		satisfied = satisfied && ok
	}
	return satisfied, nil
}

// refuseSchedule: nobody would carry out a scheduled restart.
func (s *Server) refuseSchedule(text string, c *condition) *reply {
	if c.mode.paused {
		return inText(http.StatusInternalServerError, "Can't schedule restart in the paused state")
	}
	if refusal := s.checkSchedule(text, "restart"); refusal != nil {
		return refusal
	}
	return inText(http.StatusNotImplemented, "Scheduled restart is not implemented in this release")
}

func (s *Server) checkRole(filters fields, c *condition) (bool, *reply) {
	want, ok := filters.text("role")
	if s.old() {
		if !ok || (want != "primary" && want != "master" && want != "replica") {
			return false, inText(http.StatusBadRequest, "PostgreSQL role should be either primary or replica")
		}
		if want == "master" {
			want = "primary"
		}
	} else if !ok || (want != "primary" && want != "standby_leader" && want != "replica") {
		return false, inText(http.StatusBadRequest, "PostgreSQL role should be either primary, standby_leader, or replica")
	}
	return want == c.role, nil
}

// checkOlder: the running server must be older than the given version.
func checkOlder(value json.RawMessage, c *condition) (bool, *reply) {
	text := plainText(value)
	version, ok := parseVersion(text)
	if !ok {
		return false, inText(http.StatusBadRequest, "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: "+text)
	}
	return c.state.Postgres.State.ServerVersion < version, nil
}

// refuseTimeout: the machine waits for a start as long as primary_start_timeout says.
func refuseTimeout(value json.RawMessage) *reply {
	number := strings.TrimSpace(strings.TrimSuffix(plainText(value), "s"))
	if n, err := strconv.ParseFloat(number, 64); err != nil || n <= 0 {
		return inText(http.StatusBadRequest, "Timeout should be a positive number of seconds")
	}
	return inText(http.StatusNotImplemented, "Restart with a timeout of its own is not implemented in this release")
}

// unscheduleRestart answers DELETE /restart: this release schedules none.
func (s *Server) unscheduleRestart(context.Context, *request) *reply {
	return inText(http.StatusNotFound, "no restarts are scheduled")
}

// plainText is a JSON scalar as people write it.
func plainText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text
	}
	return string(value)
}

// truthy is Python's idea of truth, which clients rely on.
func truthy(value json.RawMessage) bool {
	var v any
	if json.Unmarshal(value, &v) != nil {
		return false
	}
	switch x := v.(type) {
	case nil:
		return false
	case bool:
		return x
	case float64:
		return x != 0
	case string:
		return x != ""
	case []any:
		return len(x) > 0
	case map[string]any:
		return len(x) > 0
	default:
		return false
	}
}
