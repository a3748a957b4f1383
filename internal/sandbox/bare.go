package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/sandbox/workload"
)

// Bare are two PostgreSQL servers, a primary and its standby, with no agent at all: what is done to
// them is done at once, by somebody who knows beforehand what is going to happen and whom to
// promote. No agent can be faster, so this is the floor to compare one with. Its methods belong to
// one goroutine.
type Bare struct {
	opt     Options
	ports   ports
	servers [2]*bareServer
	primary int // index
}

type bareServer struct {
	name, dir, data string
	port            int
	cmd             *exec.Cmd // nil: not running
}

// NewBare makes both servers and starts them; it returns when the standby streams. Of the options it
// uses Dir, PGBin and Keep.
func NewBare(ctx context.Context, o Options) (*Bare, error) {
	b := &Bare{opt: o}
	if err := b.make(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make two bare servers: %w", err), b.Close())
	}
	return b, nil
}

func (b *Bare) make(ctx context.Context) error {
	if err := os.Mkdir(b.opt.Dir, 0o755); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(b.opt.Dir)
	if err != nil {
		return err
	}
	b.opt.Dir = real // as the kernel names working directories
	for i := range b.servers {
		s := &bareServer{name: fmt.Sprintf("bare%d", i+1)}
		s.dir = filepath.Join(b.opt.Dir, s.name)
		s.data = filepath.Join(s.dir, "data")
		b.servers[i] = s
		var err error
		if s.port, err = b.ports.take(); err != nil {
			return err
		}
		if err := os.Mkdir(s.dir, 0o700); err != nil {
			return err
		}
	}
	first, second := b.servers[0], b.servers[1]
	if err := b.tool(ctx, "initdb", "-D", first.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C",
		"--data-checksums", "--no-instructions"); err != nil {
		return err
	}
	// What a sandbox's nodes have. The short retry keeps a promotion from waiting for the next try to
	// reach the old primary, 5 s by default.
	if err := appendTo(filepath.Join(first.data, "postgresql.conf"), `
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 32MB
dynamic_shared_memory_type = mmap
wal_retrieve_retry_interval = 100ms
wal_keep_size = 128MB
wal_log_hints = on
`); err != nil {
		return err
	}
	if err := b.start(ctx, first); err != nil {
		return err
	}
	if err := b.await(ctx, first, accepting); err != nil {
		return err
	}
	if err := b.tool(ctx, "pg_basebackup", "-D", second.data, "-d", first.dsn(), "-c", "fast", "-X", "stream"); err != nil {
		return err
	}
	return b.follow(ctx, second, first)
}

// tool runs one of PostgreSQL's programs.
func (b *Bare) tool(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(b.opt.PGBin, name), args...)
	cmd.Dir, cmd.Env = b.opt.Dir, agentEnvironment()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// start runs the postmaster. It ends with ctx.
func (b *Bare) start(ctx context.Context, s *bareServer) error {
	log, err := os.OpenFile(filepath.Join(s.dir, "postgres.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has its own descriptor
	cmd := exec.CommandContext(ctx, filepath.Join(b.opt.PGBin, "postgres"), "-D", s.data, "-p", fmt.Sprint(s.port))
	cmd.Dir, cmd.Env = s.data, agentEnvironment()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.cmd = cmd
	return nil
}

// follow starts a stopped server as a standby of another one, and returns when it streams.
func (b *Bare) follow(ctx context.Context, s, leader *bareServer) error {
	conninfo := fmt.Sprintf("\nprimary_conninfo = 'host=127.0.0.1 port=%d user=postgres application_name=%s'\n", leader.port, s.name)
	err := errors.Join(appendTo(filepath.Join(s.data, "postgresql.auto.conf"), conninfo),
		appendTo(filepath.Join(s.data, "standby.signal"), ""))
	if err == nil {
		err = b.start(ctx, s)
	}
	if err != nil {
		return err
	}
	return b.await(ctx, leader, streaming)
}

func streaming(ctx context.Context, leader *bareServer) error {
	names, err := workload.Streaming(ctx, leader.dsn())
	if err == nil && len(names) != 1 {
		err = fmt.Errorf("%v stream", names)
	}
	return err
}

func accepting(ctx context.Context, s *bareServer) error {
	conn, err := pgx.Connect(ctx, s.dsn())
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func (b *Bare) await(ctx context.Context, s *bareServer, what func(context.Context, *bareServer) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := what(ctx, s)
		if err == nil {
			return nil
		}
		if !pause(ctx, pollEvery) {
			return fmt.Errorf("wait for %s: %w: %w", s.name, context.Cause(ctx), err)
		}
	}
}

func (s *bareServer) dsn() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable&connect_timeout=2", s.port)
}

// DSN names both servers and finds the one that takes writes.
func (b *Bare) DSN() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres?sslmode=disable&connect_timeout=2&target_session_attrs=read-write",
		b.servers[0].port, b.servers[1].port)
}

// PortNames maps each server's port to its name.
func (b *Bare) PortNames() map[int]string {
	return map[int]string{b.servers[0].port: b.servers[0].name, b.servers[1].port: b.servers[1].name}
}

// Targets are the servers as a watcher wants them.
func (b *Bare) Targets() []workload.Target {
	return []workload.Target{{Name: b.servers[0].name, DSN: b.servers[0].dsn()}, {Name: b.servers[1].name, DSN: b.servers[1].dsn()}}
}

// Checkpoint has the primary write one.
func (b *Bare) Checkpoint(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.servers[b.primary].dsn())
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	_, err = conn.Exec(ctx, `CHECKPOINT`)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// StopAndPromote stops the primary fast, which waits until the standby has all of its WAL, and
// promotes the standby the moment that it has ended. It returns when that was ordered.
func (b *Bare) StopAndPromote(context.Context) error {
	old, heir := b.servers[b.primary], b.servers[1-b.primary]
	if err := old.cmd.Process.Signal(unix.SIGINT); err != nil {
		return fmt.Errorf("stop %s: %w", old.name, err)
	}
	if err := old.cmd.Wait(); err != nil {
		return fmt.Errorf("stop %s: %w", old.name, err)
	}
	old.cmd = nil
	// As pg_ctl promote does it.
	err := appendTo(filepath.Join(heir.data, "promote"), "")
	if err = errors.Join(err, heir.cmd.Process.Signal(unix.SIGUSR1)); err != nil {
		return fmt.Errorf("promote %s: %w", heir.name, err)
	}
	b.primary = 1 - b.primary
	return nil
}

// Rejoin makes the stopped server a standby of the other one, and returns when it streams.
func (b *Bare) Rejoin(ctx context.Context) error {
	heir := b.servers[b.primary]
	if err := b.await(ctx, heir, accepting); err != nil {
		return err
	}
	return b.follow(ctx, b.servers[1-b.primary], heir)
}

// Crash kills the primary's postmaster and starts it again the moment that no process of it is left
// (safety rule S1). It returns when it was started.
func (b *Bare) Crash(ctx context.Context) error {
	s := b.servers[b.primary]
	if err := s.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", s.name, err)
	}
	_ = s.cmd.Wait() // it was killed, and says so
	limit, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	for len(processesOf(s.data, nil)) > 0 {
		if !pause(limit, time.Millisecond) {
			return fmt.Errorf("wait for the processes of %s to end: %w", s.name, context.Cause(limit))
		}
	}
	return b.start(ctx, s)
}

// AwaitStreaming returns when the standby streams.
func (b *Bare) AwaitStreaming(ctx context.Context) error {
	return b.await(ctx, b.servers[b.primary], streaming)
}

// Close ends both servers at once and removes the folder unless it is to be kept.
func (b *Bare) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	errs := []error{killAll(ctx, func() []process { return processesOf(b.opt.Dir, []string{b.opt.PGBin}) })}
	for _, s := range b.servers {
		if s != nil && s.cmd != nil {
			_ = s.cmd.Wait() // it was killed
		}
	}
	freeSharedMemory(b.opt.Dir)
	errs = append(errs, b.ports.release())
	if !b.opt.Keep {
		if err := os.RemoveAll(b.opt.Dir); err != nil {
			errs = append(errs, fmt.Errorf("remove the bare servers' folder: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Tail returns the ends of both logs, for reports.
func (b *Bare) Tail(lines int) string {
	var out strings.Builder
	for _, s := range b.servers {
		content, err := os.ReadFile(filepath.Join(s.dir, "postgres.log"))
		if err != nil {
			content = []byte(err.Error())
		}
		all := strings.Split(strings.TrimSpace(string(content)), "\n")
		fmt.Fprintf(&out, "--- end of %s's log\n%s\n", s.name, strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
	return out.String()
}
