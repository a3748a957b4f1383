package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// stream writes what a test says as go test -json would.
func stream(t *testing.T, pkg, test string, output ...string) string {
	t.Helper()
	var b strings.Builder
	write := func(e event) {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	for _, o := range output {
		write(event{Action: "output", Package: pkg, Test: test, Output: o + "\n"})
	}
	write(event{Action: "fail", Package: pkg, Test: test})
	write(event{Action: "fail", Package: pkg, Elapsed: 7.5})
	return b.String()
}

func TestTheEndOfALongReportSaysWhyAndNothingElse(t *testing.T) {
	output := []string{"=== RUN   TestBig"}
	for i := range 1000 {
		output = append(output, fmt.Sprintf("    log_test.go:12: time=now level=INFO msg=%q", fmt.Sprint("chatter ", i)))
	}
	output = append(output,
		"    big_test.go:40: start: want running, got stopped",
		"        and another line",
		"    big_test.go:77: the server's log:")
	for i := range 400 {
		output = append(output, fmt.Sprintf("        LOG: line %d of the server", i))
	}
	output = append(output, "    big_test.go:90: "+strings.Repeat("x", 1000), "--- FAIL: TestBig (3.00s)")
	var out strings.Builder
	code, complaints := run(strings.NewReader(stream(t, "m/big", "TestBig", output...)), &out, "report")
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	want := "--- m/big TestBig\n" +
		"    log_test.go:12: time=now level=INFO msg=\"chatter 0\" (and 999 more here)\n" +
		"    big_test.go:40: start: want running, got stopped\n" +
		"        and another line\n" +
		"    big_test.go:77: the server's log:\n" +
		"    " + strings.Repeat("x", maxReasonWidth-len("big_test.go:90: ")) + " … (716 more)\n"
	want = strings.Replace(want, "    xxx", "    big_test.go:90: xxx", 1)
	if complaints != want {
		t.Errorf("complaints:\n%s\nwant:\n%s", complaints, want)
	}
	if !strings.HasSuffix(out.String(), "\n"+complaints) {
		t.Errorf("the complaints are not the end of the report:\n%s", out.String())
	}
	printed := strings.Split(out.String(), "\n")
	if len(printed) > maxOutputLines+25 {
		t.Errorf("%d lines were printed", len(printed))
	}
	if !slices.ContainsFunc(printed, func(l string) bool { return strings.Contains(l, "lines left out") }) {
		t.Error("nobody said that the middle was left out")
	}
	if !strings.Contains(out.String(), "     7.5 s  m/big") {
		t.Error("the package's time is missing")
	}
}

func TestReasonsAreFoundWhateverEndedTheTest(t *testing.T) {
	cases := []struct {
		name   string
		output []string
		want   []string
	}{
		{"a panic", []string{"panic: nil map [recovered]", "goroutine 7 [running]:", "\t/src/a.go:12 +0x1b"}, []string{"panic: nil map [recovered]"}},
		{"a race", []string{"WARNING: DATA RACE", "Read at 0x00c0:", "    testing.go:1490: race detected during execution of test"},
			[]string{"WARNING: DATA RACE", "testing.go:1490: race detected during execution of test"}},
		{"a compiler", []string{"# m/e", "e/e.go:3:7: undefined: x"}, []string{"e/e.go:3:7: undefined: x"}},
		{"a sub-test", []string{"    --- FAIL: TestA/b (0.00s)", "        a_test.go:5: no"}, []string{"a_test.go:5: no"}},
		{"only a log", []string{"    a_test.go:5: 1", "    a_test.go:5: 2", "    a_test.go:5: 3", "    a_test.go:5: 4"},
			[]string{"a_test.go:5: 1", "a_test.go:5: 2", "a_test.go:5: 3", "a_test.go:5: 4"}},
		{"nothing", []string{"=== RUN   TestA", "--- FAIL: TestA (0.00s)"}, nil},
	}
	for _, c := range cases {
		if got := reasonsOf([]string{strings.Join(c.output, "\n") + "\n"}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	many := make([]string, 30)
	for i := range many {
		many[i] = fmt.Sprintf("    a_test.go:%d: complaint\n", i+1)
	}
	got := reasonsOf(many)
	if len(got) != maxReasons || got[0] != "a_test.go:1: complaint" || got[len(got)-1] != "a_test.go:30: complaint" {
		t.Errorf("of many: %q", got)
	}
}

func TestParentsOfFailedSubTestsAreNotBlamedAgain(t *testing.T) {
	in := `{"Action":"output","Package":"m/c","Test":"TestA/b","Output":"    c_test.go:9: two holders\n"}
{"Action":"fail","Package":"m/c","Test":"TestA/b"}
{"Action":"output","Package":"m/c","Test":"TestA","Output":"--- FAIL: TestA (0.00s)\n"}
{"Action":"fail","Package":"m/c","Test":"TestA"}
{"Action":"output","Package":"m/c","Output":"FAIL\n"}
{"Action":"fail","Package":"m/c"}
`
	var out strings.Builder
	_, complaints := run(strings.NewReader(in), &out, "report")
	if want := "--- m/c TestA/b\n    c_test.go:9: two holders\n"; complaints != want {
		t.Errorf("complaints:\n%s\nwant:\n%s", complaints, want)
	}
}

func TestComplaintsOfSeveralRunsAreCollected(t *testing.T) {
	file := filepath.Join(t.TempDir(), "failures")
	for _, text := range []string{"one\n", "", "two\n"} {
		if err := appendTo(file, text); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != "one\ntwo\n" {
		t.Errorf("%q, %v", got, err)
	}
}
