package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/fsm"
)

const good = `{"state":"running","role":"replica","xlog":{"received_location":5,"replayed_location":5}}`

// threeMembers is a cluster of pg00, which leads, pg01 and pg02, whose API answers.
func threeMembers(w *world) {
	w.put("leader pg00", `config {"ttl":30}`,
		`members/pg00 {"api_url":"http://pg00:8008/patroni","state":"running","role":"primary"}`,
		`members/pg01 {"api_url":"http://pg01:8008/patroni","state":"running","role":"replica"}`,
		`members/pg02 {"api_url":"http://pg02:8008/patroni","state":"running","role":"replica"}`)
	w.peers["pg01:8008"], w.peers["pg02:8008"] = good, good
}

// bubble runs a test on virtual time, the handlers called directly.
func bubble(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.build()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.looks.run(ctx) }()
		defer func() {
			cancel()
			<-done
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		threeMembers(w)
		test(w)
	})
}

// do hands a request to its handler.
func (w *world) do(ctx context.Context, method, path, body string) *reply {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	target, err := url.Parse(path)
	if err != nil {
		w.t.Fatal(err)
	}
	r := &request{
		method: method, path: target.Path, query: target.Query(), header: http.Header{}, conn: ours,
		length: int64(len(body)), body: strings.NewReader(body),
	}
	return w.server.answer(ctx, w.server.serving.Load().access, r)
}

// writes plays the machine: it writes the request key, as the agent's executor does.
func (w *world) writes(ctx context.Context, ev events.Event) (bool, string, error) {
	var f events.FailoverRequest
	switch ev := ev.(type) {
	case events.SwitchoverRequested:
		f = events.FailoverRequest{Leader: ev.From, Candidate: ev.To}
	case events.FailoverRequested:
		f = events.FailoverRequest{Candidate: ev.To}
	default:
		return false, fmt.Sprintf("unexpected %s", ev.Kind()), nil
	}
	_, err := w.client.Commit(ctx, dcs.Txn{Writes: []dcs.Write{dcs.Put(dcs.KeyFailover, dcs.EncodeFailover(f))}})
	return err == nil, "requested", err
}

func wantReply(t *testing.T, out *reply, code int, text string) {
	t.Helper()
	if out.code != code || !strings.Contains(string(out.body), text) || (!out.isPage && string(out.body) != text) {
		t.Errorf("got %d %q, want %d %q", out.code, out.body, code, text)
	}
}

// TestWishIsFollowedToItsEnd plays what can become of a request after it was written.
func TestWishIsFollowedToItsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		path, body string
		then       []string // what happens in the store, step by step
		code       int
		text       string
	}{
		"handed over": {
			"/switchover", `{"leader":"pg00","candidate":"pg02"}`,
			[]string{"leader pg02"}, 200, `Successfully switched over to "pg02"`,
		},
		"released and taken": {
			"/switchover", `{"leader":"pg00"}`,
			[]string{"leader (delete)", "members/pg00 {}", "leader pg01"}, 200, `Successfully switched over to "pg01"`,
		},
		"another candidate": {
			"/switchover", `{"leader":"pg00","member":"pg02"}`,
			[]string{"leader (delete)", "leader pg01"}, 200, `Switched over to "pg01" instead of "pg02"`,
		},
		"turned down": {
			"/switchover", `{"leader":"pg00","candidate":"pg02"}`,
			[]string{`status {"optime":5}`, "failover {}"}, 503, "Switchover failed",
		},
		"cleared by a leader that is gone": {
			"/switchover", `{"leader":"pg00","candidate":"pg02"}`,
			[]string{"leader (delete)", "failover {}", "leader pg02"}, 200, `Successfully switched over to "pg02"`,
		},
		"failover": {
			"/failover", `{"candidate":"pg02"}`,
			[]string{"leader pg02"}, 200, `Successfully failed over to "pg02"`,
		},
		"failover elsewhere": {
			"/failover", `{"candidate":"pg02"}`,
			[]string{"leader pg01"}, 200, `Failed over to "pg01" instead of "pg02"`,
		},
		"failover turned down": {
			"/failover", `{"candidate":"pg02"}`, []string{"failover {}"}, 503, "Failover failed",
		},
		"failover with a leader is a switchover": {
			"/failover", `{"candidate":"pg02","leader":"pg00"}`, []string{"failover {}"}, 503, "Switchover failed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.ask = w.writes
				answer := make(chan *reply, 1)
				go func() { answer <- w.do(w.t.Context(), "POST", c.path, c.body) }()
				for _, step := range c.then {
					synctest.Wait() // it waits for the next change
					select {
					case out := <-answer:
						w.t.Fatalf("answered %q before %q", out.body, step)
					default:
					}
					w.put(step)
				}
				wantReply(w.t, <-answer, c.code, c.text)
			})
		})
	}
}

func TestWishWithoutEndIsUnknownInTime(t *testing.T) {
	bubble(t, func(w *world) {
		w.ask = w.writes
		began := time.Now()
		out := w.do(w.t.Context(), "POST", "/switchover", `{"leader":"pg00","candidate":"pg02"}`)
		wantReply(w.t, out, 503, "Switchover status unknown")
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("took %v", took)
		}
		if got := w.stored("failover"); got != `{"leader":"pg00","member":"pg02"}` {
			t.Errorf("request key: %s", got)
		}
	})
}

func TestFailoverWithoutLeaderWaitsForOne(t *testing.T) {
	bubble(t, func(w *world) {
		w.put("leader (delete)", `failover {"member":"pg01"}`)
		w.ask = w.writes
		answer := make(chan *reply, 1)
		go func() { answer <- w.do(w.t.Context(), "POST", "/failover", `{"candidate":"pg02"}`) }()
		synctest.Wait()
		w.put("leader pg02")
		wantReply(w.t, <-answer, 200, `Successfully failed over to "pg02"`)
	})
}

// TestUnconfirmedWriteIsLookedFor: the machine says "not written" when the store did
// not say, so the API looks before it repeats that.
func TestUnconfirmedWriteIsLookedFor(t *testing.T) {
	const body = `{"leader":"pg00","candidate":"pg02"}`
	notWritten := func(context.Context, events.Event) (bool, string, error) {
		return false, "failed to write switchover key into DCS", nil
	}
	bubble(t, func(w *world) {
		w.ask = notWritten
		wantReply(w.t, w.do(w.t.Context(), "POST", "/switchover", body), 503, "failed to write failover key into DCS")
		w.server.opt.Compat = "3.0.4"
		wantReply(w.t, w.do(w.t.Context(), "POST", "/switchover", body), 503, "failed to write switchover key into DCS")
	})
	bubble(t, func(w *world) { // written, and the answer lost
		w.ask = func(ctx context.Context, ev events.Event) (bool, string, error) {
			_, _, _ = w.writes(ctx, ev)
			return notWritten(ctx, ev)
		}
		answer := make(chan *reply, 1)
		go func() { answer <- w.do(w.t.Context(), "POST", "/switchover", body) }()
		synctest.Wait()
		w.put("leader pg02")
		wantReply(w.t, <-answer, 200, `Successfully switched over to "pg02"`)
	})
	bubble(t, func(w *world) { // done already when we look
		w.ask = func(ctx context.Context, ev events.Event) (bool, string, error) {
			_, _, _ = w.writes(ctx, ev)
			w.put("leader pg02", "failover {}")
			return notWritten(ctx, ev)
		}
		wantReply(w.t, w.do(w.t.Context(), "POST", "/switchover", body), 200, `Successfully switched over to "pg02"`)
	})
	bubble(t, func(w *world) { // and the store can't be asked
		w.ask = func(ctx context.Context, ev events.Event) (bool, string, error) {
			w.store.Cut("api", true)
			return notWritten(ctx, ev)
		}
		wantReply(w.t, w.do(w.t.Context(), "POST", "/switchover", body), 503, "Switchover status unknown")
	})
	bubble(t, func(w *world) { // the machine hangs
		w.ask = func(ctx context.Context, _ events.Event) (bool, string, error) {
			<-ctx.Done()
			return false, "", fmt.Errorf("wait for the answer: %w", ctx.Err())
		}
		wantReply(w.t, w.do(w.t.Context(), "POST", "/switchover", body), 503, "Switchover status unknown")
	})
	bubble(t, func(w *world) { // the machine takes no requests
		w.ask = func(context.Context, events.Event) (bool, string, error) {
			return false, "", errors.New("100 requests are waiting already")
		}
		wantReply(w.t, w.do(w.t.Context(), "POST", "/switchover", body), 503, "failed to write failover key into DCS")
	})
}

func TestWishesAreChecked(t *testing.T) {
	for _, c := range []struct {
		name, path, body, config string
		prepare                  func(w *world)
		code                     int
		text                     string
	}{
		{name: "no candidate", path: "/failover", body: `{"leader":"pg00"}`, code: 400, text: "Failover could be performed only to a specific candidate"},
		{name: "no leader", path: "/switchover", body: `{"candidate":"pg01"}`, code: 400, text: "Switchover could be performed only from a specific leader"},
		{name: "scheduled failover", path: "/failover", body: `{"candidate":"pg01","scheduled_at":"2030-01-01T10:00:00+00:00"}`, code: 400, text: "Failover can't be scheduled"},
		{name: "scheduled in pause", path: "/switchover", body: `{"leader":"pg00","scheduled_at":"2030-01-01T10:00:00+00:00"}`, config: `{"pause":true}`, code: 400, text: "Can't schedule switchover in the paused state"},
		{name: "no zone", path: "/switchover", body: `{"leader":"pg00","scheduled_at":"2030-01-01T10:00"}`, code: 400, text: "Timezone information is mandatory for the scheduled switchover"},
		{name: "in the past", path: "/switchover", body: `{"leader":"pg00","scheduled_at":"2020-01-01 10:00:00 UTC"}`, code: 422, text: "Cannot schedule switchover in the past"},
		{name: "no time", path: "/switchover", body: `{"leader":"pg00","scheduled_at":"soon"}`, code: 422, text: "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601"},
		{name: "scheduled", path: "/switchover", body: `{"leader":"pg00","scheduled_at":"2030-01-01T10:00:00.5+0100"}`, code: 503, text: "failed to write failover key into DCS"},
		{name: "paused without candidate", path: "/switchover", body: `{"leader":"pg00"}`, config: `{"pause":"on"}`, code: 400, text: "Switchover is possible only to a specific candidate in a paused state"},
		{name: "to itself", path: "/switchover", body: `{"leader":"pg00","candidate":"pg00"}`, code: 400, text: "Switchover target and source are the same"},
		{name: "another leader", path: "/switchover", body: `{"leader":"pg01"}`, code: 412, text: "leader name does not match"},
		{name: "no leader at all", path: "/switchover", body: `{"leader":"pg00"}`, prepare: func(w *world) { w.put("leader (delete)") }, code: 412, text: "leader name does not match"},
		{name: "unknown candidate", path: "/switchover", body: `{"leader":"pg00","candidate":"pg09"}`, code: 412, text: "candidate does not exists"},
		{name: "not synchronous", path: "/switchover", body: `{"leader":"pg00","candidate":"pg01"}`, config: `{"synchronous_mode":true}`, prepare: func(w *world) { w.put(`sync {"leader":"pg00","sync_standby":"pg02"}`) }, code: 412, text: "candidate name does not match with sync_standby"},
		{name: "no synchronous", path: "/switchover", body: `{"leader":"pg00"}`, config: `{"synchronous_mode":true}`, code: 412, text: "switchover is not possible: can not find sync_standby"},
		{name: "alone", path: "/switchover", body: `{"leader":"pg00"}`, prepare: func(w *world) { w.put("members/pg01 (delete)", "members/pg02 (delete)") }, code: 412, text: "switchover is not possible: cluster does not have members except leader"},
		{name: "nobody answers", path: "/switchover", body: `{"leader":"pg00"}`, prepare: func(w *world) { clear(w.peers) }, code: 412, text: "switchover is not possible: no good candidates have been found"},
		{name: "candidate down", path: "/failover", body: `{"candidate":"pg01"}`, prepare: func(w *world) { w.peers["pg01:8008"] = `{"state":"stopped","role":"replica"}` }, code: 412, text: "failover is not possible: no good candidates have been found"},
		{name: "nofailover", path: "/failover", body: `{"candidate":"pg01"}`, prepare: func(w *world) {
			w.peers["pg01:8008"] = `{"xlog":{},"tags":{"nofailover":true,"failover_priority":1}}`
		}, code: 412, text: "failover is not possible: no good candidates have been found"},
		{name: "priority 0", path: "/failover", body: `{"candidate":"pg01"}`, prepare: func(w *world) { w.peers["pg01:8008"] = `{"xlog":{},"tags":{"failover_priority":"0"}}` }, code: 412, text: "failover is not possible: no good candidates have been found"},
		{name: "watchdog", path: "/failover", body: `{"candidate":"pg01"}`, prepare: func(w *world) { w.peers["pg01:8008"] = `{"xlog":{},"watchdog_failed":true}` }, code: 412, text: "failover is not possible: no good candidates have been found"},
		{name: "nonsense", path: "/failover", body: `{"candidate":"pg01"}`, prepare: func(w *world) { w.peers["pg01:8008"] = `<html>` }, code: 412, text: "failover is not possible: no good candidates have been found"},
		{name: "no text", path: "/switchover", body: `{"leader":7}`, code: 400, text: "Bad Request"},
		{name: "no body", path: "/switchover", body: ``, code: 400, text: "Bad Request"},
		{name: "no store", path: "/switchover", body: `{"leader":"pg00"}`, prepare: func(w *world) { w.store.Cut("api", true) }, code: 503, text: "DCS is not accessible"},
		{name: "one good is enough", path: "/switchover", body: `{"leader":"pg00"}`, prepare: func(w *world) { delete(w.peers, "pg01:8008") }, code: 503, text: "failed to write failover key into DCS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.peers["pg00:8008"] = good
				if c.config != "" {
					w.put("config " + c.config)
				}
				if c.prepare != nil {
					c.prepare(w)
				}
				out := w.do(w.t.Context(), "POST", c.path, c.body)
				wantReply(w.t, out, c.code, c.text)
				w.store.Cut("api", false)
				if got := w.stored("failover"); got != "(none)" {
					t.Errorf("request key: %s", got)
				}
			})
		})
	}
}

// A wish for later is written, not waited for.
func TestSwitchoverIsScheduled(t *testing.T) {
	bubble(t, func(w *world) {
		var got events.SwitchoverRequested
		w.ask = func(_ context.Context, ev events.Event) (bool, string, error) {
			got = ev.(events.SwitchoverRequested)
			return true, "requested", nil
		}
		out := w.do(w.t.Context(), "POST", "/switchover", `{"leader":"pg00","candidate":"pg01","scheduled_at":"2030-01-01 10:00:00.5+0100"}`)
		wantReply(w.t, out, 202, "Switchover scheduled")
		if got.From != "pg00" || got.To != "pg01" || got.ScheduledAt != "2030-01-01T10:00:00.5+01:00" {
			w.t.Errorf("the machine got %+v", got)
		}
	})
}

// TestOldWords: what 3.0.4 says and allows differently.
func TestOldWords(t *testing.T) {
	for body, want := range map[string]string{
		`{"candidate":"pg01","scheduled_at":"2030-01-01T10:00:00+00:00"}`:                 "Scheduled failover is possible only from a specific leader",
		`{"leader":"pg00","candidate":"pg01","scheduled_at":"2030-01-01T10:00:00+00:00"}`: "failed to write switchover key into DCS",
		`{"leader":"pg00","candidate":"pg00"}`:                                            "failed to write switchover key into DCS",
	} {
		bubble(t, func(w *world) {
			w.server.opt.Compat = "3.0.4"
			if out := w.do(w.t.Context(), "POST", "/failover", body); string(out.body) != want {
				t.Errorf("%s: %d %s, want %s", body, out.code, out.body, want)
			}
		})
	}
}

// TestOwnPositionIsNotAskedOverTheNetwork: a replica that gets the request for itself
// looks at its own PostgreSQL.
func TestOwnPositionIsNotAskedOverTheNetwork(t *testing.T) {
	bubble(t, func(w *world) {
		w.put("leader pg01")
		w.agent.change(func(s *fsm.State) { store := s.Store; *s = replicaState(); s.Store = store })
		w.agent.server = replicaState().Postgres.State
		w.ask = w.writes
		answer := make(chan *reply, 1)
		go func() {
			answer <- w.do(w.t.Context(), "POST", "/switchover", `{"leader":"pg01","candidate":"pg00"}`)
		}()
		synctest.Wait()
		w.put("leader pg00")
		wantReply(w.t, <-answer, 200, `Successfully switched over to "pg00"`)
	})
}

func TestUnscheduleLosesToAnotherWriter(t *testing.T) {
	for kind, want := range map[mem.Kind]int{mem.Refuse: 409, mem.Lose: 503, mem.LoseReply: 503} {
		bubble(t, func(w *world) {
			w.put(`failover {"leader":"pg00","scheduled_at":"2030-01-01T10:00:00+00:00"}`)
			w.store.Inject(mem.Fault{Op: mem.OpCommit, Kind: kind})
			if out := w.do(w.t.Context(), "DELETE", "/switchover", ""); out.code != want || !out.isPage {
				t.Errorf("fault %d: %d %s", kind, out.code, out.body)
			}
		})
	}
}

// TestConfigWritesTellWhatIsKnown: a lost race is a conflict, a lost answer is looked
// for, and what may still be on its way is never called failed by a PATCH.
func TestConfigWritesTellWhatIsKnown(t *testing.T) {
	for _, c := range []struct {
		method string
		kind   mem.Kind
		code   int
		text   string
	}{
		{"PATCH", mem.Refuse, 409, "Conflict"},
		{"PATCH", mem.Lose, 503, "DCS is not accessible"},
		{"PATCH", mem.LoseReply, 200, `{"ttl": 20}`},
		{"PATCH", mem.Delay, 503, "The store did not say whether it took the change"},
		{"PUT", mem.Lose, 502, "Bad Gateway"},
		{"PUT", mem.LoseReply, 200, `{"ttl": 20}`},
		{"PUT", mem.Delay, 502, "Bad Gateway"},
	} {
		bubble(t, func(w *world) {
			w.store.Inject(mem.Fault{Op: mem.OpCommit, Kind: c.kind})
			wantReply(w.t, w.do(w.t.Context(), c.method, "/config", `{"ttl":20}`), c.code, c.text)
		})
	}
	bubble(t, func(w *world) {
		w.store.Cut("api", true)
		for _, r := range []string{"PATCH /config", "PUT /config", "GET /config", "GET /cluster", "GET /history", "DELETE /switchover"} {
			method, path, _ := strings.Cut(r, " ")
			wantReply(w.t, w.do(w.t.Context(), method, path, `{"ttl":20}`), 503, "DCS is not accessible")
		}
	})
}

func TestConcurrentPatchConflicts(t *testing.T) {
	bubble(t, func(w *world) {
		hold := make(chan struct{})
		w.store.Inject(mem.Fault{Client: "api", Op: mem.OpCommit, Kind: mem.Hold, Until: hold})
		answer := make(chan *reply, 1)
		go func() { answer <- w.do(w.t.Context(), "PATCH", "/config", `{"ttl":20}`) }()
		synctest.Wait()
		other := w.store.Client("other")
		defer other.Close()
		put := dcs.Txn{Writes: []dcs.Write{dcs.Put("config", []byte(`{"ttl":40}`))}}
		if _, err := other.Commit(w.t.Context(), put); err != nil {
			t.Fatal(err)
		}
		close(hold)
		wantReply(w.t, <-answer, 409, "Conflict")
		if got := w.stored("config"); got != `{"ttl":40}` {
			t.Errorf("config: %s", got)
		}
	})
}

func TestConfigIsCheckedBeforeItIsShared(t *testing.T) {
	bubble(t, func(w *world) {
		w.server.opt.CheckConfig = func(c []byte) error {
			if strings.Contains(string(c), "standby_cluster") {
				return errors.New("standby_cluster is not implemented in this release")
			}
			return nil
		}
		for _, method := range []string{"PATCH", "PUT"} {
			out := w.do(w.t.Context(), method, "/config", `{"standby_cluster":{"host":"h"}}`)
			wantReply(w.t, out, 422, "standby_cluster is not implemented in this release")
		}
		wantReply(w.t, w.do(w.t.Context(), "PATCH", "/config", `{"ttl":20}`), 200, `{"ttl": 20}`)
	})
}

func TestUnchangedConfigIsNotWritten(t *testing.T) {
	bubble(t, func(w *world) {
		w.store.Inject(mem.Fault{Op: mem.OpCommit, Kind: mem.Lose, Times: -1})
		wantReply(w.t, w.do(w.t.Context(), "PATCH", "/config", `{"ttl":"30","gone":null}`), 200, `{"ttl": 30}`)
		wantReply(w.t, w.do(w.t.Context(), "PUT", "/config", `{ "ttl" : 30 }`), 200, `{"ttl": 30}`)
	})
}
