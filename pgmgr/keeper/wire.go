package keeper

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"
)

// Protocol is the version of the protocol that this package speaks. The keeper's
// program may be older or newer than the agent's, because an agent is upgraded
// under a running server: each end says its version when the agent attaches, and
// an end that can't work with the other's refuses there. Within a version, a field
// that isn't known is ignored; a field that must not be ignored raises the version,
// and the client doesn't send it to a keeper that would.
//
//   - 1: start, extend, promote, disarm, stop, fence, adopt, shutdown.
//   - 2: waivers (start, promote, disarm), Grant.Config, Grant.Watchdog and Status.Foreign.
const Protocol = 2

// oldestProtocol is the least that either end accepts of the other.
const oldestProtocol = 1

// CheckProtocol judges the other end's version, 0 meaning that it didn't say. It returns
// the version that both speak, or an error that says which end is too old.
func CheckProtocol(other int) (int, error) { return agree(other, oldestProtocol, Protocol) }

func agree(other, oldest, newest int) (int, error) {
	if other = max(other, 1); other < oldest {
		return 0, fmt.Errorf("it speaks version %d of the keeper's protocol, and this program %d to %d: upgrade the older one",
			other, oldest, newest)
	}
	return min(other, newest), nil
}

// SocketName is the keeper's socket in its run directory.
const SocketName = "keeper.sock"

// MaxSocketPath is the longest path that a Unix socket can have on Linux.
const MaxSocketPath = 107

// SocketPath returns the path of the keeper's socket, or an error that says what
// to do when the kernel can't take a path that long.
func SocketPath(runDir string) (string, error) {
	path := filepath.Join(runDir, SocketName)
	if len(path) > MaxSocketPath {
		return "", fmt.Errorf("socket path %s has %d bytes and the kernel takes %d: choose a shorter run directory",
			path, len(path), MaxSocketPath)
	}
	return path, nil
}

// Op names a request of the protocol.
type Op string

// The requests. Each is one line of JSON (a Request) and is answered by one line
// (a Message with the same ID), in the order in which they end, not the order in
// which they came: starting, promoting and adopting read and write files, and
// nothing waits behind them.
const (
	// OpAttach takes the keeper over for this connection. Before it, a connection
	// may only ask for the status.
	OpAttach   Op = "attach"
	OpStatus   Op = "status"
	OpStart    Op = "start"
	OpExtend   Op = "extend"
	OpPromote  Op = "promote"
	OpDisarm   Op = "disarm"
	OpStop     Op = "stop"
	OpFence    Op = "fence"
	OpAdopt    Op = "adopt"
	OpShutdown Op = "shutdown"
)

// Request is one line from the client. Only the fields of its Op are read.
type Request struct {
	ID    uint64        `json:"id"` // chosen by the client, not 0
	Op    Op            `json:"op"`
	Start *StartRequest `json:"start,omitempty"`
	Grant *Grant        `json:"grant,omitempty"` // extend, promote
	// Waiver takes the deadline away (disarm) or stands in for it (promote).
	Waiver *Waiver `json:"waiver,omitempty"`
	// Protocol is the client's, said when it attaches.
	Protocol int      `json:"protocol,omitempty"`
	Mode     StopMode `json:"mode,omitempty"` // stop
	PID      int      `json:"pid,omitempty"`  // adopt
	// Within is how soon a commanded fence must have ended the last client backend.
	Within time.Duration `json:"within,omitempty"`
}

// Message is one line from the keeper: the answer to a request, or an event.
type Message struct {
	ID uint64 `json:"id,omitempty"` // 0: an event
	// Refused is the keeper's sentence when it says no; nothing changed then,
	// except where the operation's contract says so.
	Refused string  `json:"refused,omitempty"`
	Status  *Status `json:"status,omitempty"` // after the request, in every answer
	Event   *Event  `json:"event,omitempty"`
}

// Line encodes a Request or a Message as a line of the protocol.
func Line(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode a line of the keeper's protocol: %w", err)
	}
	return append(b, '\n'), nil
}
