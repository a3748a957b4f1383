package api

import (
	"context"
	"net/http"
	"strings"
)

// handler answers one kind of request.
type handler func(context.Context, *request) *reply

// route is what a method and the first segment of a path lead to.
type route struct {
	handle handler
	// unsafe: it changes something, so the client must be allowed to.
	unsafe bool
}

// route finds the handler: by method and first segment of the path, the rest of which
// doesn't matter; any other GET is a health check, and so are all HEAD and OPTIONS.
func (s *Server) route(r *request) (route, bool) {
	segment, _, _ := strings.Cut(strings.TrimLeft(r.path, "/"), "/")
	switch r.method {
	case http.MethodHead, http.MethodOptions:
		return route{handle: s.healthStatus}, true
	case http.MethodGet:
		return s.routeGet(segment), true
	}
	found, ok := map[string]route{
		"PATCH config":      {s.patchConfig, true},
		"PUT config":        {s.putConfig, true},
		"POST switchover":   {s.switchover, true},
		"POST failover":     {s.failover, true},
		"DELETE switchover": {s.unschedule, true},
		"POST restart":      {s.restart, true},
		"DELETE restart":    {s.unscheduleRestart, true},
		"POST reload":       {s.reload, true},
		"POST reinitialize": {s.reinitialize, true},
		"POST failsafe":     {s.vouch, true},
		"POST dcs-target":   {s.target, true},
	}[r.method+" "+segment]
	return found, ok
}

func (s *Server) routeGet(segment string) route {
	switch segment {
	case "patroni":
		return route{handle: s.member}
	case "cluster":
		return route{handle: s.cluster}
	case "history":
		return route{handle: s.history}
	case "config":
		return route{handle: s.config}
	case "liveness":
		return route{handle: s.liveness}
	case "readiness":
		return route{handle: s.readiness}
	case "failsafe":
		return route{handle: s.failsafe}
	case "metrics":
		return route{handle: s.metrics}
	case "why":
		return route{handle: s.why}
	case "events":
		return route{handle: s.events}
	default:
		return route{handle: s.health}
	}
}

// answer handles a request that has been read.
func (s *Server) answer(ctx context.Context, a *access, r *request) *reply {
	to, ok := s.route(r)
	if !ok {
		return absent(r)
	}
	if to.unsafe {
		members := s.agent.Snapshot().Store.View.Members
		if to.isFailsafe(r) {
			members = nil // the members' addresses don't count for it
		}
		if refusal := a.check(ctx, r, members); refusal != nil {
			return refusal
		}
	}
	return to.handle(ctx, r)
}

func (route) isFailsafe(r *request) bool {
	return strings.HasPrefix(strings.TrimLeft(r.path, "/"), "failsafe")
}
