package dcstest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// The model that histories are checked against. A group is two keys and the leases that
// were ever granted for them; groups have nothing to do with each other. Every value
// that is written is unique, so a guard on a version is a guard on the value that had it.

// absent is the value of a key that doesn't exist.
const absent = "-"

// cell is a key of a group: its value, and the lease that it is attached to.
type cell struct{ value, lease string }

// state of a group. Leases that live are listed in alive, sorted, so that == compares.
type state struct {
	cells [2]cell
	alive string
}

// verb of a step of the model.
type verb string

const (
	read   verb = "read"
	write  verb = "write"
	grant  verb = "grant"
	renew  verb = "renew"
	revoke verb = "revoke"
	// expire is nobody's call. It is possible from when the holder's belief ends until
	// the backend's bound (see expiries).
	expire verb = "expire"
)

// step is what was asked for.
type step struct {
	group  int
	verb   verb
	lease  string
	guards []guard
	puts   []put
}

// deletesOnly: if nothing was there, nothing changed, and there need be no new revision.
func (s step) deletesOnly() bool {
	return !slices.ContainsFunc(s.puts, func(p put) bool { return p.value != absent })
}

// guard: the cell has this value; absent: it has none. Lease, when set, is the cell's.
type guard struct {
	cell  int
	value string
	lease string
}

// put a value, or delete when it is absent.
type put struct {
	cell  int
	value string
	lease string
}

// answer is what came of a step.
type answer struct {
	cells   [2]cell // of a read
	keys    string  // of a renewal: the cells attached to the lease
	refused bool
	// open: the outcome is unknown. It may have happened then or any time later.
	open bool
	// revision that was answered; not the model's business.
	revision int64
}

func model() porcupine.Model {
	return porcupine.Model{
		Partition: byGroup,
		Init:      func() any { return state{cells: [2]cell{{value: absent}, {value: absent}}} },
		Step: func(before, input, output any) (bool, any) {
			st, _ := before.(state)
			in, _ := input.(step)
			out, _ := output.(answer)
			ok, after := st.step(in, out)
			return ok, after
		},
		DescribeOperation: describe,
	}
}

func describe(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) }

func byGroup(history []porcupine.Operation) [][]porcupine.Operation {
	groups := map[int][]porcupine.Operation{}
	for _, op := range history {
		if in, ok := op.Input.(step); ok {
			groups[in.group] = append(groups[in.group], op)
		}
	}
	parts := make([][]porcupine.Operation, 0, len(groups))
	for _, part := range groups {
		parts = append(parts, part)
	}
	return parts
}

// step says whether the answer is possible in this state, and what follows.
func (st state) step(in step, out answer) (bool, state) {
	switch in.verb {
	case read:
		return out.cells == st.cells, st
	case grant:
		return !st.lives(in.lease) && !out.refused, st.with(in.lease)
	case renew:
		if out.refused {
			return !st.lives(in.lease), st
		}
		return st.lives(in.lease) && out.keys == st.attached(in.lease), st
	case revoke:
		return !out.refused, st.without(in.lease)
	case expire:
		return true, st.without(in.lease)
	}
	possible := st.allows(in)
	switch {
	case out.refused, out.open && !possible:
		return !possible, st
	case !possible:
		return false, st
	}
	for _, p := range in.puts {
		st.cells[p.cell] = cell{p.value, p.lease}
	}
	return true, st
}

// allows: all guards hold, and all leases live.
func (st state) allows(in step) bool {
	for _, g := range in.guards {
		if st.cells[g.cell].value != g.value || (g.lease != "" && st.cells[g.cell].lease != g.lease) {
			return false
		}
	}
	for _, p := range in.puts {
		if p.lease != "" && !st.lives(p.lease) {
			return false
		}
	}
	return true
}

func (st state) lives(lease string) bool {
	return slices.Contains(strings.Fields(st.alive), lease)
}

func (st state) with(lease string) state {
	alive := append(strings.Fields(st.alive), lease)
	slices.Sort(alive)
	st.alive = strings.Join(alive, " ")
	return st
}

// without ends a lease and deletes what is attached to it. A lease that is gone may end
// again.
func (st state) without(lease string) state {
	alive := slices.DeleteFunc(strings.Fields(st.alive), func(l string) bool { return l == lease })
	st.alive = strings.Join(alive, " ")
	for i, c := range st.cells {
		if c.lease == lease {
			st.cells[i] = cell{value: absent}
		}
	}
	return st
}

func (st state) attached(lease string) string {
	var out []string
	for i, c := range st.cells {
		if c.lease == lease {
			out = append(out, fmt.Sprint(i))
		}
	}
	return strings.Join(out, " ")
}
