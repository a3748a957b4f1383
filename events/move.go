package events

// StoreMove is what the "config" key says of a move to another store (ADR 0024). In the
// store that is left it is the tombstone, in the one that is moved to the promise of one.
type StoreMove struct {
	// Epoch tells one move from another.
	Epoch string    `json:"epoch"`
	Phase MovePhase `json:"phase"`
	// To describes the target for people, and says which section a file must have.
	To string `json:"to,omitempty"`
	// Members must come along, besides all others that have a member key.
	Members []NodeName `json:"members,omitempty"`
	// By and Run are the holder that carries the move out, and the run of its agent.
	By  NodeName `json:"by,omitempty"`
	Run string   `json:"run,omitempty"`
}

// MovePhase is how far a move is.
type MovePhase string

// The phases. Both and Target are the tombstone's, Incoming and Settled the target's.
const (
	// MoveBoth: the old store decides, and nobody takes the leader key.
	MoveBoth MovePhase = "both"
	// MoveTarget: the target decides, for ever.
	MoveTarget MovePhase = "target"
	// MoveIncoming: this store is a copy that doesn't decide yet.
	MoveIncoming MovePhase = "incoming"
	// MoveSettled: this store decides; it was a move's target.
	MoveSettled MovePhase = "settled"
)

// Is reports whether there is a move in that phase.
func (m *StoreMove) Is(p MovePhase) bool { return m != nil && m.Phase == p }
