package sandbox

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// Program is what runs as a node's agent.
type Program string

// The programs that a node can run. Both read the same file.
const (
	Regent  Program = "regent"
	Patroni Program = "patroni"
)

// RunAs says what the node's agent is from its next start on.
func (n *Node) RunAs(p Program) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.program = p
}

// Program returns what the node's agent is, or will be when it is started.
func (n *Node) Program() Program {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.program
}

// command is the agent's. The caller holds mu.
func (n *Node) command() *exec.Cmd {
	if n.program == Patroni {
		return exec.Command(n.c.opt.Patroni, n.ConfigFile())
	}
	return exec.Command(filepath.Join(n.c.opt.Bin, "regent"), "agent", n.ConfigFile())
}

// patroniSettings are the lines below postgresql: without which Patronis of one host share a
// file: their password file is in the home by default.
func (n *Node) patroniSettings() string {
	if n.c.opt.Patroni == "" {
		return ""
	}
	return fmt.Sprintf("  pgpass: %s/pgpass\n", n.dir)
}
