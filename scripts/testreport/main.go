// Command testreport reads the output of `go test -json` and prints what a person
// wants to see of it: a line per package, everything that a failed test said, and
// every skipped test with its reason, because a test that nobody runs proves nothing.
//
//	go test -json ./... | go run ./scripts/testreport [-skips report|fail|hide]
//
// It exits with 1 when anything failed, when nothing ran, or, with -skips fail, when
// a test was skipped.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	skips := flag.String("skips", "report", "skipped tests: report, fail or hide")
	flag.Parse()
	os.Exit(run(os.Stdin, os.Stdout, *skips))
}

// run returns the exit code.
func run(in io.Reader, out io.Writer, skips string) int {
	r := newReport(out)
	if err := r.read(in); err != nil {
		fmt.Fprintf(out, "testreport: %v\n", err)
		return 1
	}
	r.printSkips(skips)
	fmt.Fprintf(out, "%d tests passed, %d failed, %d skipped, in %d packages (%d without tests)\n",
		r.passed, r.failed, len(r.skipped), r.packages, r.without)
	switch {
	case r.failed > 0 || r.broken > 0:
		return 1
	case skips == "fail" && len(r.skipped) > 0:
		fmt.Fprintln(out, "skipped tests fail here: install what they need, or delete them")
		return 1
	case r.packages == 0:
		fmt.Fprintln(out, "no package was tested")
		return 1
	}
	return 0
}
