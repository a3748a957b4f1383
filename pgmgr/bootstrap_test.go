package pgmgr

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgregent/regent/events"
)

// secured makes an empty node with passwords for everybody.
func secured(t *testing.T, name string) *node {
	t.Helper()
	n := emptyNode(t, name)
	cfg := n.config()
	cfg.Superuser = Credentials{Username: "boss", Password: `s3cret'\ "x`}
	cfg.Replication = Credentials{Username: "repl-user", Password: `r:e\pl '1`}
	cfg.Rewind = Credentials{Username: "Rewind", Password: "w4"}
	cfg.InitDB = []Option{{Name: "data-checksums"}, {Name: "encoding", Value: "UTF8"}, {Name: "auth", Value: "scram-sha-256"}}
	cfg.BootstrapHBA = []string{"host replication repl-user 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256"}
	cfg.UseSlots = true
	cfg.Parameters["log_statement"] = "all"
	cfg.Parameters["log_min_duration_statement"] = "0"
	n.must("reconfigure", n.Reconfigure(cfg))
	return n
}

func TestBootstrapFromAnEmptyFolder(t *testing.T) {
	t.Parallel()
	began := time.Now()
	a := secured(t, "a")
	if st := a.observe(); st.Data.Content != events.DataEmpty || st.Running {
		t.Errorf("an empty folder is observed as %+v", st)
	}
	a.must("bootstrap", a.Bootstrap(a.ctx()))
	a.startPrimary()
	a.must("create roles", a.PostBootstrap(a.ctx()))
	t.Logf("from empty folder to roles: %s", time.Since(began).Round(time.Millisecond))
	a.must("create roles again", a.PostBootstrap(a.ctx()))
	if got := a.sql(`SELECT string_agg(rolname || rolsuper || rolreplication || rolcanlogin, ' ' ORDER BY rolname)
		FROM pg_roles WHERE rolname IN ('boss', 'repl-user', 'Rewind')`); got != "Rewindfalsefalsetrue bosstruetruetrue repl-userfalsetruetrue" {
		t.Errorf("roles: %s", got)
	}
	if got := a.sql("SHOW data_checksums"); got != "on" {
		t.Errorf("data_checksums is %s", got)
	}
	if got := a.sql(`SELECT has_function_privilege('Rewind', 'pg_read_binary_file(text, bigint, bigint, boolean)', 'execute')`); got != "t" {
		t.Error("the rewind user can't read files")
	}
	a.wantNoSecrets()

	b := secured(t, "b")
	b.must("clone with a password", b.Clone(b.ctx(), a.upstream(), CloneOptions{}))
	a.sqlSlots(b)
	b.startReplica(a).awaitStreaming(a)
	if got := a.sql("SELECT usename FROM pg_stat_replication"); got != "repl-user" {
		t.Errorf("the replica streams as %s", got)
	}
	a.must("stop", a.Stop(a.ctx(), StopOptions{Checkpoint: true}))
	b.promote()
	b.checkpointed()
	a.wantVerdict(b, events.VerdictFollow) // with the rewind user's rights only
	b.wantNoSecrets()

	a.wantClass("bootstrap over a cluster", a.Bootstrap(a.ctx()), ErrRefused)
	b.wantClass("bootstrap under a running server", b.Bootstrap(b.ctx()), ErrRefused)
}

// sqlSlots gives the other member its slot.
func (n *node) sqlSlots(others ...*node) {
	n.t.Helper()
	var want []string
	for _, o := range others {
		want = append(want, SlotName(events.NodeName(o.name)))
	}
	_, _, err := n.SyncSlots(n.ctx(), want, nil)
	n.must("synchronize slots", err)
}

// wantNoSecrets looks for passwords in everything that is written down for people.
func (n *node) wantNoSecrets() {
	n.t.Helper()
	server, err := os.ReadFile(n.config().logFile())
	n.must("read the server's log", err)
	if !strings.Contains(string(server), "statement: ") && !strings.Contains(string(server), "execute ") {
		n.t.Error("the server logs no statements, so this shows nothing")
	}
	conf := n.readConf()
	for _, secret := range []string{"s3cret", "r:e", "w4", "SCRAM-SHA"} {
		for what, text := range map[string]string{"the server's log": string(server), "the log": n.logs.String(), "postgresql.conf": conf} {
			if strings.Contains(text, secret) {
				n.t.Errorf("%s of %s contains %q", what, n.name, secret)
			}
		}
	}
	left, err := filepath.Glob(filepath.Join(n.config().RunDir, "*pwfile*"))
	if err != nil || len(left) > 0 {
		n.t.Errorf("password files left: %v, %v", left, err)
	}
}

// cancelWhen runs a verb and cancels it as soon as something exists.
func (n *node) cancelWhen(path string, verb func(context.Context) error) error {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.ctx())
	defer cancel()
	seen := make(chan error, 1)
	go func() {
		defer cancel()
		for {
			if exists(path) {
				seen <- nil
				return
			}
			if err := pause(ctx, time.Millisecond); err != nil {
				seen <- errors.New("it never came to " + path)
				return
			}
		}
	}()
	err := verb(ctx)
	cancel()
	n.must("interrupt", <-seen)
	if err == nil {
		n.t.Fatal("the verb was complete before it could be interrupted")
	}
	return err
}

// wantAnew fails unless the interrupted directory counts as empty and can't be started.
func (n *node) wantAnew() {
	n.t.Helper()
	st := n.observe()
	if st.Data.Content != events.DataEmpty || st.Data.Problem == "" || st.Running {
		n.t.Errorf("after the interruption: %+v", st)
	}
	n.wantClass("start a half-made directory", n.Start(n.ctx(), StartOptions{Grant: longGrant()}), ErrRefused)
	n.wantClass("start a half-made directory", n.Start(n.ctx(), StartOptions{Standby: true}), ErrRefused)
}

func TestInterruptedBootstrapStartsOver(t *testing.T) {
	t.Parallel()
	a := emptyNode(t, "a")
	err := a.cancelWhen(filepath.Join(a.config().DataDir, "PG_VERSION"), a.Bootstrap)
	a.wantClass("interrupted bootstrap", err, ErrUnavailable)
	a.wantAnew()
	a.must("bootstrap again", a.Bootstrap(a.ctx()))
	a.startPrimary()
}

func TestBootstrapWithAnImpossibleOptionLeavesAnEmptyFolder(t *testing.T) {
	t.Parallel()
	a := emptyNode(t, "a")
	cfg := a.config()
	cfg.InitDB = []Option{{Name: "encoding", Value: "no-such-thing"}}
	a.must("reconfigure", a.Reconfigure(cfg))
	err := a.Bootstrap(a.ctx())
	a.wantClass("bootstrap", err, ErrUnavailable)
	if !strings.Contains(err.Error(), "no-such-thing") {
		t.Errorf("the error doesn't say what is wrong: %v", err)
	}
	if empty, err := a.IsDataDirEmpty(); err != nil || !empty {
		t.Errorf("the folder is empty: %t, %v", empty, err)
	}
	if st := a.observe(); st.Data.Content != events.DataEmpty || st.Data.Problem != "" {
		t.Errorf("observed as %+v", st.Data)
	}
}

func TestAFolderWithSomethingElseIsNeitherFilledNorRemoved(t *testing.T) {
	t.Parallel()
	a := emptyNode(t, "a")
	file := filepath.Join(a.config().DataDir, "thesis.txt")
	a.must("write a file", os.WriteFile(file, []byte("years of work"), 0o600))
	up := events.Upstream{Name: "b", Host: "127.0.0.1", Port: 1}
	a.wantClass("bootstrap", a.Bootstrap(a.ctx()), ErrRefused)
	a.wantClass("clone", a.Clone(a.ctx(), up, CloneOptions{}), ErrRefused)
	a.wantClass("remove", a.RemoveDataDir(a.ctx()), ErrRefused)
	if !exists(file) {
		t.Error("the file is gone")
	}
	if st := a.observe(); st.Data.Content != events.DataBroken || st.Data.Problem == "" {
		t.Errorf("observed as %+v", st.Data)
	}
}

func TestRemoveDataDir(t *testing.T) {
	t.Parallel()
	a := newNode(t, "a").startPrimary()
	a.wantClass("remove under a running server", a.RemoveDataDir(a.ctx()), ErrRefused)
	a.stop()
	a.must("remove", a.RemoveDataDir(a.ctx()))
	a.must("remove again", a.RemoveDataDir(a.ctx()))
	if st := a.observe(); st.Data.Content != events.DataEmpty || st.Data.Problem != "" {
		t.Errorf("observed as %+v", st.Data)
	}
	if !exists(a.config().DataDir) {
		t.Error("the directory itself is gone: it may be a mount point")
	}
}
