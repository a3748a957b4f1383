package live

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
)

// processVerbs are what is done to processes.
func processVerbs() []Verb {
	on := []Kind{Do}
	return []Verb{
		{Kinds: on, Form: "kill PART of NODE", do: kill,
			Doc: "SIGKILL. A killed agent isn't started again until `start agent`; a killed node is a power cut, and off until then."},
		{Kinds: on, Form: "terminate PART of NODE", do: func(_ context.Context, r *run, a []string) error { return r.signal(a, unix.SIGTERM) },
			Doc: "SIGTERM, without waiting for what comes of it."},
		{Kinds: on, Form: "stop agent of NODE", Doc: "SIGTERM to the agent, as an operator's stop; done when it has ended. It stays off until `start agent`.",
			do: func(ctx context.Context, r *run, a []string) error {
				return r.at(a[0], func(n *sandbox.Node) error { return n.StopAgent(ctx) })
			}},
		{Kinds: on, Form: "start agent of NODE", do: startAgent, Doc: "Starts the agent, and has it started again whenever it ends: the service is on."},
		{Kinds: on, Form: "stop postgres of NODE", do: stopPostgres,
			Doc: "A fast stop of PostgreSQL behind the agent's back, as `pg_ctl stop` does it; done when the postmaster has ended."},
		{Kinds: on, Form: "crash postgres of NODE", do: crashPostgres,
			Doc: "SIGKILL of the postmaster; done when the last process of that server has ended."},
		{Kinds: on, Form: "freeze PART of NODE", do: freeze, Doc: "SIGSTOP; done when it stands still."},
		{Kinds: on, Form: "thaw PART of NODE", do: thaw,
			Doc: "SIGCONT. A whole node runs on in the worst order: PostgreSQL first, the agent last."},
		{Kinds: on, Form: "promote NODE behind the agent's back writing COUNT rows", do: promoteBehind,
			Doc: "`pg_promote()`, and rows into the story's table as soon as they are taken; done when they are written, or the server has been stopped before that."},
		{Kinds: on, Form: "write COUNT rows at NODE", do: writeAt, Doc: "Inserts rows into a table of the story's own, over a connection to that member alone."},
		{Kinds: on, Form: "write COUNT megabytes of WAL at NODE", do: writeWAL,
			Doc: "As logical messages; done when they are written, or the server has failed at it, which belongs to the story."},
		{Kinds: on, Form: "make starts of NODE hang", Needs: Launcher, do: launch("hang"),
			Doc: "From now on PostgreSQL never gets up on that node: the process that starts it waits for ever."},
		{Kinds: on, Form: "make starts of NODE fail", Needs: Launcher, do: launch("fail"), Doc: "From now on PostgreSQL ends at once on that node, with an error."},
		{Kinds: on, Form: "let NODE start again", Needs: Launcher, do: launch(""), Doc: "Ends the two before. A start that hangs goes on hanging until somebody ends it."},
		{Kinds: on, Form: "wait SPAN", Doc: "Lets that time pass.", do: func(ctx context.Context, r *run, a []string) error {
			span, _ := parseSpan(a[0]) // it was checked when it was read
			return pause(ctx, span.Of(r.lab.cluster.TTL()))
		}},
	}
}

func kill(ctx context.Context, r *run, a []string) error {
	return r.at(a[1], func(n *sandbox.Node) error {
		switch part := sandbox.Part(a[0]); part {
		case sandbox.Agent:
			n.PowerOff()
			return n.KillAgent()
		case sandbox.Whole:
			return n.KillNode()
		default:
			return n.Signal(part, unix.SIGKILL)
		}
	})
}

func (r *run) signal(a []string, sig unix.Signal) error {
	return r.at(a[1], func(n *sandbox.Node) error { return n.Signal(sandbox.Part(a[0]), sig) })
}

// startAgent waits for the end of the agent that was killed or stopped before.
func startAgent(ctx context.Context, r *run, a []string) error {
	return r.at(a[0], func(n *sandbox.Node) error {
		for {
			err := n.PowerOn()
			if err == nil || pause(ctx, pollEvery) != nil {
				return err
			}
		}
	})
}

func stopPostgres(ctx context.Context, r *run, a []string) error {
	return r.at(a[0], func(n *sandbox.Node) error {
		if err := n.Signal(sandbox.Postmaster, unix.SIGINT); err != nil {
			return err
		}
		return r.awaitDown(ctx, n)
	})
}

func crashPostgres(ctx context.Context, r *run, a []string) error {
	return r.at(a[0], func(n *sandbox.Node) error {
		if err := n.KillPostmaster(); err != nil {
			return err
		}
		return r.awaitDown(ctx, n)
	})
}

// awaitDown returns when the server that runs now has ended, and notes when that was: its agent
// is to notice from then on.
func (r *run) awaitDown(ctx context.Context, n *sandbox.Node) error {
	before := n.Servers()
	for {
		left := 0
		for _, pid := range before {
			if n.Serves(pid) {
				left++
			}
		}
		if left == 0 {
			r.downAt[n.Name()] = time.Now()
			return nil
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("wait for the end of PostgreSQL on %s: %w", n.Name(), err)
		}
	}
}

func freeze(_ context.Context, r *run, a []string) error {
	return r.at(a[1], func(n *sandbox.Node) error {
		part := sandbox.Part(a[0])
		if part != sandbox.Whole {
			if err := n.Signal(part, unix.SIGSTOP); err != nil {
				return err
			}
			pids := n.Find(part)
			r.frozen[a[0]+" "+n.Name()] = func() {
				for _, pid := range pids {
					_ = unix.Kill(pid, unix.SIGCONT) // it may have been killed meanwhile
				}
			}
			return nil
		}
		f, err := n.Freeze(sandbox.Whole)
		if err != nil {
			return err
		}
		asleep := history.Freeze{Node: n.Name(), From: r.now()}
		r.frozen[a[0]+" "+n.Name()] = func() {
			asleep.To = r.now()
			f.Thaw()
			r.freezes = append(r.freezes, asleep)
		}
		return nil
	})
}

func thaw(_ context.Context, r *run, a []string) error {
	return r.at(a[1], func(n *sandbox.Node) error {
		key := a[0] + " " + n.Name()
		run := r.frozen[key]
		if run == nil {
			return fmt.Errorf("the %s of %s isn't frozen", a[0], n.Name())
		}
		delete(r.frozen, key)
		run()
		return nil
	})
}

// promoteBehind has the table made at the primary, so that the rogue needn't.
func promoteBehind(ctx context.Context, r *run, a []string) error {
	leader, n, err := r.two("leader", a[0])
	if err != nil {
		return err
	}
	if err := query(ctx, leader, createStory, nil); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, n.DSN())
	if err != nil {
		return fmt.Errorf("connect to %s: %w", n.Name(), err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it may have been cut off
	if _, err := conn.Exec(ctx, "SELECT pg_promote(false)"); err != nil {
		return fmt.Errorf("promote %s: %w", n.Name(), err)
	}
	for written := 0; written < count(a[1]) && !conn.IsClosed(); {
		if _, err := conn.Exec(ctx, `INSERT INTO regent_story VALUES ($1, $2, $3)`, r.story, a[0], written); err == nil {
			written++
		} else if stopped := pause(ctx, time.Millisecond); stopped != nil {
			return fmt.Errorf("%s takes no write: %w", n.Name(), err)
		}
	}
	return nil
}

const createStory = `CREATE TABLE IF NOT EXISTS regent_story (story text, node text, n int)`

// query asks one member one thing.
func query(ctx context.Context, n *sandbox.Node, sql string, into any, args ...any) error {
	conn, err := pgx.Connect(ctx, n.DSN())
	if err != nil {
		return fmt.Errorf("connect to %s: %w", n.Name(), err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // what was answered is known
	if into == nil {
		_, err = conn.Exec(ctx, sql, args...)
	} else {
		err = conn.QueryRow(ctx, sql, args...).Scan(into)
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w", n.Name(), err)
	}
	return nil
}

func writeAt(ctx context.Context, r *run, a []string) error {
	return r.at(a[1], func(n *sandbox.Node) error {
		if err := query(ctx, n, createStory, nil); err != nil {
			return err
		}
		return query(ctx, n, `INSERT INTO regent_story SELECT $1, $2, generate_series(1, $3::int)`, nil, r.story, a[1], count(a[0]))
	})
}

func writeWAL(ctx context.Context, r *run, a []string) error {
	return r.at(a[1], func(n *sandbox.Node) error {
		conn, err := pgx.Connect(ctx, n.DSN())
		if err != nil {
			return fmt.Errorf("connect to %s: %w", n.Name(), err)
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it may have failed
		for range count(a[0]) {
			_, err := conn.Exec(ctx, `SELECT pg_logical_emit_message(true, 'regent.fill', (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 32768)))`)
			switch {
			case ctx.Err() != nil:
				return fmt.Errorf("%s took no more WAL, and didn't fail: %w", n.Name(), context.Cause(ctx))
			case err != nil:
				return nil
			}
		}
		return nil
	})
}

// launch leaves the word by which the launcher is told what to do.
func launch(word string) func(context.Context, *run, []string) error {
	return func(_ context.Context, r *run, a []string) error {
		return r.at(a[0], func(n *sandbox.Node) error {
			return os.WriteFile(filepath.Join(n.RunDir(), launchFile), []byte(word), 0o600)
		})
	}
}
