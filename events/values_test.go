package events

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLSNPrintsAsPostgreSQLDoes(t *testing.T) {
	for text, want := range map[string]LSN{"0/0": 0, "0/3000060": 0x3000060, "16/B374D848": 0x16_B374D848, "FFFFFFFF/FFFFFFFF": ^LSN(0)} {
		got, err := ParseLSN(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %d, %q, %v", text, got, got, err)
		}
	}
	for _, text := range []string{"", "0", "0/", "/0", "0/G", "100000000/0", "0/100000000", "-1/0", "0/0/0"} {
		if got, err := ParseLSN(text); err == nil {
			t.Errorf("%q was read as %s", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		l := LSN(rapid.Uint64().Draw(t, "lsn"))
		if back, err := ParseLSN(l.String()); err != nil || back != l {
			t.Fatalf("%d became %d, %v", l, back, err)
		}
	})
}

func TestSystemIDsAreDigits(t *testing.T) {
	for id, want := range map[SystemID]bool{
		"7423987239472394723": true, "1234567890": true, "123456789": false, "": false, "74239872394723947a3": false, "７４２３９８７２３９": false,
	} {
		if id.Valid() != want {
			t.Errorf("%q is valid: %v", id, !want)
		}
	}
}

// The holder stops believing before the lease can end, whatever the ttl, and has
// time to stop its server before that; the budget's bounds are those of S2.
func TestBeliefEndsBeforeTheLease(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ttl := time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Hour)).Draw(t, "ttl"))
		belief, budget := Belief(ttl), StopBudget(ttl)
		if belief >= ttl || float64(belief) < 0.96*float64(ttl) {
			t.Fatalf("ttl %s is believed for %s", ttl, belief)
		}
		if budget < 400*time.Millisecond || budget > 3*time.Second || budget >= belief {
			t.Fatalf("ttl %s has a stop budget of %s", ttl, budget)
		}
	})
}

func TestUpstreamIsReadFromTheConnectionURL(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://10.0.0.1:5433/postgres":        "10.0.0.1:5433",
		"postgresql://db.example/postgres":         "db.example:5432",
		"postgres://user:secret@db:6432/x?a=b":     "db:6432",
		"postgres://[fd00::1]:5432/postgres":       "[fd00::1]:5432",
		"postgres://[fd00::1]/postgres":            "[fd00::1]:5432",
		"postgres://db:port/postgres":              "",
		"http://db:5432/":                          "",
		"":                                         "",
		"postgres:///postgres":                     "",
		"postgres://user:p@ss@db.example:1/d":      "db.example:1",
		"postgres://db:5432/postgres?host=/run/pg": "db:5432",
	} {
		up, ok := Member{Name: "a", ConnURL: url}.Upstream()
		if ok != (want != "") || ok && up.Addr() != want {
			t.Errorf("%q: %q, %v; want %q", url, up.Addr(), ok, want)
		}
	}
}

func TestHistoryKnowsTheCurrentTimeline(t *testing.T) {
	for _, tc := range []struct {
		history History
		want    Timeline
	}{
		{History{}, 0},
		{History{Version: 1}, 1},
		{History{Version: 1, Lines: []HistoryLine{{Timeline: 1}, {Timeline: 2}}}, 3},
	} {
		if got := tc.history.Timeline(); got != tc.want {
			t.Errorf("%+v: timeline %d, not %d", tc.history, got, tc.want)
		}
	}
}

func TestViewFindsMembersByName(t *testing.T) {
	v := ClusterView{Members: []Member{{Name: "a", Role: "master"}, {Name: "b", Role: "replica"}}}
	if m, ok := v.Member("a"); !ok || !m.IsPrimary() {
		t.Errorf("a: %+v, %v", m, ok)
	}
	if m, ok := v.Member("b"); !ok || m.IsPrimary() {
		t.Errorf("b: %+v, %v", m, ok)
	}
	if _, ok := v.Member("c"); ok {
		t.Error("c is a member")
	}
}
