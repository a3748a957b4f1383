package dcstest

import (
	"context"
	"fmt"
	"math/rand"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// call is one operation of the workload: a read, or a put, perhaps guarded by the
// value that its client read last ("-": by absence; "*": not at all).
type call struct {
	key   string
	put   string // empty: a read
	guard string
}

type answer struct {
	value   string // of a read; "-": no such key
	refused bool
	// open: the outcome is unknown. It may have happened then or any time later.
	open bool
}

// maxCalls of one client of a workload: the checker's work grows steeply with the
// length of a history, and a fast store would fill the time with little new.
const maxCalls = 500

// Pace of a workload's clients.
type Pace struct {
	// Timeout of each call.
	Timeout time.Duration
	// Between is how long a client waits after each call.
	Between time.Duration
}

// Workload lets several clients read, put and compare-and-swap a few keys at random
// until ctx ends or they did enough, and returns what they saw. Calls that
// the store says didn't happen are left out.
func Workload(ctx context.Context, stores []dcs.Store, prefix string, pace Pace) []porcupine.Operation {
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex // guards ops
		ops []porcupine.Operation
	)
	began := time.Now()
	for id := range 2 * len(stores) {
		wg.Go(func() {
			rng := rand.New(rand.NewSource(int64(id)))
			seen := map[string]string{}
			for n := 0; ctx.Err() == nil && n < maxCalls; n++ {
				c := randomCall(rng, prefix, seen, fmt.Sprintf("%d-%d", id, n))
				op := porcupine.Operation{ClientId: id, Input: c, Call: time.Since(began).Nanoseconds()}
				out, err := do(ctx, stores[id%len(stores)], c, pace.Timeout)
				op.Return = time.Since(began).Nanoseconds()
				rest(ctx, pace.Between)
				class := dcs.ClassOf(err)
				if class == events.Unavailable || (class == events.Unknown && c.put == "") {
					continue
				}
				out.refused, out.open = class == events.Refused, class == events.Unknown
				if c.put == "" {
					seen[c.key] = out.value
				}
				op.Output = out
				mu.Lock()
				ops = append(ops, op)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return closeOpen(ops)
}

func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func randomCall(rng *rand.Rand, prefix string, seen map[string]string, unique string) call {
	c := call{key: fmt.Sprintf("%s/%d", prefix, rng.Intn(3)), guard: "*"}
	last, known := seen[c.key]
	switch rng.Intn(4) {
	case 0:
		c.put = unique
	case 1, 2:
		if known {
			c.put, c.guard = unique, last
		}
	}
	return c
}

func do(ctx context.Context, store dcs.Store, c call, timeout time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if c.put == "" {
		v, err := store.View(ctx, dcs.Linearizable)
		return answer{value: valueIn(v, c.key)}, err
	}
	txn := dcs.Txn{Writes: []dcs.Write{dcs.Put(c.key, []byte(c.put))}}
	switch c.guard {
	case "*":
	case "-":
		txn.Guards = []dcs.Guard{{Key: c.key, Absent: true}}
	default:
		txn.Guards = []dcs.Guard{dcs.ValueIs(c.key, c.guard)}
	}
	_, err := store.Commit(ctx, txn)
	return answer{}, err
}

// closeOpen lets calls of unknown outcome last until after everything else: they may
// take effect at any time, or never, which is the same as last of all. Each moves to
// a client of its own, because its client went on.
func closeOpen(ops []porcupine.Operation) []porcupine.Operation {
	var end int64
	for _, op := range ops {
		end = max(end, op.Return)
	}
	next := 1 << 16
	for i := range ops {
		if out, ok := ops[i].Output.(answer); ok && out.open {
			ops[i].Return, ops[i].ClientId = end+1, next
			next++
		}
	}
	return ops
}

// Check fails the test when the operations have no linear order that explains every
// answer, and when there were too few of them to mean anything.
func Check(t testing.TB, ops []porcupine.Operation, atLeast int) {
	t.Helper()
	if len(ops) < atLeast {
		t.Errorf("only %d operations went through, expected %d at least", len(ops), atLeast)
	}
	switch porcupine.CheckOperationsTimeout(register(), ops, time.Minute) {
	case porcupine.Ok:
	case porcupine.Illegal:
		t.Errorf("a history of %d operations isn't linearizable", len(ops))
	default:
		t.Errorf("a history of %d operations took too long to check", len(ops))
	}
}

// register is the model: each key on its own, "-" when absent.
func register() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, op := range history {
				if c, ok := op.Input.(call); ok {
					byKey[c.key] = append(byKey[c.key], op)
				}
			}
			parts := make([][]porcupine.Operation, 0, len(byKey))
			for _, part := range byKey {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() any { return "-" },
		Step: func(state, input, output any) (bool, any) {
			value, _ := state.(string)
			c, _ := input.(call)
			out, _ := output.(answer)
			matches := c.guard == "*" || c.guard == value
			switch {
			case c.put == "":
				return out.value == value, value
			case out.open && !matches, out.refused:
				return !matches, value
			case !matches:
				return false, value
			default:
				return true, c.put
			}
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
}

func (s *suite) history() {
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	Check(s, Workload(ctx, s.Stores, s.prefix, Pace{Timeout: time.Second}), 50)
}
