// Package systemd tells the service manager how an agent is doing, by the datagrams of
// sd_notify(3): no library, a line of text to the socket that the environment names.
//
// Without that socket everything here does nothing, so callers need not ask where they run.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Notifier sends the service manager's notifications. The zero value sends none.
type Notifier struct {
	addr *net.UnixAddr
	// Watchdog is how often the service manager wants a sign of life at the latest;
	// zero: it wants none.
	Watchdog time.Duration
}

// sendWithin is the patience with a full queue: the caller is the agent's loop.
const sendWithin = 5 * time.Millisecond

// New reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID from the environment. A socket
// whose name begins with @ is in the abstract namespace.
func New(environ []string) (*Notifier, error) {
	n := &Notifier{}
	switch path := lookup(environ, "NOTIFY_SOCKET"); {
	case path == "":
		return n, nil
	case path[0] == '@', path[0] == '/':
		n.addr = &net.UnixAddr{Name: path, Net: "unixgram"}
	default:
		return n, fmt.Errorf("read NOTIFY_SOCKET: %q is neither a path nor an abstract name", path)
	}
	usec := lookup(environ, "WATCHDOG_USEC")
	if pid := lookup(environ, "WATCHDOG_PID"); usec == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return n, nil
	}
	us, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || us <= 0 || us > int64(1<<62)/1000 {
		return n, fmt.Errorf("read WATCHDOG_USEC: %q is no time", usec)
	}
	n.Watchdog = time.Duration(us) * time.Microsecond
	return n, nil
}

func lookup(environ []string, name string) string {
	for i := len(environ) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(environ[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// Listening reports whether there is a service manager to tell.
func (n *Notifier) Listening() bool { return n.addr != nil }

// Send sends assignments such as "READY=1" in one datagram. A value's line breaks become
// blanks, because a line break ends an assignment. It waits a few milliseconds at most: a
// service manager that doesn't read must not hold up an agent, and is told the next time.
func (n *Notifier) Send(assignments ...string) error {
	if n.addr == nil || len(assignments) == 0 {
		return nil
	}
	lines := make([]string, len(assignments))
	for i, a := range assignments {
		lines[i] = oneLine(a)
	}
	conn, err := net.DialUnix("unixgram", nil, n.addr)
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetWriteDeadline(time.Now().Add(sendWithin)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	if _, err := conn.Write([]byte(strings.Join(lines, "\n") + "\n")); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
