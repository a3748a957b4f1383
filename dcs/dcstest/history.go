package dcstest

import (
	"context"
	"fmt"
	"math"
	"sort"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// history of a workload while it grows. Times are nanoseconds since it began.
type history struct {
	began time.Time

	mu     sync.Mutex // guards the rest
	ops    []porcupine.Operation
	leases map[string]*belief
}

// belief is what is known of when a lease may end.
type belief struct {
	group int
	// from is until when its holder may believe (safety rule S6): it can't end before.
	from int64
	// last is when the last call returned that may have extended it, plus its TTL.
	last int64
}

func (h *history) now() int64 { return time.Since(h.began).Nanoseconds() }

// add notes a call that has returned, unless the store says that it didn't happen.
func (h *history) add(client int, in step, out answer, call int64, err error) {
	class := dcs.ClassOf(err)
	if class == events.Unavailable {
		return
	}
	out.refused, out.open = class == events.Refused, class == events.Unknown
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call, Return: h.now()})
}

// extend notes a grant or a renewal sent at call, as the holder reckons it.
func (h *history) extend(lease string, group int, call int64, ttl time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leases == nil {
		h.leases = map[string]*belief{}
	}
	b := h.leases[lease]
	if b == nil {
		b = &belief{group: group}
		h.leases[lease] = b
	}
	switch dcs.ClassOf(err) {
	case events.Done:
		b.from = max(b.from, call+int64(ttl))
		b.last = max(b.last, h.now()+int64(ttl))
	case events.Unknown: // it may take effect any time later
		b.last = math.MaxInt64
	}
}

// finish adds what nobody called: each lease's end, and lets calls of unknown outcome
// last until after everything else. They may take effect at any time, or never, which is
// the same as last of all. Each gets a client of its own, because its client went on.
func (h *history) finish(late time.Duration) []porcupine.Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := h.now() + 1
	next := 1 << 16
	for i := range h.ops {
		if out, ok := h.ops[i].Output.(answer); ok && out.open {
			h.ops[i].Return, h.ops[i].ClientId = end, next
			next++
		}
	}
	for name, b := range h.leases {
		op := porcupine.Operation{ClientId: next, Input: step{group: b.group, verb: expire, lease: name}, Output: answer{}}
		op.Call = min(b.from, end)
		op.Return = end
		if b.last < end-int64(late) {
			op.Return = b.last + int64(late)
		}
		h.ops = append(h.ops, op)
		next++
	}
	return h.ops
}

// Check complains when the operations have no linear order that explains every answer,
// when revisions contradict the order of calls, and when there were too few
// operations to mean anything.
func Check(t T, ops []porcupine.Operation, atLeast int) {
	t.Helper()
	check(t, ops, atLeast, time.Minute)
}

// check gives up after a while: that there is no order can take very long to find out.
func check(t T, ops []porcupine.Operation, atLeast int, limit time.Duration) {
	t.Helper()
	if len(ops) < atLeast {
		t.Errorf("only %d operations went through, expected %d at least", len(ops), atLeast)
	}
	if err := revisionsFollow(ops); err != nil {
		t.Error(err)
		return
	}
	result, info := porcupine.CheckOperationsVerbose(model(), ops, limit)
	switch result {
	case porcupine.Ok:
	case porcupine.Illegal:
		t.Errorf("a history of %d operations isn't linearizable; %s", len(ops), culprit(ops, info))
	default:
		t.Errorf("a history of %d operations took too long to check", len(ops))
	}
}

// culprit describes the first operation that no longest order explains.
func culprit(ops []porcupine.Operation, info porcupine.LinearizationInfo) string {
	parts := byGroup(ops)
	for i, orders := range info.PartialLinearizationsOperations() {
		var longest []porcupine.Operation
		for _, order := range orders {
			if len(order) > len(longest) {
				longest = order
			}
		}
		if i >= len(parts) || len(longest) == 0 {
			continue
		}
		explained := map[string]bool{}
		for _, op := range longest {
			explained[fmt.Sprint(op.ClientId, op.Call, op.Return)] = true
		}
		var first *porcupine.Operation
		for _, part := range parts {
			if !sameGroup(part, longest) || len(part) == len(longest) {
				continue
			}
			for j, op := range part {
				if !explained[fmt.Sprint(op.ClientId, op.Call, op.Return)] && (first == nil || op.Return < first.Return) {
					first = &part[j]
				}
			}
		}
		if first != nil {
			last := longest[len(longest)-1]
			return fmt.Sprintf("unexplained, after %s: %s (client %d, from %v to %v)", describe(last.Input, last.Output),
				describe(first.Input, first.Output), first.ClientId, time.Duration(first.Call), time.Duration(first.Return))
		}
	}
	return "no single operation stands out"
}

func sameGroup(a, b []porcupine.Operation) bool {
	x, okX := a[0].Input.(step)
	y, okY := b[0].Input.(step)
	return okX && okY && x.group == y.group
}

// revisionsFollow checks over all groups at once what the linear order means for
// revisions: a read isn't older than any write that returned before it was sent, and
// a write is newer.
func revisionsFollow(ops []porcupine.Operation) error {
	type mark struct {
		at, revision int64
	}
	var writes []mark
	for _, op := range ops {
		if in, out := op.Input.(step), op.Output.(answer); in.verb == write && out.revision > 0 {
			writes = append(writes, mark{op.Return, out.revision})
		}
	}
	sort.Slice(writes, func(i, j int) bool { return writes[i].at < writes[j].at })
	for i := 1; i < len(writes); i++ {
		writes[i].revision = max(writes[i].revision, writes[i-1].revision)
	}
	for _, op := range ops {
		in, out := op.Input.(step), op.Output.(answer)
		if out.revision == 0 || (in.verb != read && in.verb != write) {
			continue
		}
		n := sort.Search(len(writes), func(i int) bool { return writes[i].at >= op.Call })
		if n == 0 {
			continue
		}
		if before := writes[n-1].revision; out.revision < before || (in.verb == write && !in.deletesOnly() && out.revision == before) {
			return fmt.Errorf("a %s at revision %d was sent after one at %d had returned", in.verb, out.revision, before)
		}
	}
	return nil
}

func (s *suite) history() {
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	ops := Workload(ctx, s.Stores, s.prefix, Pace{
		Timeout: s.Failover, Between: s.TTL / 60, TTL: s.TTL, Late: s.Late + s.Failover,
	})
	check(s.T, ops, 100, 3*s.Patience)
	s.note = fmt.Sprintf("%d operations", len(ops))
}
