package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/internal/sandbox/history"
)

// Stale is a client that stays with one member and never looks for another one, as an
// application with a connection pool and no deadlines does. It is there for what a primary
// acknowledges when it wakes up after it was replaced: such rows are gone when it has rejoined.
// It belongs to one goroutine.
type Stale struct {
	node   string
	origin time.Time
	conn   *pgx.Conn
	run    int64
	track  history.Track
	acked  []int64
	next   int64
}

// staleConn tells its connection apart from those of the watcher.
const staleConn = -1

// OpenStale connects to a member, which must be a primary, and makes its table.
func OpenStale(ctx context.Context, origin time.Time, node, dsn string) (*Stale, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connect a client to %s: %w", node, err)
	}
	s := &Stale{node: node, origin: origin, conn: conn, run: int64(time.Since(origin))}
	if _, err := conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS regent_stale (run bigint, n bigint, PRIMARY KEY (run, n))`); err != nil {
		s.Close()
		return nil, fmt.Errorf("make the table of the client at %s: %w", node, err)
	}
	return s, nil
}

// Press inserts row after row until the member refuses, or ctx ends. Frozen servers make it
// wait: it has no deadline of its own.
func (s *Stale) Press(ctx context.Context) {
	for ctx.Err() == nil {
		s.next++
		sent := time.Since(s.origin)
		if _, err := s.conn.Exec(ctx, `INSERT INTO regent_stale VALUES ($1, $2)`, s.run, s.next); err != nil {
			return
		}
		answered := time.Since(s.origin)
		s.acked = append(s.acked, s.next)
		s.track.See(history.Sighting{
			Node: s.node, Role: history.Primary, Conn: staleConn, Sent: sent, Answered: answered, Wrote: true,
		})
	}
}

// Close ends the connection.
func (s *Stale) Close() { hangUp(s.conn) }

// Spans are the acknowledged inserts as times in which the member was a primary.
func (s *Stale) Spans() []history.Span { return s.track.Spans() }

// Acked is how many inserts were acknowledged, and Lost how many of these aren't at dsn.
func (s *Stale) Acked() int { return len(s.acked) }

// undefinedTable: the table itself was lost.
const undefinedTable = "42P01"

// Lost reads how many acknowledged rows are gone.
func (s *Stale) Lost(ctx context.Context, dsn string) (int, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return 0, fmt.Errorf("connect to read the rows of a stale client: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // read only: nothing to lose
	rows, err := conn.Query(ctx, `SELECT n FROM regent_stale WHERE run = $1 ORDER BY n`, s.run)
	if err != nil {
		return 0, fmt.Errorf("read the rows of a stale client: %w", err)
	}
	present, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == undefinedTable {
		return len(s.acked), nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the rows of a stale client: %w", err)
	}
	lost := 0
	for _, n := range s.acked {
		if _, found := slices.BinarySearch(present, n); !found {
			lost++
		}
	}
	return lost, nil
}
