package workload

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgregent/regent/internal/sandbox/history"
)

// ListsConfig says where lists are appended to and read.
type ListsConfig struct {
	// DSN names all members and target_session_attrs=read-write.
	DSN string
	// Nodes maps a member's PostgreSQL port to its name.
	Nodes map[int]string
	// Members are read one by one, whatever they are.
	Members []Target
	// Origin is the moment that the history's times count from.
	Origin time.Time
}

// Lists is a workload whose answers show more than whether a row is there: clients append to a
// few lists and are told what is in them, others read the lists at every member. Lists are used
// for a short time each, so that the history of each is short enough to be judged. Run does the
// work; Closed may be called at any time.
type Lists struct {
	cfg ListsConfig
	// base is the first list's key: workloads that follow each other on one table have others.
	base  int64
	began time.Duration // when base was used first

	mu   sync.Mutex // guards what follows
	ops  []history.ListOp
	next int64 // value
	conn int   // number of the newest connection
	from int64 // the first list that Closed hasn't taken yet
}

const (
	listWriters = 3
	listsAtOnce = 4
	// listEpoch is for how long a list is used.
	listEpoch = 2 * time.Second
	// listPause is between two questions of a client.
	listPause = 20 * time.Millisecond
)

// NewLists returns a workload that has not begun.
func NewLists(cfg ListsConfig) *Lists {
	began := time.Since(cfg.Origin)
	base := int64(began/time.Microsecond) << 20
	return &Lists{cfg: cfg, base: base, from: base, began: began, next: 1}
}

// keyAt is the first of the lists that are used at a moment.
func (l *Lists) keyAt(at time.Duration) int64 {
	return l.base + int64(max(0, at-l.began)/listEpoch)*listsAtOnce
}

// Run makes the table as soon as there is a primary, and works until ctx ends. It returns nil
// when ctx ended it.
func (l *Lists) Run(ctx context.Context) error {
	for l.prepare(ctx) != nil && pause(ctx, retryPause) {
	}
	var clients sync.WaitGroup
	for i := range listWriters {
		clients.Go(func() { l.client(ctx, i, l.cfg.DSN, l.append) })
	}
	for i, member := range l.cfg.Members {
		clients.Go(func() { l.client(ctx, listWriters+i, member.DSN, l.read) })
	}
	clients.Wait()
	return nil
}

// ask is one question over a connection; an error ends the connection.
type ask func(ctx context.Context, conn *pgx.Conn, op history.ListOp) error

// client asks question after question, over one connection after the other.
func (l *Lists) client(ctx context.Context, id int, dsn string, ask ask) {
	for ctx.Err() == nil {
		conn, err := l.connect(ctx, dsn)
		if err != nil {
			pause(ctx, retryPause+listPause)
			continue
		}
		l.mu.Lock()
		l.conn++
		op := history.ListOp{Client: id, Conn: l.conn, Node: nodeAt(conn, l.cfg.Nodes)}
		l.mu.Unlock()
		for err == nil && pause(ctx, listPause) {
			op.Key = l.keyAt(time.Since(l.cfg.Origin)) + rand.Int64N(listsAtOnce)
			// A question isn't cut short when the run ends, so that little remains unknown.
			limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), insertTimeout)
			err = ask(limit, conn, op)
			cancel()
		}
		hangUp(conn)
	}
}

func (l *Lists) connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connect to the lists: %w", err)
	}
	return conn, nil
}

// prepare makes the table.
func (l *Lists) prepare(ctx context.Context) error {
	conn, err := l.connect(ctx, l.cfg.DSN)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	if _, err := conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS regent_lists (key bigint PRIMARY KEY, items bigint[] NOT NULL)`); err != nil {
		return fmt.Errorf("make the table of lists: %w", err)
	}
	return nil
}

func (l *Lists) append(ctx context.Context, conn *pgx.Conn, op history.ListOp) error {
	l.mu.Lock()
	op.Append = l.next
	l.next++
	l.mu.Unlock()
	op.Sent = time.Since(l.cfg.Origin)
	err := conn.QueryRow(ctx, `INSERT INTO regent_lists VALUES ($1, ARRAY[$2::bigint])
		ON CONFLICT (key) DO UPDATE SET items = regent_lists.items || $2::bigint RETURNING items`, op.Key, op.Append).Scan(&op.Values)
	op.Answered, op.Unknown = time.Since(l.cfg.Origin), err != nil
	l.note(op)
	return err
}

// read asks whoever is at the other end; a list that isn't there yet is empty.
func (l *Lists) read(ctx context.Context, conn *pgx.Conn, op history.ListOp) error {
	op.Sent = time.Since(l.cfg.Origin)
	err := conn.QueryRow(ctx, `SELECT coalesce((SELECT items FROM regent_lists WHERE key = $1), '{}'), pg_is_in_recovery()`,
		op.Key).Scan(&op.Values, &op.Replica)
	op.Answered = time.Since(l.cfg.Origin)
	if err == nil {
		l.note(op)
	}
	return err
}

func (l *Lists) note(op history.ListOp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, op)
}

// Closed takes the history of all lists that nobody uses any more, and reads each of them once
// more at the primary. The history ends with these reads.
func (l *Lists) Closed(ctx context.Context) ([]history.ListOp, error) {
	// Questions take insertTimeout at most; a list's epoch must be over for longer.
	return l.before(ctx, l.keyAt(time.Since(l.cfg.Origin)-insertTimeout-listEpoch/2))
}

// All is Closed for all lists, when Run has ended.
func (l *Lists) All(ctx context.Context) ([]history.ListOp, error) {
	return l.before(ctx, math.MaxInt64)
}

func (l *Lists) before(ctx context.Context, open int64) ([]history.ListOp, error) {
	conn, err := l.connect(ctx, l.cfg.DSN)
	if err != nil {
		return nil, err
	}
	defer hangUp(conn)
	op := history.ListOp{Client: -1, Node: nodeAt(conn, l.cfg.Nodes), Sent: time.Since(l.cfg.Origin)}
	l.mu.Lock()
	from := l.from
	l.mu.Unlock()
	rows, err := conn.Query(ctx, `SELECT key, items FROM regent_lists WHERE key >= $1 AND key < $2`, from, open)
	if err != nil {
		return nil, fmt.Errorf("read the lists: %w", err)
	}
	found := map[int64][]int64{}
	var key int64
	var items []int64
	_, err = pgx.ForEachRow(rows, []any{&key, &items}, func() error { found[key] = slices.Clone(items); return nil })
	if err != nil {
		return nil, fmt.Errorf("read the lists: %w", err)
	}
	op.Answered = time.Since(l.cfg.Origin)
	return l.take(open, op, found), nil
}

// take removes the history of lists before a key, and adds what was found in them at last.
func (l *Lists) take(open int64, last history.ListOp, found map[int64][]int64) []history.ListOp {
	l.mu.Lock()
	defer l.mu.Unlock()
	var taken, kept []history.ListOp
	for _, op := range l.ops {
		if op.Key < open {
			taken = append(taken, op)
		} else {
			kept = append(kept, op)
		}
	}
	l.ops, l.from = kept, open
	seen := map[int64]bool{}
	for _, op := range taken {
		if !seen[op.Key] {
			seen[op.Key] = true
			last.Key, last.Values = op.Key, found[op.Key]
			taken = append(taken, last)
		}
	}
	return taken
}

// nodeAt tells by the port which member a connection goes to.
func nodeAt(conn *pgx.Conn, nodes map[int]string) string {
	remote := conn.PgConn().Conn().RemoteAddr()
	if addr, ok := remote.(*net.TCPAddr); ok {
		if name, known := nodes[addr.Port]; known {
			return name
		}
	}
	return remote.String()
}

// hangUp closes a connection that may be broken or frozen. What was asked over it is known, or
// unknown for good.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx) // see above
}
