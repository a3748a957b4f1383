package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Holder is the agent that holds a data directory's lock, as another process sees it.
type Holder struct {
	PID  int
	conn *net.UnixConn
}

// FindHolder finds the agent of a data directory. The kernel says which process listens
// on the lock's socket, so no pid file can be out of date. The caller closes the Holder.
func FindHolder(ctx context.Context, dataDir string) (*Holder, error) {
	name, real, err := lockName(dataDir)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", name)
	if err != nil {
		return nil, fmt.Errorf("find the agent of %s: none runs on this machine: %w", real, err)
	}
	c := conn.(*net.UnixConn)
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find the agent of %s: %w", real, err), c.Close())
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, credErr); err != nil {
		return nil, errors.Join(fmt.Errorf("find the agent of %s: %w", real, err), c.Close())
	}
	if cred.Pid <= 0 {
		return nil, errors.Join(fmt.Errorf("find the agent of %s: it runs in another container", real), c.Close())
	}
	return &Holder{PID: int(cred.Pid), conn: c}, nil
}

// Wait returns what the agent tells those who wait, or nothing once it has let go of the
// data directory. The error says that neither happened in time.
func (h *Holder) Wait(ctx context.Context, within time.Duration) (told string, err error) {
	stop := context.AfterFunc(ctx, func() { _ = h.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := h.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "", fmt.Errorf("wait for the agent: %w", err)
	}
	b, err := io.ReadAll(h.conn)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", fmt.Errorf("wait for the agent: %w", err)
	default: // a closed listener resets those whom nobody has accepted
		return string(b), nil
	}
}

// Close lets go of the Holder; the agent doesn't notice.
func (h *Holder) Close() error { return h.conn.Close() }

// Waiting are those who have found the lock's Holder and wait. Whoever asks for something
// by a signal connects first, and is here when the signal comes.
func (l *Lock) Waiting() (all []net.Conn) {
	if err := l.l.SetDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
		return nil
	}
	for {
		conn, err := l.l.Accept()
		if err != nil {
			return all // no more
		}
		all = append(all, conn)
	}
}

// Tell gives a text to those who wait, and sends them away.
func Tell(waiting []net.Conn, text string) {
	for _, conn := range waiting {
		_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = io.WriteString(conn, text) // whoever has gone doesn't want it
		_ = conn.Close()
	}
}
