package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Node is one member: a folder, three ports, and what runs there.
type Node struct {
	c                        *Cluster
	name, dir                string
	port, restPort, raftPort int
	machine                  Machine
	// store is the section of its file that names the store outside; empty: the embedded one.
	store string
	// The folders of what may lie on disks of their own; walDir is empty where it doesn't.
	dataDir, walDir, journalDir, raftDir string

	mu sync.Mutex // guards what follows
	// program is what the agent is from its next start on.
	program Program
	// on: the agent is to run, and is started again when it ends.
	on bool
	// agent is the running agent, nil when none runs; ended is closed when its present run
	// was waited for.
	agent *os.Process
	ended chan struct{}
	// runs counts the agent's starts, exits describes how the latest run ended.
	runs int
	exit string
}

// settle says where node number i runs and keeps its files.
func (n *Node) settle(i int) error {
	o := n.c.opt
	n.machine, n.store = here{}, o.Store
	if o.StoreOf != nil {
		n.store = o.StoreOf(i)
	}
	if o.Hosts != nil {
		var err error
		if n.machine, err = o.Hosts(n.name); err != nil {
			return fmt.Errorf("find the host of %s: %w", n.name, err)
		}
	}
	folder := func(d Disk, otherwise string) string {
		if o.Disks != nil {
			if dir := o.Disks(n.name, d); dir != "" {
				return dir
			}
		}
		return otherwise
	}
	n.dataDir = folder(DataDisk, filepath.Join(n.dir, "data"))
	n.walDir = folder(WALDisk, "")
	n.journalDir = folder(JournalDisk, filepath.Join(n.dir, "journal"))
	n.raftDir = folder(RaftDisk, filepath.Join(n.dir, "raft"))
	return nil
}

// Name is the member's name.
func (n *Node) Name() string { return n.name }

// ConfigFile is the node's patroni.yml.
func (n *Node) ConfigFile() string { return filepath.Join(n.dir, "patroni.yml") }

// LogFile is where the agent logs to, over all its runs.
func (n *Node) LogFile() string { return filepath.Join(n.dir, "agent.log") }

// DataDir is PostgreSQL's.
func (n *Node) DataDir() string { return n.dataDir }

// RunDir holds the keeper's socket.
func (n *Node) RunDir() string { return filepath.Join(n.dir, "run") }

// JournalDir holds the agent's journal.
func (n *Node) JournalDir() string { return n.journalDir }

// RaftDir holds what the agent's store keeps.
func (n *Node) RaftDir() string { return n.raftDir }

// DSN leads to this member's PostgreSQL alone, whatever it is.
func (n *Node) DSN() string { return n.c.dsn(at(n.machine, n.port)) }

// RESTURL is the base address of the agent's REST API.
func (n *Node) RESTURL() string { return "http://" + at(n.machine, n.restPort) }

// PowerOn starts the agent, and has it started again whenever it ends, like an init
// system's Restart=always, until StopAgent, KillNode or Close.
func (n *Node) PowerOn() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.on {
		return nil
	}
	if n.agent != nil {
		return fmt.Errorf("power on node %s: its agent hasn't ended yet", n.name)
	}
	if err := n.start(); err != nil {
		return err
	}
	n.on = true
	n.c.work.Go(func() { n.supervise() })
	return nil
}

// start runs the agent. The caller holds mu.
func (n *Node) start() error {
	if n.c.closing.Err() != nil {
		return fmt.Errorf("start the agent of %s: the cluster is closed", n.name)
	}
	log, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start the agent of %s: %w", n.name, err)
	}
	defer func() { _ = log.Close() }() // the agent has its own descriptor
	cmd := n.command()
	cmd.Dir = n.dir
	cmd.Env = agentEnvironment()
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: a Ctrl-C at the terminal is for the program that runs the
	// sandbox, not for its agents.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := n.machine.Start(cmd); err != nil {
		return fmt.Errorf("start the agent of %s: %w", n.name, err)
	}
	n.agent, n.ended = cmd.Process, make(chan struct{})
	n.runs++
	return nil
}

// agentEnvironment is the caller's without what would configure the agent or PostgreSQL.
func agentEnvironment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "PATRONI") && !strings.HasPrefix(kv, "REGENT") {
			env = append(env, kv)
		}
	}
	return append(env, "LC_ALL=C")
}

// supervise waits for the agent and starts it again while the node is on.
func (n *Node) supervise() {
	for {
		n.mu.Lock()
		proc, ended := n.agent, n.ended
		n.mu.Unlock()
		state, err := proc.Wait()
		n.mu.Lock()
		n.agent = nil
		n.exit = fmt.Sprint(state)
		if err != nil {
			n.exit = err.Error()
		}
		close(ended)
		n.mu.Unlock()
		if !pause(n.c.closing, n.c.opt.RestartAfter) || !n.again() {
			return
		}
	}
}

// again starts the agent once more; false when it isn't to run.
func (n *Node) again() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.on || n.agent != nil {
		return false
	}
	if err := n.start(); err != nil {
		n.on, n.exit = false, err.Error()
		return false
	}
	return true
}

// PowerOff ends the supervision: an agent that ends isn't started again. What runs, runs on.
func (n *Node) PowerOff() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.on = false
}

// Runs counts the agent's starts, and tells how the run before the present one ended.
func (n *Node) Runs() (starts int, lastExit string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.runs, n.exit
}

// StopAgent ends the agent by SIGTERM, as an operator does, and returns when it has ended.
// The node is off then.
func (n *Node) StopAgent(ctx context.Context) error {
	n.PowerOff()
	n.mu.Lock()
	proc, ended := n.agent, n.ended
	n.mu.Unlock()
	if proc == nil {
		return nil
	}
	if err := proc.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the agent of %s: %w", n.name, err)
	}
	return n.awaitEnd(ctx, ended)
}

func (n *Node) awaitEnd(ctx context.Context, ended <-chan struct{}) error {
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the agent of %s to end: %w", n.name, context.Cause(ctx))
	}
}

// KillAgent ends the agent by SIGKILL. It is started again after the usual time.
func (n *Node) KillAgent() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent == nil {
		return fmt.Errorf("kill the agent of %s: it isn't running", n.name)
	}
	if err := n.agent.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the agent of %s: %w", n.name, err)
	}
	return nil
}

// KillKeeper ends the keeper by SIGKILL.
func (n *Node) KillKeeper() error {
	pid, ok := n.KeeperPID()
	if !ok {
		return fmt.Errorf("kill the keeper of %s: it isn't running", n.name)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return fmt.Errorf("kill the keeper of %s: %w", n.name, err)
	}
	return nil
}

// KillPostmaster ends the postmaster by SIGKILL. Its children end by themselves, some only
// when their client's statement does (safety rule S1).
func (n *Node) KillPostmaster() error {
	pid, ok := n.PostmasterPID()
	if !ok {
		return fmt.Errorf("kill the postmaster of %s: it isn't running", n.name)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return fmt.Errorf("kill the postmaster of %s: %w", n.name, err)
	}
	return nil
}

// KillNode is a power cut, except that the kernel still closes connections: agent, keeper and
// all of PostgreSQL end at once, and stay down until PowerOn.
func (n *Node) KillNode() error {
	n.PowerOff()
	n.mu.Lock()
	ended, running := n.ended, n.agent != nil
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if err := killAll(ctx, n.processes); err != nil {
		return fmt.Errorf("kill node %s: %w", n.name, err)
	}
	if !running {
		return nil
	}
	return n.awaitEnd(ctx, ended)
}

func (n *Node) processes() []process { return processesOf(n.dir, n.c.programs()) }

// AgentPID returns the running agent's.
func (n *Node) AgentPID() (int, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.agent == nil {
		return 0, false
	}
	return n.agent.Pid, true
}

// KeeperPID returns the running keeper's, from the lock it holds.
func (n *Node) KeeperPID() (int, bool) {
	content, err := os.ReadFile(filepath.Join(n.RunDir(), "keeper.lock"))
	if err != nil {
		return 0, false
	}
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimPrefix(first, "pid "))
	if err != nil {
		return 0, false
	}
	p, ok := readProcess(pid)
	return pid, ok && p.exe == filepath.Join(n.c.opt.Bin, "regent-keeper")
}

// PostmasterPID returns the running postmaster's.
func (n *Node) PostmasterPID() (int, bool) {
	content, err := os.ReadFile(filepath.Join(n.DataDir(), "postmaster.pid"))
	if err != nil {
		return 0, false
	}
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return 0, false
	}
	p, ok := readProcess(pid)
	return pid, ok && p.cwd == n.DataDir()
}

// Tail returns the last lines of the agent's log, for reports.
func (n *Node) Tail(lines int) string {
	content, err := os.ReadFile(n.LogFile())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
