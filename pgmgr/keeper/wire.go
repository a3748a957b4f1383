package keeper

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"
)

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
	Mode  StopMode      `json:"mode,omitempty"`  // stop
	PID   int           `json:"pid,omitempty"`   // adopt
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
