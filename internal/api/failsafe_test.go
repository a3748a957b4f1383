package api

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

const (
	byPatroni = `{"name":"pg01","conn_url":"postgres://h:5432/postgres","api_url":"http://h:8008/patroni","slots":{"pg00":83886080}}`
	byRegent  = `{"name":"pg01","conn_url":"","api_url":"","slots":{},"regent":{"scope":"demo","member":"pg00","ttl_ms":5000}}`
)

// A primary without the store is answered in Patroni's words, whichever of the two it is; and
// nothing that isn't the machine's consent reads like it.
func TestAPrimaryWithoutTheStoreIsAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		off  bool
		ok   bool
		text string
		err  error
		code int
		want string
		ttl  time.Duration
	}{
		"Patroni asks":               {body: byPatroni, ok: true, text: "Accepted", code: 200, want: "Accepted"},
		"Regent asks":                {body: byRegent, ok: true, text: "Accepted", code: 200, want: "Accepted", ttl: 5 * time.Second},
		"we are a primary":           {body: byPatroni, text: "Running as a leader", code: 500, want: "Running as a leader"},
		"the mode is off":            {body: byPatroni, off: true, code: 502},
		"the machine doesn't answer": {body: byPatroni, err: errors.New("busy"), code: 503},
		"another member is meant":    {body: strings.Replace(byRegent, "pg00", "pg09", 1), code: 421, want: "This is pg00 of demo"},
		"another cluster is meant":   {body: strings.Replace(byRegent, "demo", "other", 1), code: 421, want: "This is pg00 of demo"},
		"for ever":                   {body: strings.Replace(byRegent, "5000", "500000000", 1), code: 400},
		"for no time":                {body: strings.Replace(byRegent, "5000", "0", 1), code: 400},
		"no name":                    {body: `{"slots":{}}`, code: 400},
		"no JSON":                    {body: `Accepted`, code: 400},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.agent.change(func(s *fsm.State) { s.Settings.Failsafe = !c.off })
				var asked *events.FailsafeAsked
				w.ask = func(_ context.Context, ev events.Event) (bool, string, error) {
					q := ev.(events.FailsafeAsked)
					asked = &q
					return c.ok, c.text, c.err
				}
				out := w.do(w.t.Context(), "POST", "/failsafe", c.body)
				if out.code != c.code || c.want != "" && string(out.body) != c.want {
					t.Fatalf("%d %s, want %d %s", out.code, out.body, c.code, c.want)
				}
				if c.code != 200 && strings.Contains(string(out.body), "Accepted") {
					t.Errorf("a refusal says %q", out.body)
				}
				switch heard := c.ok || c.text != "" || c.err != nil; {
				case heard != (asked != nil):
					t.Errorf("the machine was asked: %+v", asked)
				case heard && (asked.From != "pg01" || asked.TTL != c.ttl):
					t.Errorf("the machine was asked %+v", asked)
				}
			})
		})
	}
}

// GET /failsafe shows whom a primary would ask.
func TestTheFailsafeKeyIsShown(t *testing.T) {
	bubble(t, func(w *world) {
		if out := w.do(w.t.Context(), "GET", "/failsafe", ""); out.code != 502 {
			t.Errorf("without a key: %d", out.code)
		}
		w.agent.change(func(s *fsm.State) {
			s.Store.View.Failsafe = events.Failsafe{Version: 3, Members: []events.FailsafeMember{
				{Name: "pg00", APIURL: "http://a:8008/patroni"}, {Name: "pg01", APIURL: "http://b:8008/patroni"},
			}}
		})
		wantReply(t, w.do(w.t.Context(), "GET", "/failsafe", ""), 200, `{"pg00": "http://a:8008/patroni", "pg01": "http://b:8008/patroni"}`)
	})
}

// That failsafe mode is at work is shown where Patroni's users look: by the primary, and by
// whoever has given it a promise.
func TestFailsafeModeAtWorkIsShown(t *testing.T) {
	for name, change := range map[string]func(*fsm.State){
		"primary": func(s *fsm.State) {
			s.Phase, s.Settings.Failsafe, s.Holder.Revision = fsm.Leading, true, 5
			s.Failsafe.Since, s.Failsafe.Until = nowMono-1, nowMono.Add(time.Second)
		},
		"member": func(s *fsm.State) {
			s.Failsafe.Promise = fsm.FailsafePromise{To: "pg01", Until: nowMono.Add(time.Second), TTL: time.Second}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				shown := func() (document, metric bool) {
					out := w.do(w.t.Context(), "GET", "/patroni", "")
					page := w.do(w.t.Context(), "GET", "/metrics", "")
					return strings.Contains(string(out.body), `"failsafe_mode_is_active": true`),
						strings.Contains(string(page.body), `patroni_failsafe_mode_is_active{scope="demo",name="pg00"} 1`)
				}
				if d, m := shown(); d || m {
					t.Errorf("before: %v %v", d, m)
				}
				w.agent.change(change)
				if d, m := shown(); !d || !m {
					t.Errorf("at work: %v %v", d, m)
				}
			})
		})
	}
}

// Health checks go by the belief, whatever carries it: load balancers keep sending writes to a
// primary that the members vouch for, and reads to those that vouch, although the store has been
// silent for longer than ttl.
func TestHealthChecksHoldInFailsafeMode(t *testing.T) {
	server := events.PostgresState{Running: true, Ready: true, PID: 7, Timeline: 1, Data: events.DataDir{Content: events.DataCluster}}
	standby := server
	standby.InRecovery, standby.Streaming, standby.Replayed, standby.Received = true, true, 50, 50
	for name, c := range map[string]struct {
		path   string
		server events.PostgresState
		change func(*fsm.State)
	}{
		"a primary": {"/primary", server, func(s *fsm.State) {
			s.Phase, s.Settings.Failsafe, s.Holder.Revision = fsm.Leading, true, 5
			s.Failsafe.Since, s.Failsafe.Until = nowMono-1, nowMono.Add(time.Second)
		}},
		"a member": {"/readiness", standby, func(s *fsm.State) {
			s.Phase = fsm.Following
			s.Failsafe.Promise = fsm.FailsafePromise{To: "pg01", Until: nowMono.Add(time.Second), TTL: time.Second}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.agent.server = c.server
				w.agent.change(func(s *fsm.State) {
					s.Holder, s.Lease, s.Settings.TTL = fsm.Holder{}, fsm.Lease{}, 5*time.Second
					s.Postgres.Known, s.Postgres.State = true, c.server
					s.Store.Known, s.Store.DownSince = true, nowMono.Add(-time.Minute)
				})
				if out := w.do(w.t.Context(), "GET", c.path, ""); out.code != 503 {
					t.Errorf("without promises: %d", out.code)
				}
				w.agent.change(c.change)
				if out := w.do(w.t.Context(), "GET", c.path, ""); out.code != 200 {
					t.Errorf("with promises: %d %s", out.code, out.body)
				}
			})
		})
	}
}
