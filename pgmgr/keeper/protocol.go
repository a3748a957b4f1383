// Package keeper is the agent's side of regent-keeper, the small process that is
// the parent of the postmaster: the protocol spoken over its Unix socket, and the
// client. The keeper itself is cmd/regent-keeper.
//
// The package and everything it imports must stay within the standard library and
// x/sys, because the keeper links it and has to stay small.
package keeper

import (
	"errors"
	"time"

	"github.com/pgregent/regent/events"
)

// Grant is the permission to accept writes until a deadline. It carries the
// store revision of the leader key it stands for, so that a late or reordered
// command of an older leadership is refused (safety rules S2, S3).
type Grant struct {
	Revision events.Revision `json:"revision"`
	// Deadline is D: the end of the holder's belief, absolute, on CLOCK_BOOTTIME.
	Deadline events.Instant `json:"deadline"`
	// Budget is B: the keeper begins to stop the server at D−B.
	Budget time.Duration `json:"budget"`
	// Config is the revision of /config at which fencing was found to be wanted, as
	// read linearizably (safety rule S11): neither in pause nor off. A server that was
	// disarmed needs a newer one than the Waiver's before it is armed again, so that a
	// renewal that was under way when the pause came changes nothing. 0: not known;
	// enough for a server that was never disarmed.
	Config events.Revision `json:"config,omitzero"`
	// Watchdog backs the grant by the kernel's watchdog; zero: it doesn't.
	Watchdog Watchdog `json:"watchdog,omitzero"`
}

// WaiverReason says why a server accepts writes without a deadline.
type WaiverReason string

// The reasons.
const (
	// WaivedPause: the cluster is in pause (safety rule S11).
	WaivedPause WaiverReason = "pause"
	// WaivedFencingOff: the setting regent.fencing is off; two primaries are possible.
	WaivedFencingOff WaiverReason = "fencing_off"
)

// Waiver is the permission to accept writes without any deadline, in a Grant's
// place. It lasts until a Grant that knows better arms the server, or until
// the server is down; the agent's restart doesn't touch it.
type Waiver struct {
	Reason WaiverReason `json:"reason"`
	// Config is the revision of /config, read linearizably, at which the reason held.
	// For a setting in the agent's own file it is the revision that was read then; 0
	// only where there is no /config yet. An older one than that of the waiver or
	// grant in force is refused.
	Config events.Revision `json:"config"`
}

// StopMode is how a postmaster is asked to stop.
type StopMode string

// PostgreSQL's shutdown modes (manual, section 19.5), and the keeper's own.
const (
	// StopFast sends SIGINT: sessions are ended, a shutdown checkpoint is written
	// and sent to the standbys.
	StopFast StopMode = "fast"
	// StopImmediate sends SIGQUIT: no checkpoint, crash recovery at the next start.
	StopImmediate StopMode = "immediate"
	// StopKill is the kill-tree (safety rule S1).
	StopKill StopMode = "kill"
)

// StartRequest starts a postmaster. With a Grant it may become writable, and is
// armed before it is started; with a Waiver it may become writable and is not armed.
// Both together are refused. With neither it must be a standby (standby.signal is
// in place; the keeper checks).
type StartRequest struct {
	// Args is the command line, the executable's absolute path first.
	Args []string `json:"args"`
	// Env is the whole environment of the postmaster.
	Env []string `json:"env"`
	// LogFile receives the postmaster's stdout and stderr, appended.
	LogFile string  `json:"log_file"`
	Grant   *Grant  `json:"grant,omitempty"`
	Waiver  *Waiver `json:"waiver,omitempty"`
}

// Status is what the keeper knows.
type Status struct {
	KeeperPID int    `json:"keeper_pid"`
	Version   string `json:"version"`
	// Protocol is what the keeper speaks; its program may be older than the agent's.
	// Keepers of protocol 1 don't say it.
	Protocol int    `json:"protocol,omitempty"`
	DataDir  string `json:"data_dir"`
	// PID of the postmaster; 0 when none runs.
	PID int `json:"pid"`
	// Alive: some process of the data directory is left. It outlives PID, and it is
	// true for what the keeper isn't in charge of (S1). Tools in single-user mode
	// don't count.
	Alive   bool           `json:"alive"`
	Started events.Instant `json:"started"`
	// Foreign is the postmaster of a server that somebody else started and that the
	// keeper isn't in charge of; Adopt changes that (S5). Alive and PID 0 without it
	// means processes without a postmaster: they are being killed.
	Foreign int `json:"foreign,omitempty"`
	// Adopted: the keeper isn't the postmaster's parent (S5).
	Adopted bool `json:"adopted"`
	// Armed carries the grant in force; nil when the server isn't armed.
	Armed *Grant `json:"armed,omitempty"`
	// Waived says why the server runs without a deadline; nil when it was never
	// disarmed, or was armed since. A restarted agent learns of a pause here.
	Waived *Waiver `json:"waived,omitempty"`
	// Watchdog is what became of the grant's; nil when none was asked for.
	Watchdog *WatchdogState `json:"watchdog,omitempty"`
	// Fencing: the deadline came, or a fence was commanded; not cancellable.
	Fencing bool `json:"fencing"`
	// LastExit of the previous server, nil if none ended under this keeper.
	LastExit *Exit `json:"last_exit,omitempty"`
}

// Exit is the end of a whole server: no process of the data directory is left.
type Exit struct {
	PID  int            `json:"pid"`
	At   events.Instant `json:"at"`
	Code int            `json:"code"` // exit code; -1 when ended by a signal or unknown
	// Signal that ended the postmaster; 0 if none.
	Signal int `json:"signal"`
	// Ours: the keeper or the agent asked for it (stop or fence).
	Ours bool `json:"ours"`
	// Fenced: the fence deadline ended it.
	Fenced bool `json:"fenced"`
}

// EventKind names what the keeper reports unasked.
type EventKind string

// The keeper's events.
const (
	// PostmasterExited: the postmaster is gone, perhaps not all its children.
	PostmasterExited EventKind = "postmaster_exited"
	// ServerDown: no process of the data directory is left. Only this counts as down (S1).
	ServerDown EventKind = "server_down"
	// FenceBegun: the deadline came (or a fence was commanded) and the keeper is stopping the server.
	FenceBegun EventKind = "fence_begun"
	// FenceEscalated: client backends outlived a stage of the fence; Note says which
	// stage comes now (S2).
	FenceEscalated EventKind = "fence_escalated"
	// Superseded: a newer connection took over and this one is closed (S10).
	Superseded EventKind = "superseded"
)

// Event is an unasked report. A new connection is first told the server's present
// state again (PostmasterExited, FenceBegun or ServerDown, marked Repeated), so
// that nothing is lost between two connections; Exit.PID and Exit.At tell whether
// it is news.
type Event struct {
	Kind EventKind      `json:"kind"`
	At   events.Instant `json:"at"`
	Exit *Exit          `json:"exit,omitempty"`
	Note string         `json:"note,omitempty"`
	// Repeated: it happened before this connection was made.
	Repeated bool `json:"repeated,omitempty"`
}

// Error classes of the client, as everywhere: refused, unavailable, unknown.
var (
	// ErrRefused: the keeper answered "no" (deadline past, fencing begun, a server runs, none runs).
	ErrRefused = errors.New("refused by the keeper")
	// ErrUnavailable: the keeper could not be reached; nothing was sent.
	ErrUnavailable = errors.New("keeper unavailable")
	// ErrUnknown: the command was sent and no answer came.
	ErrUnknown = errors.New("keeper outcome unknown")
)
