package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
)

const (
	// vouchPatience bounds the answer to a primary that asks for a promise; a Patroni waits for 2 s.
	vouchPatience = 2 * time.Second
	// longestPromise bounds what may be asked for: it keeps this member from leading.
	longestPromise = time.Hour
)

// failsafe answers GET /failsafe with the members that a primary without the store would ask.
func (s *Server) failsafe(context.Context, *request) *reply {
	members := s.agent.Snapshot().Store.View.Failsafe.Members
	if len(members) == 0 {
		return page(http.StatusBadGateway)
	}
	var o object
	for _, m := range members {
		o.text(string(m.Name), m.APIURL)
	}
	return inJSON(http.StatusOK, o.bytes())
}

// vouch answers POST /failsafe, with which a primary that the store doesn't answer asks this
// member to promise not to lead (safety rule S12). Nothing but 200 and "Accepted" is a promise.
func (s *Server) vouch(ctx context.Context, r *request) *reply {
	raw, refusal := r.read(false)
	if refusal != nil {
		return refusal
	}
	var asked struct {
		Name   events.NodeName `json:"name"`
		Regent *struct {
			Scope  string          `json:"scope"`
			Member events.NodeName `json:"member"`
			TTLms  int64           `json:"ttl_ms"`
		} `json:"regent"`
	}
	if json.Unmarshal(raw, &asked) != nil || asked.Name == "" {
		return page(http.StatusBadRequest)
	}
	if !s.agent.Snapshot().Vouches() {
		return page(http.StatusBadGateway)
	}
	id, err := requestID("failsafe")
	if err != nil {
		s.log.Error("no id for a request", "err", err)
		return page(http.StatusInternalServerError)
	}
	ev := events.FailsafeAsked{ID: id, From: asked.Name}
	if d := asked.Regent; d != nil {
		if d.Scope != s.opt.Scope || !strings.EqualFold(string(d.Member), string(s.opt.Name)) {
			return inText(http.StatusMisdirectedRequest, "This is "+string(s.opt.Name)+" of "+s.opt.Scope)
		}
		if d.TTLms <= 0 || d.TTLms > longestPromise.Milliseconds() {
			return page(http.StatusBadRequest)
		}
		ev.TTL = time.Duration(d.TTLms) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, vouchPatience)
	defer cancel()
	ok, text, err := s.opt.Ask(ctx, id, ev)
	switch {
	case err != nil:
		s.log.Warn("a primary without the store was not answered", "node", string(asked.Name), "err", err)
		return page(http.StatusServiceUnavailable)
	case !ok:
		s.log.Warn("a primary without the store was refused", "node", string(asked.Name), "reason", text)
		return inText(http.StatusInternalServerError, text)
	}
	out := inText(http.StatusOK, text)
	if p := s.agent.Snapshot().Postgres.State; p.InRecovery && !s.old() {
		out.headers = append(out.headers, [2]string{"lsn", strconv.FormatUint(uint64(max(p.Received, p.Replayed)), 10)})
	}
	return out
}
