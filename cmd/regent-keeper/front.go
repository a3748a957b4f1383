package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/internal/mono"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// maxConns bounds the connections that have not attached: tools that look.
const maxConns = 32

// front serves the socket: many may look, one commands.
type front struct {
	guard    *guard
	listener *net.UnixListener
	log      *slog.Logger
	quit     context.CancelFunc // ends the keeper
	wg       sync.WaitGroup     // connections, and slow commands under way

	// commanding makes one command at a time begin, so that none of an old
	// connection begins after a new one has attached (S10).
	commanding sync.Mutex
	slow       bool // a slow command is under way; guarded by commanding

	mu      sync.Mutex // guards what follows; taken inside the guard's, and nothing but a conn's inside it
	conns   map[*conn]bool
	current *conn
}

func newFront(g *guard, l *net.UnixListener, log *slog.Logger, quit context.CancelFunc) *front {
	return &front{guard: g, listener: l, log: log, quit: quit, conns: map[*conn]bool{}}
}

// run accepts connections until ctx ends, then closes all and waits for them.
func (f *front) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = f.listener.Close() })
	defer stop()
	for {
		nc, err := f.listener.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				break
			}
			// Out of descriptors or memory: what is connected goes on, and the
			// next try comes when something has changed or a while has passed.
			f.log.Error("accept a connection", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		f.admit(nc)
	}
	f.mu.Lock()
	for c := range f.conns {
		c.finish()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

// admit begins to serve a connection of the keeper's own user, or of root.
func (f *front) admit(nc *net.UnixConn) {
	uid, err := peerUID(nc)
	if err != nil || (uid != uint32(os.Geteuid()) && uid != 0) {
		f.log.Warn("connection turned away", "uid", uid, "err", err)
		_ = nc.Close() // a stranger's
		return
	}
	c := newConn(nc)
	f.mu.Lock()
	full := len(f.conns) >= maxConns
	if !full {
		f.conns[c] = true
	}
	f.mu.Unlock()
	if full {
		f.log.Warn("connection turned away: too many")
		_ = nc.Close()
		return
	}
	f.wg.Add(2)
	go func() { defer f.wg.Done(); c.write() }()
	go func() { defer f.wg.Done(); f.serve(c) }()
}

func peerUID(nc *net.UnixConn) (uint32, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("peer of a connection: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, fmt.Errorf("peer of a connection: %w", err)
	}
	if credErr != nil {
		return 0, fmt.Errorf("peer of a connection: %w", credErr)
	}
	return cred.Uid, nil
}

// serve reads requests until the connection ends.
func (f *front) serve(c *conn) {
	lines := bufio.NewReader(c.nc)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var r keeper.Request
		if err := json.Unmarshal(line, &r); err != nil || r.ID == 0 {
			f.log.Error("unreadable request", "err", err)
			break
		}
		f.command(c, r)
	}
	f.mu.Lock()
	delete(f.conns, c)
	if f.current == c {
		f.current = nil // PostgreSQL stays as it is, armed as it is
	}
	f.mu.Unlock()
	c.finish()
}

// emit hands an event to the connection that commands. It never blocks.
func (f *front) emit(e keeper.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current != nil {
		f.current.push(keeper.Message{Event: &e})
	}
}

// attach makes c the connection that commands, and tells it where things stand.
func (f *front) attach(c *conn, id uint64) {
	f.guard.present(func(st keeper.Status, past []keeper.Event) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if old := f.current; old != nil && old != c {
			old.push(keeper.Message{Event: &keeper.Event{
				Kind: keeper.Superseded, At: mono.Now(), Note: "a newer connection took over",
			}})
			old.finish()
		}
		f.current = c
		c.push(keeper.Message{ID: id, Status: &st})
		for _, e := range past {
			c.push(keeper.Message{Event: &e})
		}
	})
}

func (f *front) commands(c *conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current == c
}

// command runs one request. Quick ones, the fence's among them, run at once; those
// that touch files run beside, one at a time.
func (f *front) command(c *conn, r keeper.Request) {
	f.commanding.Lock()
	defer f.commanding.Unlock()
	switch {
	case r.Op == keeper.OpAttach:
		if _, err := keeper.CheckProtocol(r.Protocol); err != nil {
			f.answer(c, r, refuse("%v", err))
			return
		}
		f.attach(c, r.ID)
		return
	case r.Op == keeper.OpStatus:
		f.answer(c, r, nil)
		return
	case !f.commands(c):
		f.answer(c, r, refuse("this connection doesn't command the keeper: attach first, or a newer one took over"))
		return
	}
	if work := f.slowCommand(r); work != nil {
		if f.slow {
			f.answer(c, r, refuse("busy with another command"))
			return
		}
		f.slow = true
		f.wg.Add(1)
		go func() {
			defer f.wg.Done()
			err := work()
			f.commanding.Lock()
			f.slow = false
			f.commanding.Unlock()
			f.answer(c, r, err)
		}()
		return
	}
	err := f.quickCommand(r)
	f.answer(c, r, err)
	if r.Op == keeper.OpShutdown && err == nil {
		f.quit()
	}
}

// slowCommand returns the work of a command that touches files, nil for others.
func (f *front) slowCommand(r keeper.Request) func() error {
	switch {
	case r.Op == keeper.OpStart && r.Start != nil:
		return func() error { return f.guard.start(*r.Start) }
	case r.Op == keeper.OpPromote:
		return func() error { return f.guard.promote(r.Grant, r.Waiver) }
	case r.Op == keeper.OpAdopt:
		return func() error { return f.guard.adopt(r.PID) }
	}
	return nil
}

func (f *front) quickCommand(r keeper.Request) error {
	switch {
	case r.Op == keeper.OpExtend && r.Grant != nil:
		return f.guard.extend(*r.Grant)
	case r.Op == keeper.OpDisarm:
		return f.guard.disarm(r.Waiver)
	case r.Op == keeper.OpStop:
		return f.guard.stop(r.Mode)
	case r.Op == keeper.OpFence:
		return f.guard.commandFence(r.Within)
	case r.Op == keeper.OpShutdown:
		err := f.guard.end()
		if err != nil {
			f.guard.excuse()
		}
		return err
	}
	return refuse("this keeper (%s) doesn't know the request %q, or it lacks its argument", version, r.Op)
}

func (f *front) answer(c *conn, r keeper.Request, err error) {
	st := f.guard.status()
	m := keeper.Message{ID: r.ID, Status: &st}
	if err != nil {
		m.Refused = err.Error()
		f.log.Warn("command refused", "op", string(r.Op), "why", m.Refused)
	}
	c.push(m)
}
