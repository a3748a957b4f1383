package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/sandbox"
)

// lose kills the host of a leader that runs the program, after it acknowledged what nobody else
// has. Another member takes over, of the other program where there is just one of this; the host
// comes back, and what only it had is gone.
func (w *story) lose(program sandbox.Program) {
	if w.leader().Program() != program {
		w.switchTo("the API of "+string(program), func(from, to *sandbox.Node) error {
			_, err := w.member(program).Switchover(w.ctx, from.Name(), to.Name())
			return err
		})
	}
	old := w.leader()
	var now *sandbox.Node
	w.act(fmt.Sprintf("SIGKILL of %s's host", program), func() error {
		if err := w.diverge(old); err != nil {
			return err
		}
		if err := old.KillNode(); err != nil {
			return err
		}
		var err error
		if now, err = w.AwaitPrimary(w.ctx); err != nil {
			return err
		}
		w.note = fmt.Sprintf("%s (%s) took over", now.Program(), now.Name())
		if now == old {
			return fmt.Errorf("%s came back by itself", old.Name())
		}
		return nil
	})
	w.act(fmt.Sprintf("%s rejoins %s with WAL of its own", program, now.Program()), func() error {
		if err := old.PowerOn(); err != nil {
			return err
		}
		leader, err := w.whole()
		if err != nil {
			return err
		}
		for _, n := range w.Nodes() {
			err = errors.Join(err, w.lacksRow(n))
		}
		if leader == old {
			err = errors.Join(err, fmt.Errorf("%s leads again", old.Name()))
		}
		return err
	})
}

// sound: no agent of Regent found its own rules broken, and each replays to the same decisions.
func (w *story) sound() {
	for _, n := range w.Nodes() {
		if n.Program() != r {
			continue
		}
		if log, err := os.ReadFile(n.LogFile()); err != nil || strings.Contains(string(log), "invariant violated") {
			w.t.Errorf("%s: its log says that an invariant was violated: %v", n.Name(), err)
		}
		if err := n.StopAgent(w.ctx); err != nil {
			w.t.Error(err)
		}
		if _, err := w.Regent(w.ctx, n, "journal", "replay"); err != nil {
			w.t.Error(err)
		}
	}
}

// diverge stops what sends WAL to the others, when they all have the table, and has the primary
// acknowledge a row.
func (w *story) diverge(primary *sandbox.Node) error {
	conn, err := pgx.Connect(w.ctx, primary.DSN())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(w.ctx)) }() // about to be killed
	if _, err := conn.Exec(w.ctx, `CREATE TABLE IF NOT EXISTS only_here (at text); CHECKPOINT`); err != nil {
		return err
	}
	var at string
	if err := conn.QueryRow(w.ctx, `SELECT pg_current_wal_flush_lsn()::text`).Scan(&at); err != nil {
		return err
	}
	for have := 0; have < len(w.Nodes())-1; {
		err := conn.QueryRow(w.ctx, `SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= $1::text::pg_lsn`, at).Scan(&have)
		if err != nil {
			return err
		}
	}
	rows, err := conn.Query(w.ctx, `SELECT pid FROM pg_stat_replication`)
	if err != nil {
		return err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			return fmt.Errorf("stop walsender %d: %w", pid, err)
		}
	}
	_, err = conn.Exec(w.ctx, `INSERT INTO only_here VALUES ($1)`, primary.Name())
	return err
}

func (w *story) lacksRow(n *sandbox.Node) error {
	conn, err := pgx.Connect(w.ctx, n.DSN())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(w.ctx)) }() // read only: nothing to lose
	var rows int
	if err := conn.QueryRow(w.ctx, `SELECT count(*) FROM only_here`).Scan(&rows); err != nil {
		return fmt.Errorf("%s: %w", n.Name(), err)
	}
	if rows != 0 {
		return fmt.Errorf("%s has %d rows that only the lost primary had", n.Name(), rows)
	}
	return nil
}
