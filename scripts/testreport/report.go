package main

import (
	"bufio"
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

// report folds events. Output of a test is kept until the test ends: dropped when it
// passed, printed when it didn't or when its package ended without it.
type report struct {
	out                       io.Writer
	output                    map[string][]string // by package + " " + test
	builds                    map[string][]string // build output by import path
	skipped                   []string
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
		fmt.Fprintf(r.out, "--- %s %s\n%s", e.Package, e.Test, strings.Join(r.output[key], ""))
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
		r.printUnfinished(e.Package)
	}
	fmt.Fprintf(r.out, "%s %6.1fs  %s\n", word, e.Elapsed, e.Package)
	r.drop(e.Package)
}

// printUnfinished prints what the package itself said and what its tests said that never
// ended: a panic or a timeout ends the process under them.
func (r *report) printUnfinished(pkg string) {
	for _, key := range r.keysOf(pkg) {
		fmt.Fprint(r.out, strings.Join(r.output[key], ""))
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
