package embedded

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/dcs/embedded/kv"
	"github.com/pgregent/regent/events"
)

// The RPCs between nodes, and from the command line: JSON messages, each behind its
// length in four bytes. Many calls share a connection; answers carry their call's id.

// verb of a request.
type verb string

const (
	// verbPropose carries out Command, on the leader; with Relay a follower passes it on.
	verbPropose verb = "propose"
	// verbHello asks who answers and what it knows of the cluster.
	verbHello verb = "hello"
	// verbStatus asks for the state of raft there.
	verbStatus verb = "status"
	// verbView asks for the local view.
	verbView verb = "view"
	// verbWatch asks for the local views, until cancelled.
	verbWatch verb = "watch"
	// verbChange changes the cluster's servers, on the leader; a follower passes it on.
	verbChange verb = "change"
	// verbCancel ends the call with this ID; it has no answer.
	verbCancel verb = "cancel"
)

type request struct {
	ID   uint64 `json:"id"`
	Verb verb   `json:"verb"`
	// Wait is how long the caller waits for the answer.
	Wait    time.Duration `json:"wait,omitempty"`
	Command *kv.Command   `json:"command,omitempty"`
	Change  *change       `json:"change,omitempty"`
	// Promise, with a hello, is what the caller still knows of itself.
	Promise *promise `json:"promise,omitempty"`
	Relay   bool     `json:"relay,omitempty"`
}

type response struct {
	ID uint64 `json:"id"`
	// Class is empty when the call went well.
	Class  string     `json:"class,omitempty"`
	Error  string     `json:"error,omitempty"`
	Result *kv.Result `json:"result,omitempty"`
	Hello  *hello     `json:"hello,omitempty"`
	Status *Status    `json:"status,omitempty"`
	View   *wireView  `json:"view,omitempty"`
	Server *Server    `json:"server,omitempty"`
}

// The error classes on the wire.
const (
	wireRefused     = "refused"
	wireUnavailable = "unavailable"
	wireUnknown     = "unknown"
	wireBroken      = "broken"
)

func wireClass(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, dcs.ErrBroken):
		return wireBroken
	case errors.Is(err, dcs.ErrRefused):
		return wireRefused
	case errors.Is(err, dcs.ErrUnavailable):
		return wireUnavailable
	default:
		return wireUnknown
	}
}

// err is what the other side said went wrong; nil if nothing did.
func (r response) err() error {
	switch r.Class {
	case "":
		return nil
	case wireRefused:
		return &wireError{dcs.ErrRefused, r.Error}
	case wireUnavailable:
		return &wireError{dcs.ErrUnavailable, r.Error}
	case wireBroken:
		return &wireError{dcs.ErrBroken, r.Error}
	default:
		return &wireError{dcs.ErrUnknown, r.Error}
	}
}

// wireError is an error of another node: its text, which names its class already, and
// the class.
type wireError struct {
	class error
	text  string
}

func (e *wireError) Error() string { return e.text }
func (e *wireError) Unwrap() error { return e.class }

type wireView struct {
	Revision events.Revision `json:"rev"`
	KVs      []dcs.KV        `json:"kvs"`
	Age      time.Duration   `json:"age"`
}

func (w *wireView) view(at events.Instant, more time.Duration) dcs.View {
	v := dcs.View{Revision: w.Revision, KVs: w.KVs, Age: w.Age, At: at}
	if v.Age >= 0 {
		v.Age += more
	}
	return v
}

// hello is what nodes tell each other before there is a cluster.
type hello struct {
	ID      raft.ServerID `json:"id"`
	Addr    string        `json:"addr"`
	Members []string      `json:"members"` // its member list
	// Fresh: it has never had raft state.
	Fresh bool `json:"fresh"`
	// Servers of the configuration it knows; empty if none.
	Servers []Server `json:"servers,omitempty"`
	// Leader that it follows; empty if none.
	Leader raft.ServerID `json:"leader,omitempty"`
	// Replaced are servers that don't exist any more, since the answering one took their place.
	Replaced []raft.ServerID `json:"replaced,omitempty"`
	// Promised is what the answering node knows of the caller.
	Promised *promise `json:"promised,omitempty"`
}

// maxFrame bounds a message. Views hold a few kilobytes; this is against garbage.
const maxFrame = 16 << 20

func writeFrame(w io.Writer, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(body) > maxFrame {
		return fmt.Errorf("encode message: %d bytes are too many", len(body))
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	if _, err := w.Write(append(frame, body...)); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

func readFrame(r io.Reader, message any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return fmt.Errorf("receive message: %w", err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxFrame {
		return fmt.Errorf("receive message: %d bytes are too many", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("receive message: %w", err)
	}
	if err := json.Unmarshal(body, message); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}
