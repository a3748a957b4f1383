package pgmgr

import (
	"os"
	"strings"
	"testing"

	"github.com/pgregent/regent/events"
)

func (n *node) file(name string) string {
	n.t.Helper()
	b, err := os.ReadFile(n.config().confPath(name))
	n.must("read "+name, err)
	return string(b)
}

func (n *node) write(name, content string) {
	n.t.Helper()
	n.must("write "+name, os.WriteFile(n.config().confPath(name), []byte(content), 0o600))
}

func TestOriginalConfigurationIsKeptAndIncluded(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	a.write("postgresql.conf", a.file("postgresql.conf")+"\nwork_mem = '7MB'\nprimary_conninfo = 'host=old'\n")
	original := a.file("postgresql.conf")
	a.startPrimary()
	if a.file("postgresql.base.conf") != original {
		t.Error("the original was changed")
	}
	if got := a.sql("SELECT current_setting('work_mem') || current_setting('primary_conninfo')"); got != "7MB" {
		t.Errorf("settings %q", got)
	}
	a.stop()
	a.must("lose the original", os.Remove(a.config().confPath("postgresql.base.conf")))
	a.startPrimary() // a generated file isn't taken for the original
	if got := a.sql("SHOW work_mem"); got != "4MB" {
		t.Errorf("work_mem is %s", got)
	}
	if strings.Contains(a.file("postgresql.base.conf"), "include") {
		t.Error("the generated file includes itself")
	}
}

func TestRecoverySettingsOfAlterSystemDoNotWin(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	a.sql("ALTER SYSTEM SET primary_conninfo = 'host=evil'")
	a.sql("ALTER SYSTEM SET work_mem = '9MB'")
	a.sql("ALTER SYSTEM SET recovery_target_timeline = 'current'")
	a.stop()
	a.must("start detached", a.Start(a.ctx(), StartOptions{Standby: true}))
	if got := a.sql("SELECT current_setting('primary_conninfo') || current_setting('work_mem') || current_setting('recovery_target_timeline')"); got != "9MBlatest" {
		t.Errorf("settings %q", got)
	}
	auto := a.file("postgresql.auto.conf")
	if !strings.Contains(auto, "work_mem") || strings.Contains(auto, "primary_conninfo") {
		t.Errorf("postgresql.auto.conf is\n%s", auto)
	}
}

func TestHBAReplacesTheFileOnlyWhenConfigured(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	a.must("write", first(a.WriteConfig(a.ctx(), RolePrimary, nil)))
	if !strings.Contains(a.file("pg_hba.conf"), "trust") || strings.HasPrefix(a.file("pg_hba.conf"), confHeader) {
		t.Error("initdb's pg_hba.conf was touched")
	}
	cfg := a.config()
	cfg.PgHBA = []string{"local all all trust", "host all all all reject"}
	cfg.PgIdent = []string{"map1 root postgres"}
	a.must("reconfigure", a.Reconfigure(cfg))
	a.startPrimary()
	if got := a.file("pg_hba.conf"); got != confHeader+"local all all trust\nhost all all all reject\n" {
		t.Errorf("pg_hba.conf is\n%s", got)
	}
	if got := a.sql("SELECT count(*) FROM pg_hba_file_rules"); got != "2" {
		t.Errorf("%s rules are in force", got)
	}
	if got := a.file("pg_ident.conf"); got != confHeader+"map1 root postgres\n" {
		t.Errorf("pg_ident.conf is\n%s", got)
	}
}

// first drops the first of two results.
func first[T any](_ T, err error) error { return err }

func TestWriteConfigNeedsACluster(t *testing.T) {
	t.Parallel()
	a := emptyNode(t, "a")
	a.wantClass("write", first(a.WriteConfig(a.ctx(), RoleReplica, nil)), ErrRefused)
	if empty, err := a.IsDataDirEmpty(); err != nil || !empty {
		t.Error("it left something in the folder")
	}
}

func TestReconfigureKeepsTheFolders(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	cfg := a.config()
	cfg.DataDir = "/elsewhere"
	a.wantClass("reconfigure", a.Reconfigure(cfg), ErrRefused)
	cfg = a.config()
	cfg.Port = 0
	a.wantClass("reconfigure", a.Reconfigure(cfg), ErrBroken)
}

func TestDirectoryOfAnotherVersionIsBroken(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a")
	a.write("PG_VERSION", "9\n")
	a.wantClass("start", a.Start(a.ctx(), StartOptions{Grant: longGrant()}), ErrBroken)
	cfg := a.config()
	cfg.BinDir = "/no/such/folder"
	a.must("reconfigure", a.Reconfigure(cfg))
	a.wantClass("start without binaries", a.Start(a.ctx(), StartOptions{Grant: longGrant()}), ErrBroken)
	if _, err := a.ServerVersion(a.ctx()); err == nil {
		t.Error("there is a version without a binary")
	}
}

func TestTimelineHistoryForTheStore(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	if l, err := a.TimelineHistory(1); err != nil || len(l) != 0 {
		t.Errorf("history of timeline 1: %v, %v", l, err)
	}
	_, err := a.TimelineHistory(2)
	a.wantClass("history of a timeline that isn't here", err, ErrUnavailable)
	a.stop()
	end, _, err := a.ShutdownLSN(a.ctx())
	a.must("find the end", err)
	a.must("start detached", a.Start(a.ctx(), StartOptions{Standby: true}))
	a.promote()
	l, err := a.TimelineHistory(2)
	a.must("read the history", err)
	if len(l) != 1 || l[0].Timeline != 1 || l[0].LSN != end || l[0].Reason == "" || l[0].Timestamp == "" {
		t.Errorf("history %+v, the first timeline ended at %s", l, end)
	}
}

func TestPromotedPrimaryIsJudgedWhileItRuns(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	b := replicaOf(t, "b", a)
	b.sql("SELECT pg_promote()")
	a.insert(10)
	d := b.wantVerdict(a, events.VerdictRewind)
	if d.LocalTimeline != 2 || d.UpstreamTimeline != 1 {
		t.Errorf("divergence %+v", d)
	}
	b.stop() // with a shutdown checkpoint on its timeline
	b.wantVerdict(a, events.VerdictRewind)
	b.must("rewind", b.Rewind(b.ctx(), a.upstream()))
	b.rejoin(a)
}
