package agent_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/events/journal"
	"github.com/pgregent/regent/internal/replay"
)

// TestJournalComesBackWhenItCanBeWritten: the agent led all the time; afterwards the
// journal says what it knows, from a fresh snapshot in a new epoch on, and replays.
func TestJournalComesBackWhenItCanBeWritten(t *testing.T) {
	needsPostgres(t)
	p := member(t, "pg01")
	dir := filepath.Join(p.dir, "journal")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // nobody can write in a file
		t.Fatal(err)
	}
	p.start()
	p.leads()
	degraded := func() (bool, error) {
		resp, err := http.Get(p.url("/patroni"))
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return strings.Contains(string(body), `"journal_degraded"`), err
	}
	p.eventually("a degraded journal", func() string {
		if bad, err := degraded(); err != nil || !bad {
			return fmt.Sprintf("degraded: %v, %v", bad, err)
		}
		return ""
	})
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	p.eventually("a journal that is written", func() string {
		if bad, err := degraded(); err != nil || bad {
			return fmt.Sprintf("degraded: %v, %v", bad, err)
		}
		return ""
	})
	p.leads()
	end(t, p, syscall.SIGTERM)
	report, err := journal.Verify(dir)
	if err != nil || !report.OK() || len(report.Gaps) == 0 || report.Gaps[0].Gap.To == 0 {
		t.Errorf("%v, %+v", err, report)
	}
	told, first := false, ""
	for e, err := range journal.Read(dir) {
		if err != nil {
			t.Fatal(err)
		}
		var ev events.JournalDegraded
		if e.Kind == string(events.KindJournalDegraded) && json.Unmarshal(e.Payload, &ev) == nil && ev.Why == "" {
			told = true
		}
		if first == "" && e.Kind != journal.KindGap {
			first = e.Kind
		}
	}
	if !told || first != journal.KindSnapshot {
		t.Errorf("the journal begins with a %s; it tells of its return: %v", first, told)
	}
	if rep, err := replay.Check(dir, replay.AnyProgram); err != nil || rep.Compared == 0 {
		t.Errorf("%v, %+v", err, rep)
	}
}
