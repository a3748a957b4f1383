package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is a line of `go test -json` (see `go doc test2json`), and of the go command's
// own build lines, which carry ImportPath instead of Package.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// packageTime is how long a package's tests took.
type packageTime struct {
	name    string
	seconds float64
}

// report folds events. Output of a test is kept until the test ends: dropped when it
// passed, printed when it didn't or when its package ended without it.
type report struct {
	out                       io.Writer
	output                    map[string][]string // by package + " " + test
	builds                    map[string][]string // build output by import path
	skipped                   []string
	failures                  []failure
	times                     []packageTime
	passed, failed            int
	packages, without, broken int
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[string][]string{}, builds: map[string][]string{}}
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Action == "" {
			// Not an event: the go command itself speaks, which it does when something is wrong.
			fmt.Fprintf(r.out, "%s\n", lines.Text())
			continue
		}
		r.add(e)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read test output: %w", err)
	}
	return nil
}

func (r *report) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		r.builds[e.ImportPath] = append(r.builds[e.ImportPath], e.Output)
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "pass", "skip", "fail":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(e, key)
		}
	}
}

func (r *report) endTest(e event, key string) {
	switch e.Action {
	case "pass":
		r.passed++
	case "skip":
		r.skipped = append(r.skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(r.output[key])))
	case "fail":
		r.failed++
		fmt.Fprintf(r.out, "--- %s %s\n%s", e.Package, e.Test, condensed(r.output[key]))
		r.fail(key, r.output[key])
	}
	delete(r.output, key)
}

func (r *report) endPackage(e event) {
	if e.Action == "skip" {
		r.without++
		r.drop(e.Package)
		return
	}
	r.packages++
	word := "ok  "
	if e.Action == "fail" {
		word = "FAIL"
		r.broken++
		fmt.Fprint(r.out, strings.Join(r.builds[e.FailedBuild], ""))
		r.endUnfinished(e)
	}
	r.times = append(r.times, packageTime{e.Package, e.Elapsed})
	fmt.Fprintf(r.out, "%s %6.1fs  %s\n", word, e.Elapsed, e.Package)
	r.drop(e.Package)
}

// endUnfinished prints what the package itself said and what its tests said that never
// ended: a panic or a timeout ends the process under them.
func (r *report) endUnfinished(e event) {
	var all []string
	for _, key := range r.keysOf(e.Package) {
		fmt.Fprint(r.out, condensed(r.output[key]))
		all = append(all, r.output[key]...)
	}
	blamed := slices.ContainsFunc(r.failures, func(f failure) bool { return strings.HasPrefix(f.name, e.Package+" ") })
	why := append(slices.Clone(r.builds[e.FailedBuild]), all...)
	if !blamed || len(reasonsOf(why)) > 0 {
		r.fail(e.Package, why)
	}
}

// fail remembers a failure for the end. A parent that failed only because its sub-test did has
// no complaint of its own and is left out.
func (r *report) fail(name string, output []string) {
	reasons := reasonsOf(output)
	child := slices.ContainsFunc(r.failures, func(f failure) bool { return strings.HasPrefix(f.name, name+"/") })
	if len(reasons) == 0 && child {
		return
	}
	if len(reasons) == 0 {
		reasons = []string{"(it gave no reason; its output is above)"}
	}
	r.failures = append(r.failures, failure{name, reasons})
}

// complaints are the failures for the end, empty when there are none.
func (r *report) complaints() string {
	var b strings.Builder
	for _, f := range r.failures {
		b.WriteString(f.String())
	}
	return b.String()
}

// worthNaming is how long a package must take to be named among the slow ones.
const worthNaming = 2.0

// printTimes lists the packages that took long, the longest first.
func (r *report) printTimes() {
	slices.SortStableFunc(r.times, func(a, b packageTime) int { return cmp.Compare(b.seconds, a.seconds) })
	for i, t := range r.times {
		if t.seconds < worthNaming {
			return
		}
		if i == 0 {
			fmt.Fprintln(r.out, "where the time went:")
		}
		fmt.Fprintf(r.out, "%8.1f s  %s\n", t.seconds, t.name)
	}
}

func (r *report) keysOf(pkg string) []string {
	var keys []string
	for key := range r.output {
		if strings.HasPrefix(key, pkg+" ") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func (r *report) drop(pkg string) {
	for _, key := range r.keysOf(pkg) {
		delete(r.output, key)
	}
}

func (r *report) printSkips(mode string) {
	if mode == "hide" {
		return
	}
	for _, s := range r.skipped {
		fmt.Fprintf(r.out, "skipped: %s\n", s)
	}
}

// reason finds what t.Skip was given: the last line of output that isn't the framework's.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			return line
		}
	}
	return "(no reason given)"
}
