package fsm

import (
	"time"

	"github.com/pgregent/regent/events"
)

// Actions of a move to another store (ADR 0024). "Target" in a name means that it is the
// target that is asked; the others ask the store that decides until then.

// OpenTarget opens the target, if it isn't open, and reads it linearizably. Done tells
// whether it says that the move of that epoch is settled (Result.Held).
type OpenTarget struct {
	Epoch string `json:"epoch"`
}

// ClaimMove makes this run the one that carries the move out: config as it was read, the
// leader key this member's under Lease.
type ClaimMove struct {
	Config events.Revision `json:"config"`
	Lease  events.LeaseID  `json:"lease"`
}

// WithdrawMove takes the tombstone back: config as it was read, the leader key absent.
type WithdrawMove struct {
	Config events.Revision `json:"config"`
}

// GrantTarget asks the target for a lease.
type GrantTarget struct {
	TTL time.Duration `json:"ttl"`
}

// RenewTarget renews it. Done tells whether the target's leader key hangs on it (Result.Held).
type RenewTarget struct {
	Lease   events.LeaseID `json:"lease"`
	Timeout time.Duration  `json:"timeout"`
}

// CopyTarget copies the permanent keys, whose config and sync must still be at those
// versions; the copy of config says that it is incoming. Done tells the copy's version
// (Result.Revision). Refused when the target has a cluster that isn't this one, or decides.
type CopyTarget struct {
	Epoch  string          `json:"epoch"`
	Config events.Revision `json:"config"`
	Sync   events.Revision `json:"sync"`
}

// AcquireTarget takes the target's leader key: absent, and the copy of config as it was written.
type AcquireTarget struct {
	Lease  events.LeaseID  `json:"lease"`
	Config events.Revision `json:"config"` // of the copy
}

// SwitchStore writes that the target decides: the leader key this member's under Lease,
// config and sync as they were copied.
type SwitchStore struct {
	Lease  events.LeaseID  `json:"lease"`
	Config events.Revision `json:"config"`
	Sync   events.Revision `json:"sync"`
}

// SettleMove writes, in the store that was moved to, that it decides: config as it was read.
type SettleMove struct {
	Config events.Revision `json:"config"`
}

// ChangeStore ends this run of the agent; the next one works on the target. No outcome.
type ChangeStore struct {
	Epoch string `json:"epoch"`
}

// Kind implements Action.
func (OpenTarget) Kind() string { return "open-target" }
func (OpenTarget) lane() lane   { return laneFree }

// Kind implements Action.
func (ClaimMove) Kind() string { return "claim-move" }
func (ClaimMove) lane() lane   { return laneFree }

// Kind implements Action.
func (WithdrawMove) Kind() string { return "withdraw-move" }
func (WithdrawMove) lane() lane   { return laneFree }

// Kind implements Action.
func (GrantTarget) Kind() string { return "grant-target" }
func (GrantTarget) lane() lane   { return laneFree }

// Kind implements Action.
func (RenewTarget) Kind() string { return "renew-target" }
func (RenewTarget) lane() lane   { return laneFree }

// Kind implements Action.
func (CopyTarget) Kind() string { return "copy-target" }
func (CopyTarget) lane() lane   { return laneFree }

// Kind implements Action.
func (AcquireTarget) Kind() string { return "acquire-target" }
func (AcquireTarget) lane() lane   { return laneFree }

// Kind implements Action.
func (SwitchStore) Kind() string { return "switch-store" }
func (SwitchStore) lane() lane   { return laneFree }

// Kind implements Action.
func (SettleMove) Kind() string { return "settle-move" }
func (SettleMove) lane() lane   { return laneFree }

// Kind implements Action.
func (ChangeStore) Kind() string { return "change-store" }
func (ChangeStore) lane() lane   { return laneSilent }
