package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestNoLeaderWithoutTheWatchdogThatIsRequired: the member says why it doesn't lead, where
// people and other members look, and leads as soon as the device is there.
func TestNoLeaderWithoutTheWatchdogThatIsRequired(t *testing.T) {
	needsPostgres(t)
	p := member(t, "pg01")
	device := filepath.Join(p.dir, "watchdog")
	p.edit("regent: {", fmt.Sprintf("watchdog: {mode: required, device: %s, driver: testing, safety_margin: -1}\nregent: {", device))
	p.start()
	p.says("this member can't become the primary: the watchdog is required and doesn't work")
	p.eventually("GET /patroni", func() string {
		_, body := p.get("/patroni")
		for _, want := range []string{`"watchdog_failed": true`, "there is no " + device} {
			if !strings.Contains(body, want) {
				return body + " lacks " + want
			}
		}
		return ""
	})
	p.eventually("GET /why", func() string {
		if _, body := p.get("/why"); !strings.Contains(body, "the watchdog is required and doesn't work") {
			return body
		}
		return ""
	})
	if log := p.log.String(); strings.Contains(log, "trying to bootstrap") {
		t.Error("it began to create the cluster")
	}

	if err := syscall.Mkfifo(device, 0o600); err != nil {
		t.Fatal(err)
	}
	kernel, err := os.OpenFile(device, os.O_RDWR, 0) // so that it can be opened for writing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = kernel.Close() }()
	p.leads()
	p.says("the watchdog is there: this member may become the primary")
	if _, body := p.get("/patroni"); strings.Contains(body, "watchdog_failed") {
		t.Errorf("the watchdog works: %s", body)
	}
	end(t, p, syscall.SIGTERM)
}
