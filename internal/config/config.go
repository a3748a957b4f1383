package config

import (
	"encoding/json"
	"time"

	"github.com/pgregent/regent/events"
)

// Config is the local configuration of one member: its file (or folder, or variable)
// with the environment over it, decoded. A value that could not be read is at its
// default here, and Validate says so. A Config is never changed after Load.
type Config struct {
	// Source names where the configuration came from, for messages.
	Source string
	// Scope is the cluster's name, Name this member's.
	Scope string
	Name  events.NodeName
	// Namespace has one leading slash, no trailing one and no doubled ones; "/" at the root.
	Namespace string

	Log  Log
	REST REST
	Ctl  Ctl
	// Store is the section whose store is used; empty when the file names none. Stores
	// lists all that are given.
	Store  string
	Stores []string
	Raft   Raft
	Etcd3  Etcd3
	Consul Consul

	Bootstrap Bootstrap
	// Postgres is the local section alone, what /config adds is left out; Effective
	// gives the settings in force.
	Postgres Postgres
	Watchdog Watchdog
	Tags     events.Tags
	Regent   Regent

	// root is the normalized tree; problems were found while reading it.
	root     *tree
	problems []Problem
}

// Log says how to log.
type Log struct {
	// Level is one of Python's names in upper case: DEBUG INFO WARNING ERROR CRITICAL.
	Level string
	// JSON asks for one JSON object per line.
	JSON bool
}

// BasicAuth is a user and a password for HTTP. Unset when Username is empty.
type BasicAuth struct {
	Username string
	Password Secret
}

// REST is the HTTP server.
type REST struct {
	// Listen.Host may be empty or *, for every address.
	Listen Address
	// ConnectAddress is what others use; Listen when the file names none.
	ConnectAddress Address
	Auth           BasicAuth
	// CertFile switches to HTTPS. KeyFile is empty when the key is in the same file.
	CertFile, KeyFile string
	CAFile            string
}

// URL is the address published as api_url.
func (r REST) URL() string {
	scheme := "http"
	if r.CertFile != "" {
		scheme = "https"
	}
	return scheme + "://" + r.ConnectAddress.String() + "/patroni"
}

// Ctl is how members and the operator's tool call the HTTP servers.
type Ctl struct {
	// Auth defaults to that of the server.
	Auth                      BasicAuth
	Insecure                  bool
	CACert, CertFile, KeyFile string
	KeyFilePassword           Secret
}

// Raft is the embedded store.
type Raft struct {
	// SelfAddr is how the other nodes reach this one; zero on a node that doesn't vote.
	SelfAddr Address
	// BindAddr is where to listen; SelfAddr when the file names none.
	BindAddr     Address
	PartnerAddrs []Address
	DataDir      string
	// Password is the cluster secret. Unset or empty: plain text, with a warning.
	Password Secret
	// AcceptPassword is let in as well, while the secret is being changed.
	AcceptPassword Secret
	// CertFile, KeyFile and CAFile take the secret's place; all three or none.
	CertFile, KeyFile, CAFile string
	// HeartbeatTimeout, ElectionTimeout and LeaderLeaseTimeout come from regent.raft.
	HeartbeatTimeout, ElectionTimeout, LeaderLeaseTimeout time.Duration
}

// Bootstrap is how a new cluster comes into being.
type Bootstrap struct {
	// Present: the section exists; without it this member never creates a cluster.
	Present bool
	// DCS is the first contents of /config: a compact JSON mapping in the file's order
	// and words, {} when the file has none.
	DCS json.RawMessage
	// Method is "initdb" unless a custom method is named.
	Method string
	// InitDB are the allowed options, in order.
	InitDB []Option
	PgHBA  []string
	// PostBootstrap is a command line, split like a shell does, to be run with one more argument.
	PostBootstrap string
}

// Watchdog is the kernel's device.
type Watchdog struct {
	// Mode is "off", "automatic" or "required".
	Mode   string
	Device string
	// SafetyMargin below zero means half of ttl.
	SafetyMargin time.Duration
	// Driver is empty for the kernel's interface.
	Driver string
}

// Fencing says who stops a primary that lost its lease.
type Fencing string

// The two ways.
const (
	// FencingKeeper: the keeper does, even when the agent is dead (safety rule S2).
	FencingKeeper Fencing = "keeper"
	// FencingOff: only a living agent does; two primaries are possible.
	FencingOff Fencing = "off"
)

// Regent holds the settings that Patroni doesn't have.
type Regent struct {
	Fencing Fencing
	// RunDir is beside the data directory, never in it.
	RunDir string
	// JournalDir and JournalMaxSize (bytes, all segments together) are the journal's.
	JournalDir     string
	JournalMaxSize int64
	// Compat is "3.0.4" or "4.1": whose words are published.
	Compat string
}
