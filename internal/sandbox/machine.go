package sandbox

import (
	"net"
	"os/exec"
	"strconv"
)

// Machine is where a member's or a store server's processes run when that isn't beside this
// program: a host with an address of its own. Package hosts has real ones.
type Machine interface {
	// Addr is the machine's IP address. This program reaches it, too.
	Addr() string
	// Clients is the network that connections to the machine come from, as pg_hba.conf takes it.
	Clients() string
	// Start starts a command there, as its Start method does here.
	Start(cmd *exec.Cmd) error
}

// here is this program's own place: the loopback interface.
type here struct{}

func (here) Addr() string              { return "127.0.0.1" }
func (here) Clients() string           { return "127.0.0.1/32" }
func (here) Start(cmd *exec.Cmd) error { return cmd.Start() }

// at is a port of a machine, as host:port.
func at(m Machine, port int) string { return net.JoinHostPort(m.Addr(), strconv.Itoa(port)) }

// Machine is the one that the node runs on.
func (n *Node) Machine() Machine { return n.machine }

// Ports are those of the node's PostgreSQL, REST API and raft. No two nodes of a cluster share one,
// whatever they run on.
func (n *Node) Ports() (postgres, rest, raft int) { return n.port, n.restPort, n.raftPort }

// Disk is a folder of a node that can be a file system of its own.
type Disk string

// The disks.
const (
	DataDisk    Disk = "data"    // PostgreSQL's data directory
	WALDisk     Disk = "wal"     // the pg_wal that initdb or a base backup makes
	JournalDisk Disk = "journal" // the agent's journal
	RaftDisk    Disk = "raft"    // what the agent keeps of the embedded store
)
