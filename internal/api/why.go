package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/pgregent/regent/internal/ctl/story"
)

// readWithin is how long a request waits for its turn at the journal. Answers are
// computed one at a time: a crowd that asks for reasons must not cost the agent its CPU.
const readWithin = 2 * time.Second

// why answers GET /why with the decision in force, its reason, and what was rejected; or
// with the one in force at the time ?at=, as RFC 3339 or as seconds since 1970.
func (s *Server) why(ctx context.Context, r *request) *reply {
	now := s.wall()
	at := now
	text, asked := r.param("at")
	if asked {
		var ok bool
		if at, ok = readTime(text); !ok {
			return inText(http.StatusBadRequest, "at must be a time like 2026-11-23T03:22:35Z, or seconds since 1970")
		}
	}
	if s.opt.Journal == nil {
		return inText(http.StatusServiceUnavailable, "this member keeps no journal")
	}
	turn := time.NewTimer(readWithin)
	defer turn.Stop()
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-turn.C:
		return inText(http.StatusServiceUnavailable, "too many ask")
	case <-ctx.Done():
		return page(http.StatusServiceUnavailable)
	}
	ask := story.Ask
	if !asked {
		ask = story.AskNow
	}
	answer, err := ask(s.opt.Journal.Dir(), at)
	if err != nil {
		s.log.Warn("the journal could not be read for a client", "err", err)
		return inText(http.StatusInternalServerError, "the journal can't be read")
	}
	state := s.agent.Snapshot()
	switch under, last := s.quiet(); {
	case !asked:
		answer.Continue(state.Self, state.Last, under, last)
	case under.Count > 0 && !at.Before(time.Unix(0, under.Since)):
		// The moment lies in a stretch that is still going on.
		answer.Continue(state.Self, state.Last, under, last)
		answer.Now = false
	}
	body, err := json.Marshal(answer)
	if err != nil {
		s.log.Error("an answer could not be encoded", "err", err)
		return page(http.StatusInternalServerError)
	}
	return inJSON(http.StatusOK, body)
}

func readTime(text string) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, true
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 && n < 1<<33 {
		return time.Unix(n, 0), true
	}
	return time.Time{}, false
}
