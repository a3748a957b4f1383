package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/internal/sandbox/history"
)

// WriterConfig says what to write where.
type WriterConfig struct {
	// DSN names all members and target_session_attrs=read-write.
	DSN string
	// Nodes maps a member's PostgreSQL port to its name.
	Nodes map[int]string
	// Origin is the moment that the history's times count from.
	Origin time.Time
	// Every is the time between two inserts; 5 ms when zero.
	Every time.Duration
	// Dial, when set, makes the connections: a writer that is on another host has its own.
	Dial pgconn.DialFunc
	// Table is where the rows go; Table when empty. Every writer needs one of its own.
	Table string
	// Own: the DSN leads to one member, which may be a standby. What a standby says is no failure,
	// and no reason to connect again.
	Own bool
	// Pause is between two rounds without success; 15 ms when zero.
	Pause time.Duration
}

// Table is a writer's, unless it has another.
const Table = "regent_writes"

// Writer inserts numbered rows, one at a time, and remembers which were acknowledged.
// Run does the work; the other methods may be called at any time.
type Writer struct {
	cfg WriterConfig

	mu sync.Mutex // guards what follows
	// log.Acks only grows.
	log history.Writes
	// spans are the writes as sightings of primaries.
	spans history.Track
	conn  int // number of the present connection
	// news is closed and replaced at each acknowledgement.
	news chan struct{}
	// trouble is the last error; empty after an acknowledgement.
	trouble string
}

const (
	// insertTimeout is how long an insert may take before the writer takes the server for
	// dead and its outcome for unknown. A frozen server answers nothing and closes nothing.
	insertTimeout = time.Second
	// connectTimeout bounds one round over all members.
	connectTimeout = 3 * time.Second
	// retryPause is between two rounds without success. Each round costs every server a
	// process, so a shorter pause would lengthen the outage it is to measure.
	retryPause = 15 * time.Millisecond
	// readOnly is what a standby answers.
	readOnly = "25006"
)

// NewWriter returns a writer that has not begun.
func NewWriter(cfg WriterConfig) *Writer {
	if cfg.Every == 0 {
		cfg.Every = 5 * time.Millisecond
	}
	if cfg.Table == "" {
		cfg.Table = Table
	}
	if cfg.Pause == 0 {
		cfg.Pause = retryPause
	}
	return &Writer{cfg: cfg, log: history.Writes{Next: 1}, news: make(chan struct{})}
}

// createTable makes a writer's table.
const createTable = `CREATE TABLE IF NOT EXISTS %s (
	seq bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())`

// Run writes until ctx ends, through every outage: it connects anew at once, to whichever
// member takes writes. It returns nil when ctx ended it.
func (w *Writer) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		conn, err := w.connect(ctx)
		if err == nil {
			err = w.insertAll(ctx, conn)
			hangUp(conn)
		}
		if err != nil && ctx.Err() == nil {
			w.note(err)
			pause(ctx, w.cfg.Pause)
		}
	}
	return nil
}

func (w *Writer) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	set, err := pgx.ParseConfig(w.cfg.DSN)
	if err != nil {
		return nil, fmt.Errorf("connect the writer: %w", err)
	}
	if w.cfg.Dial != nil {
		set.DialFunc = w.cfg.Dial
	}
	conn, err := pgx.ConnectConfig(ctx, set)
	if err != nil {
		return nil, fmt.Errorf("connect the writer: %w", err)
	}
	if w.Acked() == 0 {
		if _, err := conn.Exec(ctx, fmt.Sprintf(createTable, w.cfg.Table)); err != nil && !(w.cfg.Own && sqlState(err) == readOnly) {
			hangUp(conn)
			return nil, fmt.Errorf("create the writer's table: %w", err)
		}
	}
	w.mu.Lock()
	w.conn++
	w.mu.Unlock()
	return conn, nil
}

// insertAll inserts until something goes wrong or ctx ends.
func (w *Writer) insertAll(ctx context.Context, conn *pgx.Conn) error {
	node := nodeAt(conn, w.cfg.Nodes)
	next := time.Now()
	for {
		if err := w.insert(ctx, conn, node); err != nil && !(w.cfg.Own && sqlState(err) == readOnly) {
			return err
		}
		next = next.Add(w.cfg.Every)
		if late := time.Since(next); late > 0 {
			next = time.Now()
			continue
		}
		if !pause(ctx, time.Until(next)) {
			return nil
		}
	}
}

func (w *Writer) insert(ctx context.Context, conn *pgx.Conn, node string) error {
	w.mu.Lock()
	seq := w.log.Next
	w.log.Next++
	w.mu.Unlock()
	// An insert isn't cut short when the run ends, so that little remains unknown.
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), insertTimeout)
	defer cancel()
	sent := time.Since(w.cfg.Origin)
	_, err := conn.Exec(limit, `INSERT INTO `+w.cfg.Table+` (seq) VALUES ($1)`, seq)
	answered := time.Since(w.cfg.Origin)
	w.mu.Lock()
	defer w.mu.Unlock()
	if code := sqlState(err); w.cfg.Own && (code == readOnly || code == undefinedTable) {
		w.log.Next-- // it is surely not there
		return fmt.Errorf("insert row %d at %s: %w", seq, node, err)
	}
	if err != nil {
		w.log.Unknown = append(w.log.Unknown, seq)
		return fmt.Errorf("insert row %d at %s: %w", seq, node, err)
	}
	w.log.Acks = append(w.log.Acks, history.Ack{Seq: seq, Node: node, Sent: sent, Acked: answered})
	w.spans.See(history.Sighting{Node: node, Role: history.Primary, Conn: w.conn, Sent: sent, Answered: answered, Wrote: true})
	w.trouble = ""
	close(w.news)
	w.news = make(chan struct{})
	return nil
}

// sqlState is the code of what a server answered, empty if it didn't.
func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

func (w *Writer) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trouble = err.Error()
}

// Acked returns how many inserts were acknowledged so far.
func (w *Writer) Acked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.log.Acks)
}

// Last returns the latest acknowledgement; the zero Ack before the first.
func (w *Writer) Last() history.Ack {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.log.Acks) == 0 {
		return history.Ack{}
	}
	return w.log.Acks[len(w.log.Acks)-1]
}

// Log returns what the writer knows so far.
func (w *Writer) Log() history.Writes {
	w.mu.Lock()
	defer w.mu.Unlock()
	return history.Writes{Acks: w.log.Acks[:len(w.log.Acks):len(w.log.Acks)], Unknown: slices.Clone(w.log.Unknown), Next: w.log.Next}
}

// Spans returns the writes as times in which members were primaries.
func (w *Writer) Spans() []history.Span {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.spans.Spans()
}

// ErrSilent: no acknowledgement came in time.
var ErrSilent = errors.New("no acknowledged insert")

// Await returns when n inserts have been acknowledged that were sent after the given
// time of the history, or wraps ErrSilent and the writer's last trouble when ctx ends.
func (w *Writer) Await(ctx context.Context, n int, after time.Duration) error {
	for {
		w.mu.Lock()
		count := 0
		for i := len(w.log.Acks) - 1; i >= 0 && w.log.Acks[i].Sent >= after && count < n; i-- {
			count++
		}
		news, trouble := w.news, w.trouble
		w.mu.Unlock()
		if count >= n {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("wait for the writer: %w (last trouble: %s): %w", ErrSilent, trouble, context.Cause(ctx))
		}
	}
}

// pause waits for d; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Rows reads the numbers of the rows that are in a writer's table, sorted. It tries until ctx ends: what is
// asked is which rows are there, and not whether a connection can be had at once.
func Rows(ctx context.Context, dsn, table string) ([]int64, error) {
	const again = 100 * time.Millisecond
	for {
		seqs, err := readRows(ctx, dsn, table)
		if err == nil || !pause(ctx, again) {
			return seqs, err
		}
	}
}

func readRows(ctx context.Context, dsn, table string) ([]int64, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connect to read the rows: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()        // read only: nothing to lose
	rows, _ := conn.Query(ctx, `SELECT seq FROM `+table+` ORDER BY seq`) // its error comes with the rows
	seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if sqlState(err) == undefinedTable {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the rows: %w", err)
	}
	return seqs, nil
}
