package pgmgr

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
)

func TestClonedReplicaStreamsAndIsObserved(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	a.insert(10)
	b := replicaOf(t, "b", a)

	pa, rb := a.observe(), b.observe()
	if !pa.Running || !pa.Ready || pa.InRecovery || pa.Timeline != 1 || pa.Position == 0 || pa.PID != a.pid() {
		t.Errorf("primary observed as %+v", pa)
	}
	if len(pa.Standbys) != 1 || pa.Standbys[0].Name != "b" || pa.Standbys[0].State != "streaming" || pa.Standbys[0].User != "postgres" {
		t.Errorf("standbys of the primary: %+v", pa.Standbys)
	}
	want := "127.0.0.1:" + strconv.Itoa(a.config().Port)
	if !rb.InRecovery || !rb.Streaming || rb.Upstream != want || rb.ConfiguredUpstream != want || rb.Timeline != 1 {
		t.Errorf("replica observed as %+v", rb)
	}
	if FlushedLSN(rb) < FlushedLSN(pa) || rb.Position != 0 {
		t.Errorf("replica flushed %s, primary %s", FlushedLSN(rb), FlushedLSN(pa))
	}
	if pa.Data.Content != events.DataCluster || !pa.Data.SystemID.Valid() || pa.Data.SystemID != rb.Data.SystemID {
		t.Errorf("data directories: %+v and %+v", pa.Data, rb.Data)
	}
	if pa.Data.Standby || !rb.Data.Standby || pa.Data.ControlState != stateInProduction || !pa.Data.CanRewind {
		t.Errorf("data directories: %+v and %+v", pa.Data, rb.Data)
	}
	if pa.ServerVersion < minVersion || pa.StartedAt == "" {
		t.Errorf("version %d, started at %q", pa.ServerVersion, pa.StartedAt)
	}
	if got := b.sql("SELECT count(*) FROM t"); got != "10" {
		t.Errorf("the replica has %s rows", got)
	}
}

func TestObserveOnAKeptConnectionTakesOneRoundTrip(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	a.observe()
	a.eventually("the control file is old enough to be trusted", func() error {
		id, err := identify(filepath.Join(a.config().DataDir, "global", "pg_control"))
		if err == nil && time.Since(id.mtime) < 2*settled {
			err = errors.New("just written")
		}
		return err
	})
	before := strings.Count(a.logs.String(), "tool=pg_controldata")
	backend := a.sql("SELECT pid FROM pg_stat_activity WHERE application_name = '" + appMonitor + "'")
	const rounds = 50
	began := time.Now()
	for range rounds {
		a.observe()
	}
	t.Logf("a heartbeat takes %s", (time.Since(began) / rounds).Round(time.Microsecond))
	if again := a.sql("SELECT pid FROM pg_stat_activity WHERE application_name = '" + appMonitor + "'"); again != backend {
		t.Errorf("the connection was replaced: backend %s, then %s", backend, again)
	}
	if n := strings.Count(a.logs.String(), "tool=pg_controldata") - before; n > 1 {
		t.Errorf("pg_controldata was run %d times for one unchanged control file", n)
	}
}
