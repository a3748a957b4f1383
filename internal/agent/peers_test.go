package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

// asker is as much of an agent as asking peers takes.
func asker(t *testing.T) *Agent {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	t.Cleanup(client.CloseIdleConnections)
	return &Agent{opt: Options{Name: "pg01", Peers: client}, mail: newMailbox()}
}

func TestAskUnderstandsPatroniAndRegent(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		body   string
		want   events.Peer
	}{
		"replica": {
			200, `{"state":"running","role":"replica","timeline":3,"xlog":{"received_location":100,"replayed_location":90}}`,
			events.Peer{Reachable: true, State: "running", Timeline: 3, Position: 100, Tags: events.Tags{FailoverPriority: 1}},
		},
		"replica that replayed more than it received": {
			200, `{"state":"running","role":"replica","xlog":{"received_location":0,"replayed_location":90}}`,
			events.Peer{Reachable: true, State: "running", Position: 90, Tags: events.Tags{FailoverPriority: 1}},
		},
		"primary of an old Patroni": {
			200, `{"state":"running","role":"master","timeline":2,"xlog":{"location":70}}`,
			events.Peer{Reachable: true, Primary: true, State: "running", Timeline: 2, Position: 70, Tags: events.Tags{FailoverPriority: 1}},
		},
		"PostgreSQL down, said with 503": {
			503, `{"state":"stopped","role":"replica"}`,
			events.Peer{State: "stopped", Why: "its PostgreSQL does not answer (stopped)", Tags: events.Tags{FailoverPriority: 1}},
		},
		"nofailover": {
			200, `{"state":"running","role":"replica","xlog":{"replayed_location":1},"tags":{"nofailover":true}}`,
			events.Peer{Reachable: true, State: "running", Position: 1, Tags: events.Tags{NoFailover: true, FailoverPriority: 1}},
		},
		"priority 0 means the same": {
			200, `{"state":"running","role":"replica","xlog":{"replayed_location":1},"tags":{"failover_priority":"0"}}`,
			events.Peer{Reachable: true, State: "running", Position: 1, Tags: events.Tags{NoFailover: true}},
		},
		"nofailover false wins over priority 0": {
			200, `{"state":"running","role":"replica","xlog":{"replayed_location":1},"tags":{"failover_priority":0,"nofailover":false}}`,
			events.Peer{Reachable: true, State: "running", Position: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				rw.WriteHeader(tc.status)
				fmt.Fprint(rw, tc.body)
			}))
			defer srv.Close()
			tc.want.Name = "pg02"
			got := asker(t).ask(t.Context(), fsm.PeerAddr{Name: "pg02", APIURL: srv.URL + "/patroni"})
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tc.want) {
				t.Errorf("%+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestAskOfNobodyAndOfNonsense(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html>") }))
	url := srv.URL
	a := asker(t)
	if p := a.ask(t.Context(), fsm.PeerAddr{Name: "x", APIURL: url}); p.Reachable || !strings.Contains(p.Why, "read the answer") {
		t.Errorf("%+v", p)
	}
	srv.Close()
	if p := a.ask(t.Context(), fsm.PeerAddr{Name: "x", APIURL: url}); p.Reachable || !strings.Contains(p.Why, "refused") {
		t.Errorf("%+v", p)
	}
}

// TestProbeWaitsForTheSilentNoLongerThanItMay: S16. One event for each peer comes
// before the outcome, silent peers included.
func TestProbeWaitsForTheSilentNoLongerThanItMay(t *testing.T) {
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer silent.Close()
	defer close(release)
	quick := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(rw, `{"state":"running","role":"replica","xlog":{"replayed_location":1}}`)
	}))
	defer quick.Close()
	a := asker(t)
	act := fsm.ProbePeers{Timeout: 300 * time.Millisecond, Peers: []fsm.PeerAddr{
		{Name: "silent", APIURL: silent.URL}, {Name: "quick", APIURL: quick.URL},
	}}
	ctx, cancel := context.WithTimeout(t.Context(), act.Timeout)
	defer cancel()
	o := fsm.Ordered{ID: events.ActionID{Seq: 7}, Action: act}
	a.probePeers(ctx, o, act)
	got := a.mail.take()
	if len(got) != 3 {
		t.Fatalf("%d events, want two answers and the outcome", len(got))
	}
	for i, name := range []events.NodeName{"quick", "silent"} {
		p := got[i].(events.PeerObserved)
		if p.ID != o.ID || p.Peer.Name != name || p.Peer.Reachable != (name == "quick") {
			t.Errorf("answer %d: %+v", i, p)
		}
	}
	if f, ok := got[2].(events.ActionFinished); !ok || f.ID != o.ID || f.Class != events.Done {
		t.Errorf("outcome %+v", got[2])
	}
}

// TestAskPositionWaitsUntilTheCandidateHasEverything: S15.
func TestAskPositionWaitsUntilTheCandidateHasEverything(t *testing.T) {
	var at atomic.Int64
	at.Store(90)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, `{"state":"running","role":"replica","xlog":{"received_location":%d}}`, at.Add(1))
	}))
	defer srv.Close()
	a := asker(t)
	ask := func(end events.LSN, limit time.Duration) events.ActionFinished {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		act := fsm.AskPosition{Name: "pg02", APIURL: srv.URL, At: end}
		a.askPosition(ctx, fsm.Ordered{ID: events.ActionID{Seq: 1}, Action: act}, act)
		return a.mail.take()[0].(events.ActionFinished)
	}
	if f := ask(100, 30*time.Second); f.Class != events.Done || f.Result.Position < 100 {
		t.Errorf("%+v", f)
	}
	if f := ask(1<<40, 100*time.Millisecond); f.Class != events.Unavailable || !strings.Contains(f.Why, "has not flushed everything") {
		t.Errorf("%+v", f)
	}
	srv.Close()
	if f := ask(1, 100*time.Millisecond); f.Class != events.Unavailable || !strings.Contains(f.Why, "ask pg02") {
		t.Errorf("%+v", f)
	}
}
