package main

import (
	"strings"
	"testing"
)

const (
	passing = `{"Action":"run","Package":"m/a","Test":"TestOne"}
{"Action":"output","Package":"m/a","Test":"TestOne","Output":"chatter\n"}
{"Action":"pass","Package":"m/a","Test":"TestOne","Elapsed":0.1}
{"Action":"pass","Package":"m/a","Elapsed":0.2}
{"Action":"skip","Package":"m/none","Elapsed":0}
`
	skipping = `{"Action":"output","Package":"m/b","Test":"TestTwo","Output":"=== RUN   TestTwo\n"}
{"Action":"output","Package":"m/b","Test":"TestTwo","Output":"    b_test.go:7: no PostgreSQL here\n"}
{"Action":"output","Package":"m/b","Test":"TestTwo","Output":"--- SKIP: TestTwo (0.00s)\n"}
{"Action":"skip","Package":"m/b","Test":"TestTwo","Elapsed":0}
{"Action":"pass","Package":"m/b","Elapsed":0.2}
`
	failing = `{"Action":"output","Package":"m/c","Test":"TestThree","Output":"    c_test.go:9: two holders\n"}
{"Action":"fail","Package":"m/c","Test":"TestThree","Elapsed":0.1}
{"Action":"fail","Package":"m/c","Elapsed":0.2}
`
	panicking = `{"Action":"output","Package":"m/d","Test":"TestFour","Output":"panic: nil map\n"}
{"Action":"fail","Package":"m/d","Elapsed":0.2}
`
	notBuilding = `{"ImportPath":"m/e","Action":"build-output","Output":"e.go:3: undefined: x\n"}
{"ImportPath":"m/e","Action":"build-fail"}
{"Action":"fail","Package":"m/e","Elapsed":0,"FailedBuild":"m/e"}
`
)

func TestExitCodeAndWordsFollowTheOutcome(t *testing.T) {
	cases := []struct {
		name, input, skips string
		code               int
		want               []string
		absent             string
	}{
		{"passing", passing, "fail", 0, []string{"ok ", "1 tests passed, 0 failed", "1 without tests"}, "chatter"},
		{"skip is reported", skipping, "report", 0, []string{"skipped: m/b TestTwo: b_test.go:7: no PostgreSQL here"}, "FAIL"},
		{"skip can fail", skipping, "fail", 1, []string{"skipped: m/b TestTwo", "skipped tests fail here"}, ""},
		{"skip can be hidden", skipping, "hide", 0, []string{"1 skipped"}, "no PostgreSQL"},
		{"failing", passing + failing, "report", 1, []string{"two holders", "FAIL", "1 failed"}, "chatter"},
		{"a panic is shown", panicking, "report", 1, []string{"panic: nil map", "FAIL"}, ""},
		{"a broken build is shown", notBuilding, "report", 1, []string{"undefined: x", "FAIL"}, ""},
		{"nothing ran", "", "report", 1, []string{"no package was tested"}, ""},
		{"the go command's own words", "go: cannot find main module\n", "report", 1, []string{"cannot find main module"}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			if code, _ := run(strings.NewReader(c.input), &out, c.skips); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("output lacks %q", w)
				}
			}
			if c.absent != "" && strings.Contains(out.String(), c.absent) {
				t.Errorf("output has %q", c.absent)
			}
			if t.Failed() {
				t.Logf("output:\n%s", out.String())
			}
		})
	}
}
