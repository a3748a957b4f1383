package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// wish is an operator's request for another leader.
type wish struct {
	action    string // switchover or failover
	leader    events.NodeName
	candidate events.NodeName
	scheduled string
}

// title is the action's name at the beginning of a sentence.
func (w wish) title() string {
	if w.action == "failover" {
		return "Failover"
	}
	return "Switchover"
}

func (s *Server) switchover(ctx context.Context, r *request) *reply {
	return s.changeLeader(ctx, r, "switchover")
}

func (s *Server) failover(ctx context.Context, r *request) *reply {
	return s.changeLeader(ctx, r, "failover")
}

// changeLeader checks a wish, gives it to the machine, and waits for what becomes of it.
func (s *Server) changeLeader(ctx context.Context, r *request, action string) *reply {
	body, _, refusal := r.mapping(false)
	if refusal != nil {
		return refusal
	}
	w, ok := readWish(body, action)
	if !ok {
		return page(http.StatusBadRequest)
	}
	raw, refusal := s.read(ctx)
	if refusal != nil {
		return inText(http.StatusServiceUnavailable, "DCS is not accessible")
	}
	v := dcs.Decode(raw)
	s.log.Info("received a request for another leader", "action", w.action, "leader", string(w.leader),
		"candidate", string(w.candidate), "scheduled_at", w.scheduled, "client", r.conn.RemoteAddr().String())
	if refusal := s.checkForm(&w, modeOf(v.Config.Raw)); refusal != nil {
		return refusal
	}
	if w.scheduled != "" {
		return s.schedule(ctx, w)
	}
	if text := s.checkPossible(ctx, w, v); text != "" {
		return inText(http.StatusPreconditionFailed, text)
	}
	return s.carryOut(ctx, w, v)
}

// schedule writes a wish for later to the request key; whoever leads then judges it.
func (s *Server) schedule(ctx context.Context, w wish) *reply {
	id, err := requestID(w.action)
	if err != nil {
		s.log.Error("no id for a request", "err", err)
		return s.notWritten(w)
	}
	ctx, cancel := context.WithTimeout(ctx, s.storePatience()+2*time.Second)
	defer cancel()
	ev := events.SwitchoverRequested{ID: id, From: w.leader, To: w.candidate, ScheduledAt: w.scheduled}
	if ok, text, err := s.opt.Ask(ctx, id, ev); !ok || err != nil {
		s.log.Warn("the request for another leader was not confirmed", "reason", text, "err", err)
		return s.notWritten(w)
	}
	return inText(http.StatusAccepted, w.title()+" scheduled")
}

func readWish(body fields, action string) (wish, bool) {
	w, ok := wish{action: action}, true
	text := func(key string) string {
		value, isText := body.text(key)
		ok = ok && isText
		return value
	}
	w.leader, w.candidate = events.NodeName(text("leader")), events.NodeName(text("candidate"))
	if alias := text("member"); w.candidate == "" {
		w.candidate = events.NodeName(alias)
	}
	w.scheduled = text("scheduled_at")
	return w, ok
}

// checkForm checks what can be said without asking the members. A failover that names
// the leader goes on as a switchover.
func (s *Server) checkForm(w *wish, m mode) *reply {
	refuse := func(text string) *reply { return inText(http.StatusBadRequest, text) }
	switch {
	case w.action == "failover" && w.scheduled != "" && s.old():
		if w.leader == "" {
			return refuse("Scheduled failover is possible only from a specific leader")
		}
	case w.action == "failover" && w.candidate == "":
		return refuse("Failover could be performed only to a specific candidate")
	case w.action == "switchover" && w.leader == "":
		return refuse("Switchover could be performed only from a specific leader")
	case w.action == "failover" && w.scheduled != "":
		return refuse("Failover can't be scheduled")
	}
	if w.scheduled != "" {
		if m.paused {
			return refuse("Can't schedule " + w.action + " in the paused state")
		}
		at, refusal := s.readSchedule(w.scheduled, w.action)
		if refusal != nil {
			return refusal
		}
		w.scheduled = isoTime(at)
	}
	if m.paused && w.candidate == "" {
		return refuse(w.title() + " is possible only to a specific candidate in a paused state")
	}
	if w.action == "failover" && w.leader != "" {
		s.log.Warn("a failover that names the leader is done as a switchover", "leader", string(w.leader))
		w.action = "switchover"
	}
	if w.leader == w.candidate && !s.old() {
		return refuse("Switchover target and source are the same")
	}
	return nil
}

// checkPossible says why the wish can't be granted in this cluster; "" if it may be.
func (s *Server) checkPossible(ctx context.Context, w wish, v events.ClusterView) string {
	if w.leader != "" && w.leader != v.Leader.Name {
		return "leader name does not match"
	}
	m := modeOf(v.Config.Raw)
	var able []events.Member
	switch {
	case w.candidate != "":
		if w.action == "switchover" && m.sync && !matchesSync(v.Sync, w.candidate) {
			return "candidate name does not match with sync_standby"
		}
		member, ok := v.Member(w.candidate)
		if !ok {
			return "candidate does not exists"
		}
		able = append(able, member)
	case m.sync:
		for _, member := range v.Members {
			if member.Name != v.Leader.Name && matchesSync(v.Sync, member.Name) {
				able = append(able, member)
			}
		}
		if len(able) == 0 {
			return w.action + " is not possible: can not find sync_standby"
		}
	default:
		for _, member := range v.Members {
			if member.Name != v.Leader.Name && member.APIURL != "" {
				able = append(able, member)
			}
		}
		if len(able) == 0 {
			return w.action + " is not possible: cluster does not have members except leader"
		}
	}
	if !s.anyGood(ctx, able) {
		return w.action + " is not possible: no good candidates have been found"
	}
	return ""
}

// carryOut submits the wish and waits for its end, both under the deadline that
// clients of this endpoint know.
func (s *Server) carryOut(ctx context.Context, w wish, before events.ClusterView) *reply {
	id, err := requestID(w.action)
	if err != nil {
		s.log.Error("no id for a request", "err", err)
		return s.notWritten(w)
	}
	var ev events.Event = events.FailoverRequested{ID: id, To: w.candidate}
	if w.leader != "" {
		ev = events.SwitchoverRequested{ID: id, From: w.leader, To: w.candidate}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*max(10*time.Second, s.agent.Snapshot().Settings.LoopWait))
	defer cancel()
	asking, enough := context.WithTimeout(ctx, s.storePatience()+2*time.Second)
	defer enough()
	ok, text, err := s.opt.Ask(asking, id, ev)
	if ok && err == nil {
		return s.await(ctx, w, before)
	}
	s.log.Warn("the request for another leader was not confirmed", "action", w.action, "reason", text, "err", err)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return s.notWritten(w) // the machine did not take it
	}
	// Not confirmed is not the same as not written.
	raw, refusal := s.read(ctx)
	if refusal != nil {
		return unknownOutcome(w)
	}
	v := dcs.Decode(raw)
	if out := w.outcome(before, v); out != nil {
		return out
	}
	if f := v.Failover; f.Version > before.Failover.Version && f.Leader == w.leader && f.Candidate == w.candidate {
		return s.await(ctx, w, before)
	}
	if err != nil {
		return unknownOutcome(w) // it may still be on its way through the machine
	}
	return s.notWritten(w)
}

func requestID(action string) (string, error) {
	var unique [8]byte
	if _, err := rand.Read(unique[:]); err != nil {
		return "", fmt.Errorf("draw an id: %w", err)
	}
	return action + "-" + hex.EncodeToString(unique[:]), nil
}

func (s *Server) notWritten(w wish) *reply {
	key := "failover"
	if s.old() {
		key = w.action
	}
	return inText(http.StatusServiceUnavailable, "failed to write "+key+" key into DCS")
}

func unknownOutcome(w wish) *reply {
	return inText(http.StatusServiceUnavailable, w.title()+" status unknown")
}

// await follows the machine's view of the cluster until the wish has come true, was
// turned down, or the time is over.
func (s *Server) await(ctx context.Context, w wish, before events.ClusterView) *reply {
	for {
		changed := s.agent.Changed()
		st := s.agent.Snapshot().Store
		if st.Known && st.View.Revision > before.Revision {
			if out := w.outcome(before, st.View); out != nil {
				return out
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return unknownOutcome(w)
		}
	}
}

// outcome reads what has become of the wish from a view later than before; nil while
// that is open. The holder clears the request key of a wish that it turns down. While
// nobody leads a cleared key says nothing yet: whoever led may have cleared it and
// gone, so the next leader decides.
func (w wish) outcome(before, now events.ClusterView) *reply {
	leader := now.Leader.Name
	switch {
	case now.Leader.Locked() && leader != before.Leader.Name:
		return w.succeeded(leader)
	case now.Failover.Pending() || now.Failover.Version <= before.Failover.Version:
		return nil
	case now.Leader.Locked() || !before.Leader.Locked():
		return inText(http.StatusServiceUnavailable, w.title()+" failed")
	default:
		return nil
	}
}

func (w wish) succeeded(leader events.NodeName) *reply {
	done := "Switched"
	if w.action == "failover" {
		done = "Failed"
	}
	if w.candidate != "" && leader != w.candidate {
		return inText(http.StatusOK, fmt.Sprintf(`%s over to "%s" instead of "%s"`, done, leader, w.candidate))
	}
	return inText(http.StatusOK, fmt.Sprintf(`Successfully %s over to "%s"`, lower(done), leader))
}

func lower(done string) string {
	if done == "Failed" {
		return "failed"
	}
	return "switched"
}

// unschedule answers DELETE /switchover: it clears a scheduled wish, whoever wrote it.
func (s *Server) unschedule(ctx context.Context, _ *request) *reply {
	raw, refusal := s.read(ctx)
	if refusal != nil {
		return refusal
	}
	f := dcs.Decode(raw).Failover
	if !f.Pending() || f.ScheduledAt == "" {
		return inText(http.StatusNotFound, "no switchover is scheduled")
	}
	within, cancel := context.WithTimeout(ctx, s.storePatience())
	defer cancel()
	_, err := s.opt.Store.Commit(within, dcs.Txn{
		Guards: []dcs.Guard{{Key: dcs.KeyFailover, Version: f.Version}},
		Writes: []dcs.Write{dcs.Put(dcs.KeyFailover, dcs.EncodeFailover(events.FailoverRequest{}))},
	})
	switch {
	case err == nil:
		return inText(http.StatusOK, "scheduled switchover deleted")
	case errors.Is(err, dcs.ErrRefused):
		return page(http.StatusConflict)
	default:
		s.log.Warn("the scheduled switchover could not be cleared", "err", err)
		return pageSaying(http.StatusServiceUnavailable, "The store did not confirm the change")
	}
}
