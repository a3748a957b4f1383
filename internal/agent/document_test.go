package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgregent/regent/pgmgr/pgtest"
)

// TestTheDocumentsFileRuns starts the real agent with the patroni.yml that the
// user's document gives, with tabs and nesting corrected, and nothing replaced but
// paths, addresses, the locale and the store.
func TestTheDocumentsFileRuns(t *testing.T) {
	needsPostgres(t)
	text := os.Getenv(documentEnv)
	run, data := pgtest.SocketDir(t), pgtest.EmptyDataDir(t)
	rest, pg, raft := pgtest.FreePort(t), pgtest.FreePort(t), pgtest.FreePort(t)
	file := text
	for _, r := range [][2]string{
		{"  listen: 0.0.0.0:8008", fmt.Sprintf("  listen: 127.0.0.1:%d", rest)},
		{"172.1.1.197:8008", fmt.Sprintf("127.0.0.1:%d", rest)},
		{"  listen: 0.0.0.0:5432", fmt.Sprintf("  listen: 127.0.0.1:%d", pg)},
		{"172.1.1.197:5432", fmt.Sprintf("127.0.0.1:%d", pg)},
		{"etcd3:\n  host: 172.1.1.197:2379", fmt.Sprintf("raft:\n  self_addr: 127.0.0.1:%d\n  password: secret", raft)},
		{"/var/lib/pgsql/12/data", data},
		{"/usr/pgsql-12/bin", pgtest.BinDir(t)},
		{"/back/", filepath.Join(run, "back") + "/"},
		{"zh_CN.UTF-8", "C"}, {"zh_CN.UTF8", "C"},
	} {
		if !strings.Contains(file, r[0]) {
			t.Fatalf("the document no longer has %q", r[0])
		}
		file = strings.ReplaceAll(file, r[0], r[1])
	}
	path := filepath.Join(run, "patroni.yml")
	file += fmt.Sprintf("\nregent:\n  run_dir: %s\n", filepath.Join(run, "r"))
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	var log buffer
	cmd := exec.Command(pgtest.Binary(t, "regent"), "agent", path)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if t.Failed() {
			t.Logf("log:\n%s", log.String())
		}
	})
	body := awaitPrimary(t, fmt.Sprintf("http://127.0.0.1:%d/primary", rest), ended)
	if !bytes.Contains(body, []byte(`"role": "primary"`)) {
		t.Errorf("GET /primary says %s", body)
	}
	sql := exec.Command(filepath.Join(pgtest.BinDir(t), "psql"), "-XAtqc", "show wal_level; show max_connections; show archive_mode",
		fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=123456 dbname=postgres", pg))
	if out, err := sql.CombinedOutput(); err != nil || string(out) != "logical\n200\non\n" {
		t.Errorf("the document's parameters are not in force: %v: %s", err, out)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("the agent did not end on SIGTERM")
	}
	if !strings.Contains(log.String(), "no action. I am (pg01), the leader with the lock") {
		t.Error("the log lacks the line that monitoring greps for")
	}
}

// awaitPrimary polls a health check until it says 200.
func awaitPrimary(t *testing.T, url string, ended <-chan error) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return body
			}
		}
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatalf("the agent ended: %v", err)
		case <-ctx.Done():
			t.Fatalf("%s never said 200", url)
		}
	}
}
