package consul

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/regent/dcs"
)

// agent plays a Consul agent whose answers a test chooses: for what real servers do once in
// a thousand freezes.
type agent struct {
	mu       sync.Mutex // guards the rest, and answers one request at a time
	barriers int
	renewals int
	// txn answers transactions that aren't barriers, list reads of all keys.
	txn  func(a *agent, ops api.TxnOps) (status int, answer any)
	list func(a *agent) (index uint64, pairs []map[string]any)
	// renew answers 200 when it says true.
	renew func(a *agent) bool
}

const someSession = "11111111-2222-3333-4444-555555555555"

func newAgent(t *testing.T, a *agent) *Store {
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	return opened(t, Config{URL: server.URL})
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answer := func(status int, body any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	switch path := r.URL.Path; {
	case path == "/v1/txn":
		var ops api.TxnOps
		_ = json.NewDecoder(r.Body).Decode(&ops)
		if len(ops) == 1 && strings.HasSuffix(ops[0].KV.Key, barrierKey) {
			a.barriers++
			answer(http.StatusOK, map[string]any{"Results": []any{}})
			return
		}
		answer(a.txn(a, ops))
	case strings.HasPrefix(path, "/v1/kv/"):
		index, pairs := a.list(a)
		w.Header().Set("X-Consul-Index", fmt.Sprint(index))
		answer(http.StatusOK, pairs)
	case strings.HasPrefix(path, "/v1/session/renew/"):
		a.renewals++
		if a.renew(a) {
			answer(http.StatusOK, []map[string]any{{"ID": someSession, "TTL": "10s"}})
		} else {
			answer(http.StatusNotFound, nil)
		}
	case strings.HasPrefix(path, "/v1/session/info/"):
		answer(http.StatusOK, []any{})
	default:
		answer(http.StatusNotFound, nil)
	}
}

func pair(key, value, session string, index uint64) map[string]any {
	return map[string]any{
		"Key": "service/main/" + key, "Value": []byte(value), "Session": session, "CreateIndex": index, "ModifyIndex": index,
	}
}

// An agent that was frozen together with an old leader passes renewals on to it, which
// answers and forgets them, until something that needs a majority has passed through. A
// renewal before that would be believed and extend nothing (safety rules S8, S24).
func TestRenewalsReachTheLeader(t *testing.T) {
	t.Parallel()
	extended := false
	a := &agent{
		renew: func(a *agent) bool { extended = a.barriers > 0; return true },
		list: func(*agent) (uint64, []map[string]any) {
			return 7, []map[string]any{pair("leader", "pg01", someSession, 7), pair("members/pg02", "{}", "another", 6)}
		},
	}
	l, err := newAgent(t, a).Renew(limited(t), someSession)
	if err != nil || fmt.Sprint(l.Keys) != "[leader]" || l.TTL.String() != "10s" {
		t.Fatalf("%+v, %v", l, err)
	}
	if !extended {
		t.Error("the renewal that was believed went to the old leader")
	}
}

// A leader in its first moments may not know a session that lives. It says so once; the
// consistent read decides.
func TestRenewalIsRefusedByConsistentReadsOnly(t *testing.T) {
	t.Parallel()
	a := &agent{renew: func(a *agent) bool { return false }}
	if _, err := newAgent(t, a).Renew(limited(t), someSession); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("a session that nobody knows: %v", err)
	}
	if a.renewals != 1 || a.barriers != 1 {
		t.Errorf("%d renewals, %d barriers", a.renewals, a.barriers)
	}
}

// What a thawed leader reads out of its old state refuses nothing.
func TestGuardsAreRefusedByLinearizableViewsOnly(t *testing.T) {
	t.Parallel()
	a := &agent{
		list: func(a *agent) (uint64, []map[string]any) {
			if a.barriers == 0 {
				return 5, []map[string]any{pair("leader", "pg02", "another", 5)}
			}
			return 6, nil
		},
		txn: func(_ *agent, ops api.TxnOps) (int, any) {
			return http.StatusOK, map[string]any{"Results": []any{map[string]any{"KV": pair("leader", "", "", 8)}}}
		},
	}
	txn := dcs.Txn{
		Guards: []dcs.Guard{{Key: dcs.KeyLeader, Absent: true}},
		Writes: []dcs.Write{{Key: dcs.KeyLeader, Value: []byte("pg01"), Lease: someSession}},
	}
	if rev, err := newAgent(t, a).Commit(limited(t), txn); err != nil || rev != 8 {
		t.Errorf("revision %d, %v", rev, err)
	}
}

// Patroni takes an answer of 200 for a yes to everything. Each write has to be in it.
func TestEachResultIsChecked(t *testing.T) {
	t.Parallel()
	results := []any{}
	a := &agent{
		list: func(*agent) (uint64, []map[string]any) { return 5, nil },
		txn:  func(*agent, api.TxnOps) (int, any) { return http.StatusOK, map[string]any{"Results": results} },
	}
	s := newAgent(t, a)
	txn := dcs.Txn{Writes: []dcs.Write{dcs.Put("status", nil), dcs.Put("config", nil)}}
	for _, tc := range []struct {
		results []any
		class   error
	}{
		{nil, dcs.ErrUnknown},
		{[]any{map[string]any{"KV": pair("status", "", "", 9)}}, dcs.ErrUnknown},
		{[]any{map[string]any{"KV": pair("status", "", "", 9)}, map[string]any{"KV": pair("config", "", "", 4)}}, dcs.ErrUnknown},
		{[]any{map[string]any{"KV": pair("status", "", "", 9)}, map[string]any{"KV": pair("config", "", "", 9)}}, nil},
	} {
		a.mu.Lock()
		results = tc.results
		a.mu.Unlock()
		if rev, err := s.Commit(limited(t), txn); !errors.Is(err, tc.class) || (err == nil) != (rev == 9) {
			t.Errorf("%d results: revision %d, %v", len(tc.results), rev, err)
		}
	}
}

// What a transaction that was rolled back says, in the server's words.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	what, tries := "", 0
	a := &agent{
		list: func(*agent) (uint64, []map[string]any) { return 5, nil },
		txn: func(_ *agent, ops api.TxnOps) (int, any) {
			if tries++; tries > 1 {
				return http.StatusOK, map[string]any{"Results": []any{map[string]any{"KV": pair("leader", "", "", 9)}}}
			}
			return http.StatusConflict, map[string]any{"Errors": []any{map[string]any{"OpIndex": len(ops) - 1, "What": what}}}
		},
	}
	s := newAgent(t, a)
	for text, class := range map[string]error{
		"failed to lock key \"leader\" due to lock delay":         nil, // tried again
		"failed to lock key \"leader\", lock is already held":     nil,
		"invalid session \"" + someSession + "\"":                 dcs.ErrRefused,
		"Permission denied: token with AccessorID 'x' lacks ...":  dcs.ErrBroken,
		"something that no version of Consul has said until now.": dcs.ErrUnavailable,
	} {
		a.mu.Lock()
		what, tries = text, 0
		a.mu.Unlock()
		txn := dcs.Txn{Writes: []dcs.Write{{Key: dcs.KeyLeader, Lease: someSession}}}
		if _, err := s.Commit(limited(t), txn); !errors.Is(err, class) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Consul's index of a prefix falls back when it forgets deleted keys, though nothing changed.
// Revisions don't: the machine would take newer views for older ones.
func TestRevisionsOutliveTombstones(t *testing.T) {
	t.Parallel()
	index := uint64(100)
	a := &agent{list: func(*agent) (uint64, []map[string]any) {
		return index, []map[string]any{pair("config", "{}", "", 90)}
	}}
	s := newAgent(t, a)
	w, err := s.Watch(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	until(t, w, "revision 100", func(v dcs.View) bool { return v.Revision == 100 })
	for _, next := range []struct{ index, want uint64 }{{90, 100}, {120, 120}} {
		a.mu.Lock()
		index = next.index
		a.mu.Unlock()
		if v := mustView(t, s); uint64(v.Revision) != next.want {
			t.Errorf("at index %d the view has revision %d", next.index, v.Revision)
		}
	}
	until(t, w, "revision 120", func(v dcs.View) bool {
		if v.Revision < 100 {
			t.Errorf("the watch went back to %d", v.Revision)
		}
		return v.Revision == 120
	})
}
