package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const slackTold = "the process has "

// TestTimersAreLazyFromTheFirstThreadOn: also those of threads that are older than main.
func TestTimersAreLazyFromTheFirstThreadOn(t *testing.T) {
	const inside = "REGENT_TEST_SLACK"
	if os.Getenv(inside) != "" {
		before := os.Getpid()
		lazyTimers() // executes this test again, once
		now, err := timerSlack()
		fmt.Println(slackTold, now, err, before == os.Getpid())
		// Of another thread than the one that is calling.
		done := make(chan time.Duration)
		go func() { other, _ := timerSlack(); done <- other }()
		fmt.Println(slackTold, <-done)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	told := 0
	for line := range strings.Lines(string(out)) {
		if after, found := strings.CutPrefix(line, slackTold); found {
			told++
			if !strings.HasPrefix(strings.TrimSpace(after), slack.String()) {
				t.Errorf("got %s", line)
			}
		}
	}
	if told != 2 {
		t.Errorf("told %d times: %s", told, out)
	}
	if now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || time.Duration(now) >= slack {
		t.Errorf("the test itself got a slack of %d ns: %v", now, err)
	}
}

func TestWhatWaits(t *testing.T) {
	for call, want := range map[string]bool{
		"patroni x.yml": true, "regent agent x.yml": true, "regent witness x.yml": true,
		"regent list": false, "regent": false, "patronictl agent": false,
	} {
		words := strings.Fields(call)
		if got := waits(words[0], words[1:]); got != want {
			t.Errorf("%s: %v", call, got)
		}
	}
}
