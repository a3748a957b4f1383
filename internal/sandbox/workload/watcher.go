package workload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgregent/regent/internal/sandbox/history"
)

// Target is a member to watch, by a connection string that leads to it alone.
type Target struct{ Name, DSN string }

// Watcher asks every member what it is, over a connection it keeps. A member that is out
// of recovery is also asked to commit a write: a hundred times a second when it matters, which
// is for some seconds after another member was out of recovery or it came to be, and now and
// then otherwise. The write is a transactional logical message: it needs a transaction id and a
// flushed commit record like every other write, and no table.
//
// It can't see a second primary that lives for less than Every; what it sees is exact to
// the time of a round trip, and that uncertainty is part of the history.
type Watcher struct {
	targets []Target
	origin  time.Time

	mu    sync.Mutex // guards what follows
	track history.Track
	now   map[string]history.Role
	// out is when a member was last seen out of recovery, since when it has been so, both
	// on the history's clock.
	out, since map[string]time.Duration
}

const (
	// Every is the time between two looks at a member, if an answer takes no longer.
	Every = 4 * time.Millisecond
	// sparing is the time between two looks at a server that starts or stops. Each costs it a
	// process, which it would rather spend on starting or stopping.
	sparing = 8 * time.Millisecond
	// cannotConnectNow is what such a server answers.
	cannotConnectNow = "57P03"
	// silentConn tells a member that answers nothing from one that refuses: the first is looked at
	// once in lookTimeout, the second all the time, and one span of both would claim neither rate.
	silentConn = -2
	// lookTimeout is when a member that answers nothing counts as down.
	lookTimeout = time.Second
	// matters is how long after a change of primaries it is written often.
	matters = 5 * time.Second
	// often and seldom are the times between two writes to a primary.
	often  = 10 * time.Millisecond
	seldom = 100 * time.Millisecond
)

// NewWatcher returns a watcher that has not begun. origin is the moment that the
// history's times count from.
func NewWatcher(origin time.Time, targets []Target) *Watcher {
	return &Watcher{
		targets: targets, origin: origin, now: map[string]history.Role{},
		out: map[string]time.Duration{}, since: map[string]time.Duration{},
	}
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, t := range w.targets {
		all.Go(func() { w.watch(ctx, t) })
	}
	all.Wait()
	return nil
}

// watch looks at one member, connecting again whenever the connection breaks.
func (w *Watcher) watch(ctx context.Context, t Target) {
	for conn := 1; ctx.Err() == nil; conn++ {
		began, every := time.Now(), Every
		if busy := w.look(ctx, t, conn); busy {
			every = sparing
		}
		pause(ctx, every-time.Since(began))
	}
}

// look watches a member over one connection until it breaks, or finds that there is none to be
// had: busy says that the server lives and refuses everybody, as it starts or stops.
func (w *Watcher) look(ctx context.Context, t Target, number int) (busy bool) {
	sent := time.Since(w.origin)
	limit, cancel := context.WithTimeout(ctx, lookTimeout)
	conn, err := connectLocal(limit, t.DSN)
	silent := limit.Err() != nil
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			s := history.Sighting{Node: t.Name, Role: history.Down, Sent: sent, Answered: time.Since(w.origin)}
			if silent {
				s.Conn = silentConn
			}
			w.see(s)
		}
		refused, isServer := errors.AsType[*pgconn.PgError](err)
		return isServer && refused.Code == cannotConnectNow
	}
	defer func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 50*time.Millisecond)
		defer cancel()
		_ = conn.Close(limit) // it broke, or nobody needs it any more
	}()
	var wrote time.Duration
	for ctx.Err() == nil {
		began := time.Now()
		if !w.ask(ctx, conn, t.Name, number, &wrote) {
			return false
		}
		pause(ctx, Every-time.Since(began))
	}
	return false
}

// connectLocal connects to a member for writes that wait for no standby: in synchronous mode a
// primary without one would have the watcher wait, and see nothing meanwhile.
func connectLocal(ctx context.Context, dsn string) (*pgx.Conn, error) {
	set, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	set.RuntimeParams["synchronous_commit"] = "local"
	return pgx.ConnectConfig(ctx, set)
}

// ask looks once; false when the connection is of no more use.
func (w *Watcher) ask(ctx context.Context, conn *pgx.Conn, node string, number int, wrote *time.Duration) bool {
	limit, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var recovering bool
	s := history.Sighting{Node: node, Role: history.Replica, Conn: number, Sent: time.Since(w.origin)}
	err := conn.QueryRow(limit, `SELECT pg_is_in_recovery()`).Scan(&recovering)
	s.Answered = time.Since(w.origin)
	if err != nil {
		return false
	}
	if !recovering {
		s.Role = history.Primary
	}
	w.see(s)
	if recovering || !w.worthWriting(node, *wrote) {
		return true
	}
	s.Sent = time.Since(w.origin)
	_, err = conn.Exec(limit, `SELECT pg_logical_emit_message(true, 'regent.watch', '')`)
	s.Answered = time.Since(w.origin)
	if err != nil {
		return !conn.IsClosed() // it was asked while it ended, or it turned read-only
	}
	*wrote, s.Wrote = s.Answered, true
	w.see(s)
	return true
}

// worthWriting decides whether this look at a primary shall be a write.
func (w *Watcher) worthWriting(node string, last time.Duration) bool {
	now := time.Since(w.origin)
	w.mu.Lock()
	defer w.mu.Unlock()
	if now-last < often {
		return false
	}
	if now-w.since[node] < matters || now-last >= seldom {
		return true
	}
	for other, at := range w.out {
		if other != node && now-at < matters {
			return true
		}
	}
	return false
}

func (w *Watcher) see(s history.Sighting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Role == history.Primary {
		if w.now[s.Node] != history.Primary {
			w.since[s.Node] = s.Answered
		}
		w.out[s.Node] = s.Answered
	}
	w.now[s.Node] = s.Role
	w.track.See(s)
}

// Roles returns what each member was last seen as.
func (w *Watcher) Roles() map[string]history.Role {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[string]history.Role, len(w.now))
	for name, role := range w.now {
		out[name] = role
	}
	return out
}

// Spans returns what was seen so far.
func (w *Watcher) Spans() []history.Span {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.track.Spans()
}

// Streaming returns the names of the standbys that stream from the server at dsn, which
// must be a primary.
func Streaming(ctx context.Context, dsn string) ([]string, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connect to ask who streams: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // read only: nothing to lose
	rows, err := conn.Query(ctx, `SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' ORDER BY 1`)
	if err != nil {
		return nil, fmt.Errorf("ask who streams: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("ask who streams: %w", err)
	}
	return names, nil
}
