package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/mem"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/fsm"
)

// Nothing but 200 with exactly "Accepted" is a member's consent; who is silent costs the
// deadline, and nobody waits for another.
func TestOnlyConsentIsConsent(t *testing.T) {
	release := make(chan struct{})
	replies := map[string]func(http.ResponseWriter, *http.Request){
		"accepts": func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			var q FailsafeRequest
			name, password, _ := r.BasicAuth()
			if err != nil || json.Unmarshal(body, &q) != nil || r.Method != http.MethodPost || r.URL.Path != "/failsafe" ||
				q.Name != "pg01" || q.Slots["pg02"] != 7 || q.Regent.Member != "accepts" || q.Regent.TTLms != 5000 || name+password != "up" {
				w.WriteHeader(http.StatusTeapot)
			}
			fmt.Fprint(w, "Accepted")
		},
		"leads":   func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "Running as a leader", 500) },
		"is off":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) },
		"rejects": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401); fmt.Fprint(w, "Accepted") },
		"mumbles": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "Accepted, perhaps") },
		"says no": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") },
		"hangs":   func(_ http.ResponseWriter, r *http.Request) { <-release },
	}
	a := &Agent{mail: newMailbox(), opt: Options{
		Name: "pg01", Scope: "demo", Peers: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		Credentials: func() (string, string) { return "u", "p" },
	}}
	act := fsm.AskFailsafe{TTL: 5 * time.Second, Slots: []fsm.SlotPosition{{Name: "pg02", LSN: 7}}}
	want := map[events.NodeName]bool{"nowhere": false, "nonsense": false}
	act.Members = []fsm.PeerAddr{{Name: "nowhere", APIURL: "http://127.0.0.1:1/patroni"}, {Name: "nonsense", APIURL: "::"}}
	for name, reply := range replies {
		s := httptest.NewServer(http.HandlerFunc(reply))
		defer s.Close()
		act.Members = append(act.Members, fsm.PeerAddr{Name: events.NodeName(name), APIURL: s.URL + "/patroni"})
		want[events.NodeName(name)] = name == "accepts"
	}
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	a.askFailsafe(ctx, fsm.Ordered{ID: events.ActionID{Seq: 9}, Action: act}, act)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("asking took %v", took)
	}
	for _, heard := range a.mail.take() {
		ev, answered := heard.(events.FailsafeAnswered)
		if !answered {
			continue // the outcome
		}
		if ev.Accepted != want[ev.Member] || ev.Accepted == (ev.Why != "") || ev.ID.Seq != 9 {
			t.Errorf("%+v", ev)
		}
		delete(want, ev.Member)
	}
	if len(want) != 0 {
		t.Errorf("no answer noted for %v", want)
	}
}

// The failsafe key is written by the holder only, over what was read only, in Patroni's bytes; and
// whoever takes the leader key has read it as it is (S12).
func TestTheFailsafeKeyGuardsTheLeaderKey(t *testing.T) {
	now := events.Instant(time.Second)
	c := mem.New(func() events.Instant { return now }).Client("pg01")
	defer func() { _ = c.Close() }()
	ctx, a := context.Background(), &Agent{opt: Options{Name: "pg01"}}
	if _, err := c.Grant(ctx, "L1", time.Minute); err != nil {
		t.Fatal(err)
	}
	commit := func(what string, txn dcs.Txn, want events.Class) events.Revision {
		t.Helper()
		rev, err := c.Commit(ctx, txn)
		if class := dcs.ClassOf(err); class != want {
			t.Fatalf("%s: %s (%v), want %s", what, class, err, want)
		}
		return rev
	}
	members := []events.FailsafeMember{{Name: "pg02", APIURL: "http://b"}, {Name: "pg01", APIURL: "http://a"}}
	commit("written by nobody", a.failsafeWrite(fsm.WriteFailsafe{Members: members, Lease: "L1"}), events.Refused)
	commit("the leader key", acquisition("pg01", fsm.AcquireLeader{Lease: "L1"}), events.Done)
	rev := commit("written", a.failsafeWrite(fsm.WriteFailsafe{Members: members, Lease: "L1"}), events.Done)
	v, err := c.View(ctx, dcs.Linearizable)
	if err != nil {
		t.Fatal(err)
	}
	if kv, _ := v.Get(dcs.KeyFailsafe); string(kv.Value) != `{"pg01":"http://a","pg02":"http://b"}` || kv.Lease != "" {
		t.Errorf("the key is %s, on lease %q", kv.Value, kv.Lease)
	}
	if k := dcs.Decode(v).Failsafe; k.Version != rev || len(k.Members) != 2 || !k.Has("pg02") || k.Has("pg03") {
		t.Errorf("read back: %+v", k)
	}
	commit("written over what wasn't read", a.failsafeWrite(fsm.WriteFailsafe{Members: members, Version: rev - 1, Lease: "L1"}), events.Refused)
	release, err := a.transaction(fsm.ReleaseLeader{Lease: "L1"})
	if err != nil {
		t.Fatal(err)
	}
	commit("released", release, events.Done)
	commit("taken without having read the key", acquisition("pg01", fsm.AcquireLeader{Lease: "L1"}), events.Refused)
	commit("taken", acquisition("pg01", fsm.AcquireLeader{Lease: "L1", Failsafe: rev}), events.Done)
	commit("deleted", a.failsafeWrite(fsm.WriteFailsafe{Version: rev, Lease: "L1"}), events.Done)
}

// A promise that can't be written to disk isn't given, although the machine has given it.
func TestAPromiseThatIsNotOnDiskIsNone(t *testing.T) {
	j, _, err := journal.Open(t.TempDir(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{opt: Options{Journal: j}, answers: answers{waiting: map[string]chan Answer{}}}
	give := func() Answer {
		ch := make(chan Answer, 1)
		a.answers.waiting["q"] = ch
		a.giveDurably(t.Context(), fsm.Respond{ID: "q", OK: true, Text: "Accepted", Durable: true})
		return <-ch
	}
	// Nobody writes: the disk stands still.
	if ans := give(); ans.OK || !strings.Contains(ans.Text, "can't be written to disk") {
		t.Errorf("answered %+v", ans)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	if ans := give(); !ans.OK || ans.Text != "Accepted" {
		t.Errorf("answered %+v", ans)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
