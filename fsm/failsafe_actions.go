package fsm

import (
	"time"

	"github.com/pgregent/regent/events"
)

// AskFailsafe asks all of them at once to promise not to lead for TTL; one
// FailsafeAnswered each, then the outcome.
type AskFailsafe struct {
	Members []PeerAddr    `json:"members"`
	TTL     time.Duration `json:"ttl"`
	Timeout time.Duration `json:"timeout"`
	// ConnURL, APIURL and Slots are what a Patroni wants to know of the one who asks.
	ConnURL string         `json:"conn_url"`
	APIURL  string         `json:"api_url"`
	Slots   []SlotPosition `json:"slots,omitempty"`
}

// WriteFailsafe puts the failsafe key, or deletes it when nobody is named, if the leader key
// is this member's and the key still at Version.
type WriteFailsafe struct {
	Members []events.FailsafeMember `json:"members,omitempty"`
	Version events.Revision         `json:"version,omitempty"` // 0: it must be absent
	Lease   events.LeaseID          `json:"lease"`
}

// Kind implements Action.
func (AskFailsafe) Kind() string { return "ask-failsafe" }
func (AskFailsafe) lane() lane   { return laneFree }

// Kind implements Action.
func (WriteFailsafe) Kind() string { return "write-failsafe" }
func (WriteFailsafe) lane() lane   { return laneFree }
