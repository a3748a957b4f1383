package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/pgmgr/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const patience = 30 * time.Second

func TestServesNoClient(t *testing.T) {
	noClients := []string{
		"checkpointer", "checkpointer performing shutdown checkpoint", "checkpointer performing end-of-recovery checkpoint",
		"background writer", "walwriter", "logger", "stats collector", "walsummarizer", "slotsync worker", "io worker 2",
		"archiver", "archiver archiving 000000010000000000000003", "archiver last was 00000002.history",
		"archiver failed on 000000010000000000000003.00000028.backup",
		"startup", "startup recovering 000000010000000000000003", "startup recovering 000000010000000000000003 waiting",
		"startup waiting for 000000010000000000000003",
		"walreceiver", "walreceiver streaming 0/3000148",
		"walsender rep 127.0.0.1(41234) streaming 0/3000148", "walsender rep [local] streaming A/BCDEF0",
		"autovacuum launcher", "autovacuum worker app", "logical replication launcher", "dead-end client backend",
	}
	clients := []string{
		"", "app app [local] idle", "app app 10.0.0.1(5000) COMMIT", "app app [local] idle in transaction",
		"parallel worker for PID 4711", "logical replication worker for subscription 16400",
		"walsender rep [local] START_REPLICATION", "walsender rep [local] idle", "walsender rep app [local] COMMIT",
		"walsender rep [local] sending backup \"base\"", "pg_cron launcher", "some extension's worker",
		// Sessions of roles and databases with misleading names.
		"checkpointer app [local] idle", "logger logger [local] idle", "walsender app [local] SELECT",
		"startup recovering [local] idle", "autovacuum worker [local] idle", "autovacuum worker [local]",
		"archiver archiving [local] idle", "io worker [local] idle", "app: checkpointer [local] COMMIT",
		"walreceiver streaming [local] BEGIN",
	}
	for _, name := range []string{"", "main: ", "a: b: c: ", "checkpointer: "} {
		for _, kind := range noClients {
			if title := "postgres: " + name + kind; !servesNoClient(title) {
				t.Errorf("%q counts as serving a client", title)
			}
		}
		for _, kind := range clients {
			if title := "postgres: " + name + kind; servesNoClient(title) {
				t.Errorf("%q counts as serving no client", title)
			}
		}
	}
	for _, title := range []string{"", "/usr/lib/postgresql/15/bin/postgres", "checkpointer", "sh"} {
		if servesNoClient(title) {
			t.Errorf("%q counts as serving no client", title)
		}
	}
	if !isLogger("postgres: logger") || !isLogger("postgres: main: logger") || isLogger("postgres: logger app [local] idle") {
		t.Error("the logger isn't told from the others")
	}
}

// TestTitlesOfARealServer holds the kinds against PostgreSQL's own view of its
// processes, with process titles kept up to date and not.
func TestTitlesOfARealServer(t *testing.T) {
	for _, update := range []string{"on", "off"} {
		for _, cluster := range []string{"", "a: walwriter"} {
			t.Run(fmt.Sprintf("update_process_title=%s,cluster_name=%q", update, cluster), func(t *testing.T) {
				judgeTitles(t, update, cluster)
			})
		}
	}
}

func judgeTitles(t *testing.T, update, cluster string) {
	bin, data, sock := pgtest.BinDir(t), pgtest.DataDir(t), pgtest.SocketDir(t)
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", sock,
		"-c", "update_process_title="+update, "-c", "cluster_name="+cluster,
		"-c", "archive_mode=on", "-c", "archive_command=true", "-c", "logging_collector=on")
	server.Dir = data
	background(t, server, nil)
	ask := connect(t, sock)
	receiver := exec.Command(filepath.Join(bin, "pg_receivewal"), "-D", t.TempDir(), "-h", sock, "-U", "postgres", "--no-loop")
	receiver.Dir = "/"
	background(t, receiver, func() { pgtest.KillIn(t, data) })

	const kinds = `select pid, backend_type from pg_stat_activity`
	want := map[string]bool{ // does it serve no client?
		"checkpointer": true, "background writer": true, "walwriter": true, "archiver": true,
		"autovacuum launcher": true, "logical replication launcher": true, "client backend": false,
		// Without "streaming" a walsender can't be told from one that runs SQL.
		"walsender": update == "on",
	}
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		wrong := judgeOnce(t, ask, kinds, want)
		if len(wrong) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still wrong after %s: %s", patience, strings.Join(wrong, "; "))
		}
		<-tick.C
	}
	// The logger is in no view.
	loggers := 0
	for _, pid := range pgtest.ProcessesIn(data) {
		if isLogger(title(pid)) && servesNoClient(title(pid)) {
			loggers++
		}
	}
	if loggers != 1 {
		t.Errorf("%d loggers found, want one", loggers)
	}
}

// judgeOnce compares the verdict on each process with what it is, and says what is
// wrong or missing.
func judgeOnce(t *testing.T, ask *pgconn.PgConn, sql string, want map[string]bool) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	results, err := ask.Exec(ctx, sql).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var wrong []string
	seen := map[string]bool{}
	for _, row := range results[0].Rows {
		pid, err := strconv.Atoi(string(row[0]))
		if err != nil {
			t.Fatal(err)
		}
		kind := string(row[1])
		seen[kind] = true
		if name := title(pid); servesNoClient(name) != want[kind] {
			wrong = append(wrong, fmt.Sprintf("%s %q: serves no client = %v", kind, name, !want[kind]))
		}
	}
	for kind := range want {
		if !seen[kind] {
			wrong = append(wrong, "no "+kind+" is there")
		}
	}
	return wrong
}

// background starts a program and makes sure that it has ended when the test has. end is
// called before waiting for it; nil kills it.
func background(t *testing.T, cmd *exec.Cmd, end func()) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if end != nil {
			end()
		} else if err := cmd.Process.Kill(); err != nil {
			t.Logf("kill %s: %v", cmd.Path, err) // it ended by itself
		}
		_ = cmd.Wait() // it was killed, and says so
	})
}

func connect(t *testing.T, sock string) *pgconn.PgConn {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		conn, err := pgconn.Connect(ctx, "host="+sock+" port=5432 user=postgres dbname=postgres")
		cancel()
		if err == nil {
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
				defer cancel()
				_ = conn.Close(ctx) // the server may be gone
			})
			return conn
		}
		if time.Now().After(deadline) {
			t.Fatalf("connect: %v", err)
		}
		<-tick.C
	}
}
