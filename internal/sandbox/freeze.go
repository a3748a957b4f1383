package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Part of a node, for what is done to less than all of it.
type Part string

// The parts.
const (
	Agent      Part = "agent"
	Keeper     Part = "keeper"
	Postmaster Part = "postmaster"
	Whole      Part = "node"
)

// Frozen are processes that stand still.
type Frozen struct {
	node *Node
	part Part
	pids []int
}

// freezeTimeout bounds how long stopped processes may take to stand still.
const freezeTimeout = 5 * time.Second

// Freeze stops a part of the node by SIGSTOP and returns when all of it stands still. A whole
// frozen node is a suspended machine, except that the kernel still accepts connections for it.
// Whoever doesn't Thaw leaves it frozen; Close ends frozen processes too.
func (n *Node) Freeze(part Part) (*Frozen, error) {
	f := &Frozen{node: n, part: part}
	ctx, cancel := context.WithTimeout(context.Background(), freezeTimeout)
	defer cancel()
	for {
		moving := 0
		pids, err := n.pidsOf(part)
		if err != nil {
			return nil, err
		}
		// PostgreSQL may start a backend just before its turn comes, so everything is stopped
		// until nothing moves.
		for _, pid := range pids {
			if standsStill(pid) {
				continue
			}
			moving++
			if err := unix.Kill(pid, unix.SIGSTOP); err == nil && !slices.Contains(f.pids, pid) {
				f.pids = append(f.pids, pid)
			}
		}
		if moving == 0 {
			f.order()
			return f, nil
		}
		if !pause(ctx, time.Millisecond) {
			f.Thaw()
			return nil, fmt.Errorf("freeze the %s of %s: %w", part, n.name, context.Cause(ctx))
		}
	}
}

// order sorts them as they will run on: those of PostgreSQL come first and the agent last, which
// is the worst order for whoever wants no write to be taken by a primary that slept past its lease.
func (f *Frozen) order() {
	rank := map[int]int{}
	for _, pid := range f.pids {
		p, _ := readProcess(pid)
		switch filepath.Base(p.exe) {
		case "regent":
			rank[pid] = 2
		case "regent-keeper":
			rank[pid] = 1
		}
	}
	slices.SortStableFunc(f.pids, func(a, b int) int { return rank[a] - rank[b] })
}

// Thaw lets them run on, all at once as far as that goes.
func (f *Frozen) Thaw() {
	for _, pid := range f.pids {
		_ = unix.Kill(pid, unix.SIGCONT) // it may have been killed meanwhile
	}
}

func (n *Node) pidsOf(part Part) ([]int, error) {
	one := map[Part]func() (int, bool){Agent: n.AgentPID, Keeper: n.KeeperPID, Postmaster: n.PostmasterPID}[part]
	if one == nil {
		var pids []int
		for _, p := range n.processes() {
			pids = append(pids, p.pid)
		}
		return pids, nil
	}
	pid, running := one()
	if !running {
		return nil, fmt.Errorf("freeze the %s of %s: it isn't running", part, n.name)
	}
	return []int{pid}, nil
}

// standsStill reports that a process was stopped, or is gone.
func standsStill(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	return len(fields) > 0 && bytes.ContainsAny(fields[0], "TtZX")
}
