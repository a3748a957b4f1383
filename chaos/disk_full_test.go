package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/pgmgr/pgtest"
)

// TestFullDiskUnderThePrimary is the story of fsm/testdata/scripts/disk-full on real servers:
// the disk of the primary's WAL fills up, PostgreSQL panics, three starts end by themselves, a
// replica takes over with all that replicas had, and the old primary streams from it once
// there is space.
func TestFullDiskUnderThePrimary(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute: real clusters are left out of -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	disk, fill := pgtest.SmallDisk(t)
	c, err := sandbox.New(options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, n := range c.Nodes() {
			if t.Failed() {
				t.Logf("log of %s:\n%s", n.Name(), n.Tail(60))
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, n := range c.Nodes() {
		walOn(t, n, filepath.Join(disk, n.Name()))
	}
	if err := c.PowerOn(); err != nil {
		t.Fatal(err)
	}
	old, err := c.AwaitStreaming(ctx)
	if err != nil {
		t.Fatal(err)
	}

	free := fill()
	began := time.Now()
	had := writeUntilItBreaks(ctx, t, old)
	t.Logf("%s broke after %v, with %d rows that replicas had", old.Name(), time.Since(began).Round(time.Millisecond), len(had))
	now, err := c.AwaitPrimary(ctx)
	for err == nil && now == old && pause(ctx, 10*time.Millisecond) { // it may come up once more, with room for a last record
		now, err = c.AwaitPrimary(ctx)
	}
	if err != nil {
		t.Fatalf("nobody took over: %v", err)
	}
	t.Logf("%s took over after %v", now.Name(), time.Since(began).Round(time.Millisecond))
	log, err := os.ReadFile(old.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PostgreSQL is down (", "start 1 failed: ", "start 2 failed: ", "start 3 failed as those before, and a replica can take over"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log of %s lacks %q", old.Name(), want)
		}
	}

	free()
	if now, err = c.AwaitStreaming(ctx); err != nil {
		t.Fatalf("there is space, and %s isn't back: %v", old.Name(), err)
	}
	t.Logf("all members stream after %v", time.Since(began).Round(time.Millisecond))
	there := rowsOf(ctx, t, now)
	lost := slices.DeleteFunc(had, func(seq int) bool { return slices.Contains(there, seq) })
	if len(lost) > 0 {
		t.Errorf("rows that a replica had flushed are lost: %v", lost)
	}
	stop, cancelStop := context.WithTimeout(ctx, 20*time.Second)
	defer cancelStop()
	if err := c.StopAll(stop); err != nil {
		t.Error(err)
	}
}

// walOn has the node's initdb put the WAL elsewhere, in segments of 1 MB. The copies that
// other members make of it keep theirs in the data directory.
func walOn(t *testing.T, n *sandbox.Node, dir string) {
	t.Helper()
	text, err := os.ReadFile(n.ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	const after = "  - data-checksums\n"
	changed := strings.Replace(string(text), after, after+"  - wal-segsize: 1\n  - waldir: "+dir+"\n", 1)
	if changed == string(text) {
		t.Fatal("the configuration lacks initdb's options")
	}
	if err := os.WriteFile(n.ConfigFile(), []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// writeUntilItBreaks inserts rows, each after a replica has flushed the one before, until the
// server fails. It returns those that a replica had.
func writeUntilItBreaks(ctx context.Context, t *testing.T, n *sandbox.Node) (had []int) {
	t.Helper()
	conn, err := pgx.Connect(ctx, n.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }() // it is broken
	if _, err := conn.Exec(ctx, "CREATE TABLE full_disk (seq int, load text)"); err != nil {
		t.Fatal(err)
	}
	for seq := 1; ; seq++ {
		var lsn string
		_, err := conn.Exec(ctx, "INSERT INTO full_disk SELECT $1, string_agg(md5(random()::text), '') FROM generate_series(1, 250)", seq)
		if err == nil {
			err = conn.QueryRow(ctx, "SELECT pg_current_wal_lsn()").Scan(&lsn)
		}
		for flushed := false; err == nil && !flushed; {
			err = conn.QueryRow(ctx, "SELECT coalesce(max(flush_lsn) >= $1, false) FROM pg_stat_replication", lsn).Scan(&flushed)
		}
		if ctx.Err() != nil {
			t.Fatalf("the disk didn't fill within %d rows", seq)
		}
		if err != nil {
			t.Logf("row %d: %v", seq, err)
			return had
		}
		had = append(had, seq)
	}
}

func rowsOf(ctx context.Context, t *testing.T, n *sandbox.Node) []int {
	t.Helper()
	conn, err := pgx.Connect(ctx, n.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }() // read only: nothing to lose
	rows, err := conn.Query(ctx, "SELECT seq FROM full_disk")
	if err != nil {
		t.Fatal(err)
	}
	seqs, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(fmt.Errorf("read the rows: %w", err))
	}
	return seqs
}
