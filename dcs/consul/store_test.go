package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/consul/consultest"
	"github.com/pgregent/regent/events"
)

// cluster of its own for a test on a shared server.
func based(name string) string { return dcs.BasePath("service", name) }

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func mustCommit(t *testing.T, s dcs.Store, txn dcs.Txn) events.Revision {
	t.Helper()
	rev, err := s.Commit(limited(t), txn)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func mustGrant(t *testing.T, s dcs.Store, ttl time.Duration) dcs.Lease {
	t.Helper()
	l, err := s.Grant(limited(t), "", ttl)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustView(t *testing.T, s dcs.Store) dcs.View {
	t.Helper()
	v, err := s.View(limited(t), dcs.Linearizable)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// until reads a watch up to a view that satisfies.
func until(t *testing.T, w <-chan dcs.View, what string, satisfies func(dcs.View) bool) dcs.View {
	t.Helper()
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	for {
		select {
		case v, open := <-w:
			if !open {
				t.Fatalf("the watch ended before %s", what)
			}
			if satisfies(v) {
				return v
			}
		case <-timer.C:
			t.Fatalf("no view with %s", what)
		}
	}
}

func leased(key, value string, l dcs.Lease) dcs.Txn {
	return dcs.Txn{Writes: []dcs.Write{{Key: key, Value: []byte(value), Lease: l.ID}}}
}

// What this backend promises beyond the contract, on a real server.
func TestOnAServer(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, "c0", nil)
	usable(t, opened(t, Config{Host: server.HTTP}))
	tests := map[string]func(*testing.T, *Store){
		"half of the ttl": halfOfTheTTL, "hand-off": handOff, "equal bytes": equalBytes,
		"a killed session": killedSession, "taken from another session": takenOver, "latency of watches": wakes,
		"stale views": staleViews, "service": registered, "checks": checked, "another datacenter": elsewhere,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Host: server.HTTP, Base: based(name), Scope: "main", Name: "pg01"}
			switch name {
			case "stale views":
				cfg.Consistency = "stale"
			case "service":
				cfg.Register = Service{Enabled: true, Tags: []string{"z", "a"}, CheckInterval: time.Second}
			case "checks":
				cfg.Checks = []string{"serfHealth"}
			case "another datacenter":
				cfg.DC = "nowhere"
			}
			test(t, opened(t, cfg))
		})
	}
}

// The session is Patroni's: half of the ttl, keys deleted with it, no checks, no lock delay
// to speak of, and a name that people know.
func halfOfTheTTL(t *testing.T, s *Store) {
	l := mustGrant(t, s, 5*time.Second)
	if l.TTL != 2500*time.Millisecond {
		t.Errorf("a lease of 5 s was granted as %v", l.TTL)
	}
	entry, _, err := s.client.Session().Info(string(l.ID), nil)
	if err != nil || entry == nil {
		t.Fatalf("session %s: %v, %v", l.ID, entry, err)
	}
	if entry.TTL != "2.5s" || entry.Behavior != api.SessionBehaviorDelete || entry.LockDelay != time.Millisecond ||
		entry.Name != "main-pg01" || len(entry.NodeChecks)+len(entry.ServiceChecks)+len(entry.Checks) > 0 {
		t.Errorf("session %+v", entry)
	}
	renewed, err := s.Renew(limited(t), l.ID)
	if err != nil || renewed.TTL != l.TTL {
		t.Errorf("renewed for %v, %v", renewed.TTL, err)
	}
}

// Safety rule S15: the key goes from one session to the other in one step, with the status,
// or nothing happens.
func handOff(t *testing.T, s *Store) {
	holder, candidate, gone := mustGrant(t, s, time.Minute), mustGrant(t, s, time.Minute), mustGrant(t, s, time.Minute)
	if err := s.Revoke(limited(t), gone.ID); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, leased(dcs.KeyLeader, "pg01", holder))
	move := func(to events.LeaseID) dcs.Txn {
		mine := dcs.ValueIs(dcs.KeyLeader, "pg01")
		mine.Lease = holder.ID
		return dcs.Txn{Guards: []dcs.Guard{mine}, Writes: []dcs.Write{
			dcs.Put(dcs.KeyStatus, []byte("{}")), {Key: dcs.KeyLeader, Value: []byte("pg02"), Lease: to},
		}}
	}
	before := mustView(t, s)
	for _, nobody := range []events.LeaseID{gone.ID, "not-a-session"} {
		if _, err := s.Commit(limited(t), move(nobody)); !errors.Is(err, dcs.ErrRefused) {
			t.Errorf("to session %s: %v", nobody, err)
		}
	}
	if after := mustView(t, s); after.Revision != before.Revision {
		t.Errorf("a refused hand-off changed something: %+v", after)
	}
	w, err := s.Watch(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	rev := mustCommit(t, s, move(candidate.ID))
	v := until(t, w, "the new holder", func(v dcs.View) bool {
		kv, found := v.Get(dcs.KeyLeader)
		if !found {
			t.Error("the leader key was seen to be gone")
		}
		return string(kv.Value) == "pg02"
	})
	leader, _ := v.Get(dcs.KeyLeader)
	status, _ := v.Get(dcs.KeyStatus)
	if leader.Lease != candidate.ID || leader.Version != rev || status.Version != rev || status.Lease != "" {
		t.Errorf("moved at %d: %+v, %+v", rev, leader, status)
	}
	if _, err := s.Commit(limited(t), move(candidate.ID)); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("once more: %v", err)
	}
	if err := s.Revoke(limited(t), holder.ID); err != nil {
		t.Fatal(err)
	}
	if _, found := mustView(t, s).Get(dcs.KeyLeader); !found {
		t.Error("the former holder's session took the key with it")
	}
}

// Consul itself would leave the index of a key alone that gets the bytes it has.
func equalBytes(t *testing.T, s *Store) {
	l := mustGrant(t, s, time.Minute)
	for name, txn := range map[string]dcs.Txn{
		"plain":   {Writes: []dcs.Write{dcs.Put("plain", []byte("same")), dcs.Put("other", nil)}},
		"session": leased("session", "same", l),
	} {
		first := mustCommit(t, s, txn)
		second := mustCommit(t, s, txn)
		kv, _ := mustView(t, s).Get(name)
		if second <= first || kv.Version != second || kv.Created != first || string(kv.Value) != "same" {
			t.Errorf("%s: written at %d and %d, now %+v", name, first, second, kv)
		}
	}
	kv, _ := mustView(t, s).Get("session")
	if kv.Lease != l.ID {
		t.Errorf("rewritten, the key is attached to %q", kv.Lease)
	}
}

// A session that an operator or a failing check ends takes its keys with it, and everybody
// learns it.
func killedSession(t *testing.T, s *Store) {
	l := mustGrant(t, s, time.Minute)
	mustCommit(t, s, leased(dcs.KeyLeader, "pg01", l))
	mustCommit(t, s, leased("members/pg01", "{}", l))
	w, err := s.Watch(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Session().Destroy(string(l.ID), nil); err != nil {
		t.Fatal(err)
	}
	until(t, w, "no key of the session", func(v dcs.View) bool {
		_, leader := v.Get(dcs.KeyLeader)
		_, member := v.Get("members/pg01")
		if leader != member {
			t.Error("the keys of one session don't go together")
		}
		return !leader
	})
	if _, err := s.Renew(limited(t), l.ID); !errors.Is(err, dcs.ErrRefused) {
		t.Errorf("renewing it: %v", err)
	}
	// The next one gets the key at once: a lock delay of 15 s, Consul's own, would show.
	next, began := mustGrant(t, s, time.Minute), time.Now()
	txn := leased(dcs.KeyLeader, "pg01", next)
	txn.Guards = []dcs.Guard{{Key: dcs.KeyLeader, Absent: true}}
	mustCommit(t, s, txn)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("acquiring the key took %v", took)
	}
}

// A member that got a new session publishes over the key that its old one still holds,
// which Consul refuses to whoever just asks.
func takenOver(t *testing.T, s *Store) {
	old, fresh := mustGrant(t, s, time.Minute), mustGrant(t, s, time.Minute)
	mustCommit(t, s, leased("members/pg01", "old", old))
	pair := &api.KVPair{Key: s.base + "members/pg01", Value: []byte("plainly"), Session: string(fresh.ID)}
	if got, _, err := s.client.KV().Acquire(pair, nil); err != nil || got {
		t.Fatalf("consul lets a session take another's key: %v, %v; then this needs no transaction", got, err)
	}
	mustCommit(t, s, leased("members/pg01", "new", fresh))
	l, err := s.Renew(limited(t), fresh.ID)
	if err != nil || !slices.Equal(l.Keys, []string{"members/pg01"}) {
		t.Errorf("keys %v, %v", l.Keys, err)
	}
}

// A watch wakes when the key changes, not at the next look.
func wakes(t *testing.T, s *Store) {
	w, err := s.Watch(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	for n := range 20 {
		value := fmt.Sprint(n)
		// Any key will do, not the leader's only.
		rev := mustCommit(t, s, dcs.Txn{Writes: []dcs.Write{dcs.Put("config", []byte(value))}})
		committed := time.Now()
		v := until(t, w, value, func(v dcs.View) bool { return v.Revision >= rev })
		took = append(took, time.Since(committed))
		if v.Age < 0 || v.Age > time.Second {
			t.Errorf("a view that a change woke says that it is %v old", v.Age)
		}
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	t.Logf("from the answer to the writer to the view: median %v, longest %v", took[10], took[19])
	if took[10] > 200*time.Millisecond {
		t.Errorf("half of the watches took longer than %v", took[10])
	}
}

// What one server says alone has an unknown age, and is there all the same.
func staleViews(t *testing.T, s *Store) {
	mustCommit(t, s, dcs.Txn{Writes: []dcs.Write{dcs.Put("k", []byte("v"))}})
	v, err := s.View(limited(t), dcs.Local)
	if kv, _ := v.Get("k"); err != nil || v.Age != -1 || string(kv.Value) != "v" {
		t.Errorf("%+v, %v", v, err)
	}
	w, err := s.Watch(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	if v := until(t, w, "k", func(v dcs.View) bool { _, found := v.Get("k"); return found }); v.Age != -1 {
		t.Errorf("a watch's stale view says that it is %v old", v.Age)
	}
	if v := mustView(t, s); v.Age < 0 {
		t.Error("a linearizable view of unknown age")
	}
}

func registered(t *testing.T, s *Store) {
	l := mustGrant(t, s, time.Minute)
	publish := func(state, role string) {
		mustCommit(t, s, leased("members/pg01", fmt.Sprintf(
			`{"state":%q,"role":%q,"conn_url":"postgres://10.0.0.1:6432/postgres","api_url":"http://10.0.0.1:8008/patroni"}`,
			state, role), l))
	}
	await := func(what string, satisfies func(*api.AgentService) bool) {
		t.Helper()
		var service *api.AgentService
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); pause(5 * time.Millisecond) {
			services, err := s.client.Agent().Services()
			if err != nil {
				t.Fatal(err)
			}
			if service = services["main/pg01"]; satisfies(service) {
				return
			}
		}
		t.Fatalf("%s: the service is %+v", what, service)
	}
	publish("starting", "replica")
	publish("running", "replica")
	await("a replica", func(a *api.AgentService) bool {
		return a != nil && slices.Equal(a.Tags, []string{"a", "z", "replica"}) && a.Service == "main" &&
			a.Address == "10.0.0.1" && a.Port == 6432
	})
	publish("running", "primary")
	await("promoted", func(a *api.AgentService) bool {
		return a != nil && slices.Equal(a.Tags, []string{"a", "z", "primary", "master"})
	})
	publish("stopped", "primary")
	await("stopped", func(a *api.AgentService) bool { return a == nil })
}

// A session depends on the checks of the settings, and on no other. One that isn't there is
// no lease, and may come later.
func checked(t *testing.T, s *Store) {
	l := mustGrant(t, s, time.Minute)
	entry, _, err := s.client.Session().Info(string(l.ID), nil)
	if err != nil || entry == nil || !slices.Equal(entry.NodeChecks, []string{"serfHealth"}) {
		t.Errorf("session %+v, %v", entry, err)
	}
	s.cfg.Checks = []string{"nobody's"}
	if _, err := s.Grant(limited(t), "", time.Minute); !errors.Is(err, dcs.ErrUnavailable) {
		t.Errorf("a check that doesn't exist: %v", err)
	}
}

// The datacenter of the settings is asked for, in all kinds of requests.
func elsewhere(t *testing.T, s *Store) {
	_, errView := s.View(limited(t), dcs.Linearizable)
	_, errLocal := s.View(limited(t), dcs.Local)
	_, errGrant := s.Grant(limited(t), "", time.Minute)
	_, errRenew := s.Renew(limited(t), someSession)
	for op, err := range map[string]error{"view": errView, "local view": errLocal, "grant": errGrant, "renew": errRenew} {
		if !errors.Is(err, dcs.ErrUnavailable) || !contains(err.Error(), "No path to datacenter") {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// A server that comes back on its disk: sessions live on, and watches go on by themselves.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, "c0", nil)
	s := opened(t, Config{Host: server.HTTP})
	usable(t, s)
	l := mustGrant(t, s, 60*time.Second)
	mustCommit(t, s, leased(dcs.KeyLeader, "pg01", l))
	w, err := s.Watch(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	until(t, w, "the leader", func(v dcs.View) bool { _, found := v.Get(dcs.KeyLeader); return found })
	for _, stop := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		if err := server.Signal(stop, true); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(limited(t), leased("k", "", l)); !errors.Is(err, dcs.ErrUnavailable) {
			t.Errorf("while it is down: %v", err)
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		usable(t, s)
		renewed, err := s.Renew(limited(t), l.ID)
		if err != nil || !slices.Equal(renewed.Keys, []string{dcs.KeyLeader}) {
			t.Fatalf("after %v the session has keys %v, %v", stop, renewed.Keys, err)
		}
		rev := mustCommit(t, s, dcs.Txn{Writes: []dcs.Write{dcs.Put("config", []byte(stop.String()))}})
		until(t, w, "what was written afterwards", func(v dcs.View) bool { return v.Revision >= rev })
	}
}

// On a server as it is set by itself nothing shorter than 10 s is registered, and it is gone
// after twice that: what the documents say that Consul costs.
func TestRealTTL(t *testing.T) {
	if testing.Short() {
		t.Skip("a lease of 10 s takes 20 s to end")
	}
	t.Parallel()
	server := consultest.Start(t, "c0", map[string]any{"session_ttl_min": "10s"})
	s := opened(t, Config{Host: server.HTTP})
	usable(t, s)
	for _, tc := range []struct{ asked, granted time.Duration }{
		{2 * time.Second, 10 * time.Second}, {2 * time.Second, 10 * time.Second}, {30 * time.Second, 15 * time.Second},
	} {
		l := mustGrant(t, s, tc.asked)
		if l.TTL != tc.granted {
			t.Errorf("asked for %v, granted %v, not %v", tc.asked, l.TTL, tc.granted)
		}
		if err := s.Revoke(limited(t), l.ID); err != nil {
			t.Error(err)
		}
	}
	w, err := s.Watch(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	l := mustGrant(t, s, 20*time.Second)
	mustCommit(t, s, leased(dcs.KeyLeader, "pg01", l))
	until(t, w, "the leader", func(v dcs.View) bool { _, found := v.Get(dcs.KeyLeader); return found })
	until(t, w, "its end", func(v dcs.View) bool { _, found := v.Get(dcs.KeyLeader); return !found })
	lived := time.Since(began)
	t.Logf("registered for %v, gone after %v", l.TTL, lived.Round(time.Millisecond))
	if l.TTL != 10*time.Second || lived < 2*l.TTL || lived > 2*l.TTL+3*time.Second {
		t.Errorf("registered for %v, it lived %v", l.TTL, lived)
	}
}
