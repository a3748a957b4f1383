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

// restart answers POST /restart when PostgreSQL is up again, or isn't going to be; one
// for later at once.
func (s *Server) restart(ctx context.Context, r *request) *reply {
	filters, _, refusal := r.mapping(true)
	if refusal != nil {
		return refusal
	}
	c := s.look(ctx)
	w, refusal := s.readRestart(filters, &c)
	if refusal != nil {
		return refusal
	}
	id, err := requestID("restart")
	if err != nil {
		return inText(http.StatusBadRequest, "restart failed")
	}
	s.log.Info("received a restart request", "client", r.conn.RemoteAddr().String())
	if w.schedule != nil {
		w.schedule.Timeout, w.schedule.StartedAt = w.timeout, c.state.Postgres.State.StartedAt
		return s.scheduleRestart(ctx, id, *w.schedule)
	}
	failed := func(text string) *reply { return inText(http.StatusServiceUnavailable, text) }
	switch {
	case !w.satisfied:
		return failed("restart conditions are not satisfied")
	case c.state.Op != nil || c.state.Phase == fsm.Restarting:
		return failed(underWay(&c.state) + " already in progress")
	case c.state.Startable(): // maintenance mode keeps it down, and the machine starts it
	case !c.live:
		return failed("postgres is still starting")
	case c.state.Phase != fsm.Leading && c.state.Phase != fsm.Following:
		// The machine would keep the request until it can act on it, long after the
		// operator was told that nothing happened.
		return failed("restart failed")
	}
	limit := max(c.state.Settings.PrimaryStartTimeout, time.Minute) + 2*time.Minute
	if w.timeout > 0 {
		limit = w.timeout + time.Minute // for the stop before it
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ok, text, err := s.opt.Ask(ctx, id, events.RestartRequested{ID: id, Timeout: w.timeout})
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

// scheduleRestart gives a restart for later to the machine, which remembers one.
func (s *Server) scheduleRestart(ctx context.Context, id string, at events.RestartSchedule) *reply {
	ctx, cancel := context.WithTimeout(ctx, s.storePatience())
	defer cancel()
	ok, text, err := s.opt.Ask(ctx, id, events.RestartRequested{ID: id, Schedule: &at})
	switch {
	case err != nil:
		return inText(http.StatusServiceUnavailable, "restart failed")
	case ok:
		return inText(http.StatusAccepted, "Restart scheduled")
	default:
		return inText(http.StatusConflict, text)
	}
}

// unscheduleRestart answers DELETE /restart.
func (s *Server) unscheduleRestart(ctx context.Context, _ *request) *reply {
	id, err := requestID("unschedule")
	if err != nil {
		return page(http.StatusInternalServerError)
	}
	ctx, cancel := context.WithTimeout(ctx, s.storePatience())
	defer cancel()
	ok, text, err := s.opt.Ask(ctx, id, events.RestartWithdrawn{ID: id})
	switch {
	case err != nil:
		return pageSaying(http.StatusServiceUnavailable, "The agent did not answer")
	case ok:
		return inText(http.StatusOK, text)
	default:
		return inText(http.StatusNotFound, text)
	}
}

// reinitialize answers POST /reinitialize as soon as the machine has accepted it; the
// member's state tells how far it is.
func (s *Server) reinitialize(ctx context.Context, r *request) *reply {
	body, _, refusal := r.mapping(true)
	if refusal != nil {
		return refusal
	}
	id, err := requestID("reinitialize")
	if err != nil {
		return inText(http.StatusServiceUnavailable, "reinitialize failed")
	}
	ev := events.ReinitRequested{ID: id}
	for _, f := range body {
		switch f.key {
		case "force":
			ev.Force = truthy(f.value)
		case "from_leader":
			ev.FromLeader = truthy(f.value)
		}
	}
	s.log.Info("received a reinitialize request", "client", r.conn.RemoteAddr().String(), "force", ev.Force)
	ctx, cancel := context.WithTimeout(ctx, s.storePatience())
	defer cancel()
	ok, text, err := s.opt.Ask(ctx, id, ev)
	switch {
	case err != nil:
		return inText(http.StatusServiceUnavailable, "reinitialize failed")
	case ok:
		return inText(http.StatusOK, text)
	default:
		return inText(http.StatusServiceUnavailable, text)
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

// restartWish is a restart as it was asked for.
type restartWish struct {
	// satisfied: this member meets the conditions now.
	satisfied bool
	timeout   time.Duration
	schedule  *events.RestartSchedule // nil: now
}

// readRestart reads the conditions in the order in which they were written. Those of a
// restart for later are judged then.
func (s *Server) readRestart(filters fields, c *condition) (w restartWish, refusal *reply) {
	w.satisfied = true
	at := events.RestartSchedule{}
	for _, f := range filters {
		ok := true
		switch f.key {
		case "schedule":
			text, _ := filters.text("schedule")
			if c.mode.paused {
				return w, inText(http.StatusInternalServerError, "Can't schedule restart in the paused state")
			}
			var when time.Time
			if when, refusal = s.readSchedule(text, "restart"); refusal == nil {
				at.At, at.Wall = isoTime(when), when.UnixNano()
				w.schedule = &at
			}
		case "restart_pending":
			at.Pending = truthy(f.value)
			ok = !at.Pending || c.state.Postgres.State.PendingRestart
		case "role":
			at.Role, ok, refusal = s.checkRole(filters, c)
		case "postgres_version":
			at.Version = plainText(f.value)
			at.OlderThan, ok, refusal = checkOlder(at.Version, c)
		case "timeout":
			w.timeout, refusal = readTimeout(f.value)
		default:
			refusal = inText(http.StatusBadRequest, "Unknown filter for the scheduled restart: "+f.key)
		}
		if refusal != nil {
			return w, refusal
		}
		w.satisfied = w.satisfied && ok
	}
	return w, nil
}

func (s *Server) checkRole(filters fields, c *condition) (role string, ok bool, refusal *reply) {
	want, ok := filters.text("role")
	if s.old() {
		if !ok || (want != "primary" && want != "master" && want != "replica") {
			return "", false, inText(http.StatusBadRequest, "PostgreSQL role should be either primary or replica")
		}
		if want == "master" {
			want = "primary"
		}
	} else if !ok || (want != "primary" && want != "standby_leader" && want != "replica") {
		return "", false, inText(http.StatusBadRequest, "PostgreSQL role should be either primary, standby_leader, or replica")
	}
	return want, want == c.role, nil
}

// checkOlder: the running server must be older than the given version.
func checkOlder(text string, c *condition) (version int, ok bool, refusal *reply) {
	version, ok = parseVersion(text)
	if !ok {
		return 0, false, inText(http.StatusBadRequest, "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: "+text)
	}
	return version, c.state.Postgres.State.ServerVersion < version, nil
}

// readTimeout reads seconds, as a number or as text.
func readTimeout(value json.RawMessage) (time.Duration, *reply) {
	number := strings.TrimSpace(strings.TrimSuffix(plainText(value), "s"))
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n <= 0 || n > 1e9 {
		return 0, inText(http.StatusBadRequest, "Timeout should be a positive number of seconds")
	}
	return time.Duration(n * float64(time.Second)), nil
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
