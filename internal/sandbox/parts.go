package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// The parts of a node that come and go while it runs.
const (
	// Backend is one server process that serves a client.
	Backend     Part = "backend"
	WalReceiver Part = "walreceiver"
	Rewind      Part = "pg_rewind"
	BaseBackup  Part = "pg_basebackup"
)

// Parts lists all of them.
func Parts() []Part {
	return []Part{Agent, Keeper, Postmaster, Backend, WalReceiver, Rewind, BaseBackup, Whole}
}

// Find returns the processes that are a part of the node now: one backend, all of a whole node.
func (n *Node) Find(part Part) []int {
	one := map[Part]func() (int, bool){Agent: n.AgentPID, Keeper: n.KeeperPID, Postmaster: n.PostmasterPID}[part]
	if one != nil {
		if pid, running := one(); running {
			return []int{pid}
		}
		return nil
	}
	var pids []int
	for _, p := range n.processes() {
		if part == Whole || p.is(part) {
			pids = append(pids, p.pid)
		}
	}
	if part == Backend && len(pids) > 1 {
		pids = pids[:1]
	}
	return pids
}

// ofAClient is how PostgreSQL calls the process that serves the superuser.
var ofAClient = regexp.MustCompile(` postgres postgres [0-9a-f.:]+\([0-9]+\)`)

// is tells by the title that PostgreSQL gives its processes, or by the program.
func (p process) is(part Part) bool {
	title := strings.Join(p.args, " ")
	switch part {
	case Backend: // postgres: [cluster: ]user database host(port) what it does
		return strings.HasPrefix(title, "postgres: ") && ofAClient.MatchString(title)
	case WalReceiver:
		return strings.HasPrefix(title, "postgres: ") && strings.Contains(title, "walreceiver")
	default:
		return filepath.Base(p.exe) == string(part)
	}
}

// Signal sends a signal to a part of the node, which must be there. A signal that stops it has
// been obeyed when Signal returns.
func (n *Node) Signal(part Part, sig unix.Signal) error {
	pids := n.Find(part)
	if len(pids) == 0 {
		return fmt.Errorf("send %s to the %s of %s: it isn't running", unix.SignalName(sig), part, n.name)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil {
			return fmt.Errorf("send %s to the %s of %s: %w", unix.SignalName(sig), part, n.name, err)
		}
	}
	if sig != unix.SIGSTOP {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), freezeTimeout)
	defer cancel()
	for _, pid := range pids {
		for !standsStill(pid) {
			if !pause(ctx, pollEvery/4) {
				return fmt.Errorf("stop the %s of %s: %w", part, n.name, context.Cause(ctx))
			}
		}
	}
	return nil
}

// AmendConfig changes the node's file: old, which must be in it once, becomes new. A running
// agent sees it when it is reloaded or restarted.
func (n *Node) AmendConfig(old, new string) error {
	text, err := os.ReadFile(n.ConfigFile())
	if err != nil {
		return fmt.Errorf("amend the file of %s: %w", n.name, err)
	}
	if found := strings.Count(string(text), old); found != 1 {
		return fmt.Errorf("amend the file of %s: %q is in it %d times", n.name, old, found)
	}
	if err := os.WriteFile(n.ConfigFile(), []byte(strings.Replace(string(text), old, new, 1)), 0o600); err != nil {
		return fmt.Errorf("amend the file of %s: %w", n.name, err)
	}
	return nil
}

// Servers are the processes of the node's PostgreSQL.
func (n *Node) Servers() []int {
	var pids []int
	for _, p := range n.processes() {
		if p.cwd == n.DataDir() && filepath.Base(p.exe) == "postgres" {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// Serves reports that such a process still lives.
func (n *Node) Serves(pid int) bool {
	p, ok := readProcess(pid)
	return ok && p.cwd == n.DataDir()
}
