package logging_test

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"testing"

	"github.com/pgregent/regent/internal/logging"
)

func TestLineIsPatronisWithFieldsBehind(t *testing.T) {
	var b bytes.Buffer
	log := logging.New(&b, "INFO", false)
	log.With("node", "pg01").WithGroup("raft").Info("no action. I am (pg01), the leader with the lock",
		"seq", 7, "err", errors.New("two words"), slog.Group("pg", "lsn", "0/1"), "empty", "")
	log.Debug("unseen")
	want := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO: no action\. I am \(pg01\), the leader with the lock` +
		` node=pg01 raft\.seq=7 raft\.err="two words" raft\.pg\.lsn=0/1 raft\.empty=""\n$`)
	if !want.Match(b.Bytes()) {
		t.Errorf("line %q does not match %s", b.String(), want)
	}
}

func TestLevels(t *testing.T) {
	for level, lines := range map[string]int{"DEBUG": 4, "info": 3, "WARNING": 2, "ERROR": 1, "CRITICAL": 1, "nonsense": 3} {
		var b bytes.Buffer
		log := logging.New(&b, level, false)
		log.Debug("d")
		log.Info("i")
		log.Warn("w")
		log.Error("e")
		if n := bytes.Count(b.Bytes(), []byte("\n")); n != lines {
			t.Errorf("level %s: %d lines, want %d", level, n, lines)
		}
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	logging.New(&b, "INFO", true).Info("hello", "seq", 1)
	if !bytes.Contains(b.Bytes(), []byte(`"msg":"hello","seq":1`)) {
		t.Errorf("not JSON: %s", b.String())
	}
}
