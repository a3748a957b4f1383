package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// read reads the store, linearizably: what an operator sees and decides on is what
// is there now. A refusal is in the reply.
func (s *Server) read(ctx context.Context) (dcs.View, *reply) {
	ctx, cancel := context.WithTimeout(ctx, s.storePatience())
	defer cancel()
	v, err := s.opt.Store.View(ctx, dcs.Linearizable)
	if err != nil {
		s.log.Warn("the store could not be read for a request", "err", err)
		return dcs.View{}, pageSaying(http.StatusServiceUnavailable, "DCS is not accessible")
	}
	return v, nil
}

// storePatience bounds a request to the store.
func (s *Server) storePatience() time.Duration {
	return min(max(s.agent.Snapshot().Settings.RetryTimeout, time.Second), 10*time.Second)
}

// cluster answers GET /cluster.
func (s *Server) cluster(ctx context.Context, _ *request) *reply {
	raw, refusal := s.read(ctx)
	if refusal != nil {
		return refusal
	}
	v := dcs.Decode(raw)
	m := modeOf(v.Config.Raw)
	rows := make([][]byte, 0, len(v.Members))
	for _, member := range v.Members {
		kv, _ := raw.Get(dcs.MemberKey(member.Name))
		rows = append(rows, s.describeMember(member, kv.Value, v, m))
	}
	var o object
	o.list("members", rows)
	o.flag("pause", m.paused)
	if f := v.Failover; f.Pending() && f.ScheduledAt != "" {
		var at object
		at.text("at", f.ScheduledAt)
		if f.Leader != "" {
			at.text("from", string(f.Leader))
		}
		if f.Candidate != "" {
			at.text("to", string(f.Candidate))
		}
		o.mapping("scheduled_switchover", &at)
	}
	if !s.old() {
		o.text("scope", s.opt.Scope)
	}
	if rows := orphans(v); rows != nil {
		o.list("orphan_primaries", rows)
	}
	return inJSON(http.StatusOK, o.bytes())
}

// orphans are primaries that members found running although nobody leads. A dead agent's key
// is gone, so these have no row among the members. The field is ours.
func orphans(v events.ClusterView) (rows [][]byte) {
	if v.Leader.Locked() {
		return nil
	}
	var named []events.NodeName
	for _, m := range v.Members {
		if m.Orphan == "" || slices.Contains(named, m.Orphan) {
			continue
		}
		named = append(named, m.Orphan)
		rows = append(rows, quote(string(m.Orphan)))
	}
	return rows
}

// describeMember is a member's row. Its role comes from the cluster's keys, not from
// what it says of itself.
func (s *Server) describeMember(member events.Member, stored []byte, v events.ClusterView, m mode) []byte {
	leads := v.Leader.Locked() && member.Name == v.Leader.Name
	role := "replica"
	switch {
	case leads && m.standby:
		role = "standby_leader"
	case leads:
		role = "leader"
	case m.sync && matchesSync(v.Sync, member.Name):
		role = "sync_standby"
	case m.quorum && matchesSync(v.Sync, member.Name):
		role = "quorum_standby"
	}
	state := member.State
	if role != "leader" && member.ReplicationState != "" {
		state = member.ReplicationState
	}
	var o object
	o.text("name", string(member.Name))
	o.text("role", role)
	o.text("state", state)
	o.textOrNull("api_url", member.APIURL)
	if at, ok := member.Upstream(); ok {
		o.text("host", at.Host)
		o.integer("port", int64(at.Port))
	}
	var published map[string]json.RawMessage
	_ = json.Unmarshal(stored, &published) // a member that can't be read has its name only
	for _, key := range []string{"timeline", "pending_restart", "pending_restart_reason", "scheduled_restart", "tags"} {
		if value, ok := published[key]; ok {
			o.stored(key, value)
		}
	}
	if !leads {
		s.describeLag(&o, published, v.Status.Optime)
	}
	return o.bytes()
}

// describeLag adds how far a member is behind what the holder last published.
func (s *Server) describeLag(o *object, published map[string]json.RawMessage, optime events.LSN) {
	position := func(key string) (events.LSN, bool) {
		n, err := strconv.ParseUint(string(published[key]), 10, 64)
		return events.LSN(n), err == nil
	}
	behind := func(at events.LSN) int64 { return max(int64(optime)-int64(at), 0) }
	if !s.old() {
		for _, what := range []string{"receive", "replay"} {
			at, ok := position(what + "_lsn")
			if !ok {
				o.text(what+"_lsn", "unknown")
				o.text(what+"_lag", "unknown")
				continue
			}
			o.integer(what+"_lag", behind(at))
			o.text(what+"_lsn", at.String())
		}
	}
	at, ok := position("xlog_location")
	switch {
	case !ok && s.old():
		o.text("lag", "unknown")
	case !ok:
		o.text("lag", "unknown")
		o.text("lsn", "unknown")
	case s.old():
		o.integer("lag", behind(at))
	default:
		o.integer("lag", behind(at))
		o.text("lsn", at.String())
	}
}

// history answers GET /history.
func (s *Server) history(ctx context.Context, _ *request) *reply {
	v, refusal := s.read(ctx)
	if refusal != nil {
		return refusal
	}
	lines := dcs.Decode(v).History.Raw
	if lines == nil {
		return inJSON(http.StatusOK, []byte("[]"))
	}
	spaced, err := respace(lines)
	if err != nil {
		return page(http.StatusBadGateway)
	}
	return inJSON(http.StatusOK, spaced)
}

// config answers GET /config.
func (s *Server) config(ctx context.Context, _ *request) *reply {
	v, refusal := s.read(ctx)
	if refusal != nil {
		return refusal
	}
	current := dcs.Decode(v).Config
	if current.Version == 0 {
		return page(http.StatusBadGateway)
	}
	return configReply(current.Raw)
}

func configReply(config json.RawMessage) *reply {
	spaced, err := respace(config)
	if err != nil {
		return page(http.StatusBadGateway)
	}
	return inJSON(http.StatusOK, spaced)
}

// patchConfig merges the body into the configuration, by compare-and-swap.
func (s *Server) patchConfig(ctx context.Context, r *request) *reply {
	_, body, refusal := r.mapping(false)
	if refusal != nil {
		return refusal
	}
	v, refusal := s.read(ctx)
	if refusal != nil {
		return refusal
	}
	view := dcs.Decode(v)
	current := view.Config
	if current.Version == 0 {
		return page(http.StatusServiceUnavailable)
	}
	next, changed, err := dcs.PatchConfig(current.Raw, body)
	if err != nil {
		return page(http.StatusBadRequest)
	}
	next = dcs.KeepMove(view.Move, next)
	if !changed {
		return configReply(current.Raw)
	}
	if refusal := s.checkConfig(next); refusal != nil {
		return refusal
	}
	err = s.commitConfig(ctx, next, dcs.Guard{Key: dcs.KeyConfig, Version: current.Version})
	switch {
	case err == nil:
		return configReply(next)
	case errors.Is(err, dcs.ErrRefused):
		return page(http.StatusConflict)
	case errors.Is(err, dcs.ErrUnavailable):
		return pageSaying(http.StatusServiceUnavailable, "DCS is not accessible")
	default:
		return pageSaying(http.StatusServiceUnavailable, "The store did not say whether it took the change")
	}
}

// putConfig replaces the configuration.
func (s *Server) putConfig(ctx context.Context, r *request) *reply {
	_, body, refusal := r.mapping(false)
	if refusal != nil {
		return refusal
	}
	next, err := dcs.CompactJSON(body)
	if err != nil {
		return page(http.StatusBadRequest)
	}
	if refusal := s.checkConfig(next); refusal != nil {
		return refusal
	}
	// It replaces whatever is there, but for the word about a move: that is why the version
	// read is guarded, and why somebody else's change is no reason to give up.
	for range putTries {
		v, refusal := s.read(ctx)
		if refusal != nil {
			return refusal
		}
		current, ok := v.Get(dcs.KeyConfig)
		next = dcs.KeepMove(dcs.Decode(v).Move, next)
		if ok && string(current.Value) == string(next) {
			return configReply(next)
		}
		err := s.commitConfig(ctx, next, dcs.Guard{Key: dcs.KeyConfig, Absent: !ok, Version: current.Version})
		switch {
		case err == nil:
			return configReply(next)
		case !errors.Is(err, dcs.ErrRefused):
			return page(http.StatusBadGateway)
		}
	}
	return page(http.StatusBadGateway)
}

// putTries bounds how often a configuration is written anew because it was changed between
// reading and writing.
const putTries = 5

func (s *Server) checkConfig(config json.RawMessage) *reply {
	if s.opt.CheckConfig == nil {
		return nil
	}
	if err := s.opt.CheckConfig(config); err != nil {
		return inText(http.StatusUnprocessableEntity, err.Error())
	}
	return nil
}

// commitConfig writes the configuration. A write whose outcome is unknown is looked
// for; only when it isn't there does it stay unknown, since it may still be on its way.
func (s *Server) commitConfig(ctx context.Context, config json.RawMessage, guards ...dcs.Guard) error {
	within, cancel := context.WithTimeout(ctx, s.storePatience())
	defer cancel()
	_, err := s.opt.Store.Commit(within, dcs.Txn{Guards: guards, Writes: []dcs.Write{dcs.Put(dcs.KeyConfig, config)}})
	if err == nil {
		s.log.Info("the dynamic configuration was changed by a request")
		return nil
	}
	s.log.Warn("the dynamic configuration could not be written", "err", err)
	if dcs.ClassOf(err) != events.Unknown {
		return err
	}
	if v, refusal := s.read(ctx); refusal == nil {
		if now, ok := v.Get(dcs.KeyConfig); ok && string(now.Value) == string(config) {
			return nil
		}
	}
	return err
}
