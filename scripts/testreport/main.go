// Command testreport reads the output of `go test -json` and prints what a person
// wants to see of it: a line per package, what a failed test said, without its middle if that
// was much, every skipped test with its reason, because a test that nobody runs proves nothing,
// the packages that took long, and last, each failed test with its complaints alone. Whoever
// sees only the end of a long output sees why it failed.
//
//	go test -json ./... | go run ./scripts/testreport [-skips report|fail|hide] [-failures FILE]
//
// With -failures the complaints are also appended to a file, for whoever runs it several times.
// It exits with 1 when anything failed, when nothing ran, or, with -skips fail, when
// a test was skipped.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	skips := flag.String("skips", "report", "skipped tests: report, fail or hide")
	failures := flag.String("failures", "", "append why tests failed to this file")
	flag.Parse()
	code, complaints := run(os.Stdin, os.Stdout, *skips)
	if err := appendTo(*failures, complaints); err != nil {
		fmt.Fprintf(os.Stderr, "testreport: %v\n", err)
		code = 1
	}
	os.Exit(code)
}

// run returns the exit code, and why tests failed, if any did.
func run(in io.Reader, out io.Writer, skips string) (code int, complaints string) {
	r := newReport(out)
	if err := r.read(in); err != nil {
		complaints = fmt.Sprintf("testreport: %v\n", err)
		fmt.Fprint(out, complaints)
		return 1, complaints
	}
	r.printSkips(skips)
	r.printTimes()
	fmt.Fprintf(out, "%d tests passed, %d failed, %d skipped, in %d packages (%d without tests)\n",
		r.passed, r.failed, len(r.skipped), r.packages, r.without)
	complaints = r.complaints()
	switch {
	case r.failed > 0 || r.broken > 0:
		code = 1
	case skips == "fail" && len(r.skipped) > 0:
		code = 1
		complaints = "skipped tests fail here: install what they need, or delete them\n" + strings.Join(r.skipped, "\n") + "\n"
	case r.packages == 0:
		code, complaints = 1, "no package was tested\n"
	}
	if complaints != "" {
		fmt.Fprintf(out, "\n%s", complaints)
	}
	return code, complaints
}

func appendTo(file, text string) error {
	if file == "" || text == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("keep the failures: %w", err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keep the failures: %w", err)
	}
	return nil
}
