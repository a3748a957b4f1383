package events

import (
	"slices"
	"testing"
)

func TestSyncNamesAreWrittenAsPatroniWritesThem(t *testing.T) {
	for want, n := range map[string]SyncNames{
		"":                      {},
		"pg02":                  {Names: []NodeName{"pg02"}},
		`"pg-02"`:               {Names: []NodeName{"pg-02"}},
		`"2pg"`:                 {Names: []NodeName{"2pg"}},
		`"first"`:               {Names: []NodeName{"first"}},
		`"Any"`:                 {Names: []NodeName{"Any"}},
		`"a ""b"""`:             {Names: []NodeName{`a "b"`}},
		"2 (a,b)":               {Names: []NodeName{"b", "a"}},
		SyncHolder:              {Hold: true},
		"pg$3":                  {Names: []NodeName{"pg$3"}, Hold: true},
		`3 ("*",_x,"a.domain")`: {Names: []NodeName{"a.domain", "_x", "*"}},
	} {
		if got := n.Text(); got != want {
			t.Errorf("%+v is written %s, not %s", n, got, want)
		}
	}
}

func TestSyncNamesAreThoseThatEachCommitWaitsFor(t *testing.T) {
	for _, tc := range []struct {
		text  string
		want  []NodeName
		holds bool
	}{
		{"", nil, false}, {"  ", nil, false},
		{"pg02", []NodeName{"pg02"}, true}, {`"pg-02"`, []NodeName{"pg-02"}, true},
		{`"a ""b"""`, []NodeName{`a "b"`}, true},
		{"2 (a, b)", []NodeName{"a", "b"}, true}, {"FIRST 2(a,b)", []NodeName{"a", "b"}, true},
		{"any 1 (a)", []NodeName{"a"}, true}, {"ANY 2 (a,\"first\")", []NodeName{"a", "first"}, true},
		{"first", []NodeName{}, true}, // not a name
		{"a, b", nil, true}, {"1 (a,b)", nil, true}, {"ANY 1 (a,b)", nil, true}, {"*", nil, true}, {"2 (a,*)", nil, true},
		{"2 (a,b", nil, true}, {"(a)", nil, true}, {`"a`, nil, true}, {"a b", nil, true}, {"a,", nil, true}, {"2 (a,,b)", nil, true},
		{SyncHolder, nil, true},
	} {
		got, holds := ParseSyncNames(tc.text)
		if holds != tc.holds || !slices.Equal(got, tc.want) {
			t.Errorf("%q: each commit waits for %v (%v), not %v (%v)", tc.text, tc.want, tc.holds, got, holds)
		}
	}
}

func FuzzSyncNames(f *testing.F) {
	for _, s := range []string{"", "a", `"`, "2 (a,b)", `FIRST 1 ("x y",*)`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ParseSyncNames(text) // never panics
		if text == "" || text == SyncHolder || text == "*" {
			return
		}
		n := SyncNames{Names: []NodeName{NodeName(text)}}
		if got, holds := ParseSyncNames(n.Text()); !holds || !slices.Equal(got, n.Names) {
			t.Errorf("%q is written %q and read as %q", text, n.Text(), got)
		}
	})
}
