package mem

import (
	"context"
	"fmt"
	"slices"

	"github.com/pgregent/regent/dcs"
)

// Op names a method of the store, for faults.
type Op string

// The operations that faults can hit. Empty means any.
const (
	OpView   Op = "view"
	OpCommit Op = "commit"
	OpGrant  Op = "grant"
	OpRenew  Op = "renew"
	OpRevoke Op = "revoke"
)

// Kind is what goes wrong.
type Kind int

// The kinds of faults.
const (
	// Refuse answers ErrRefused; nothing happened.
	Refuse Kind = iota
	// Lose the request: ErrUnavailable, nothing happened.
	Lose
	// LoseReply: it happened, and the caller gets ErrUnknown.
	LoseReply
	// Delay the request in the network: the caller gets ErrUnknown at once, and it
	// happens when Deliver is called, as if it had been on its way until then.
	Delay
	// Hold the call until Fault.Until is closed, then carry it out; ErrUnavailable,
	// and nothing happens, if its context ends before.
	Hold
)

// Fault hits matching calls, in the order of injection, each as often as it says.
type Fault struct {
	Client string // empty: any client
	Op     Op     // empty: any operation
	Key    string // for commits: one of the written keys; empty: any
	Kind   Kind
	Times  int // 0 counts as 1; negative: for ever
	Until  <-chan struct{}
}

// Inject adds a fault. Remove takes it away again, whatever is left of it.
func (c *Cluster) Inject(f Fault) (remove func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.Times == 0 {
		f.Times = 1
	}
	c.faults = append(c.faults, &f)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.faults = slices.DeleteFunc(c.faults, func(other *Fault) bool { return other == &f })
	}
}

// ClearFaults removes all faults that were injected and heals all partitions.
// Delayed requests stay on their way.
func (c *Cluster) ClearFaults() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
	clear(c.cut)
	c.notifyLocked()
}

// Cut partitions a client from the store, or heals it. A client that is cut gets
// ErrUnavailable, its watches stand still, and its local view ages.
func (c *Cluster) Cut(client string, off bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[client] = off
	c.notifyLocked()
}

// Deliver carries out the requests that Delay faults kept on their way, oldest
// first, and returns how many there were.
func (c *Cluster) Deliver() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	late := c.late
	c.late = nil
	for _, effect := range late {
		c.expireLocked()
		effect()
	}
	return len(late)
}

func (c *Cluster) faultLocked(client string, op Op, keys []string) *Fault {
	for i, f := range c.faults {
		if (f.Client != "" && f.Client != client) || (f.Op != "" && f.Op != op) || !f.hitsKey(keys) {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				c.faults = append(c.faults[:i:i], c.faults[i+1:]...)
			}
		}
		return f
	}
	return nil
}

func (f *Fault) hitsKey(keys []string) bool {
	if f.Key == "" {
		return true
	}
	for _, key := range keys {
		if key == f.Key {
			return true
		}
	}
	return false
}

// call carries out effect for a client, under whatever fault hits it. The effect
// runs with mu held, after leases that are past have ended.
func (c *Cluster) call(ctx context.Context, client string, op Op, keys []string, effect func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w: %w", op, dcs.ErrUnavailable, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut[client] {
		return fmt.Errorf("%s: %w: %s is cut off", op, dcs.ErrUnavailable, client)
	}
	f := c.faultLocked(client, op, keys)
	if f != nil {
		switch f.Kind {
		case Refuse:
			return fmt.Errorf("%s: %w: injected", op, dcs.ErrRefused)
		case Lose:
			return fmt.Errorf("%s: %w: injected", op, dcs.ErrUnavailable)
		case Delay:
			c.late = append(c.late, func() { _ = effect() }) // nobody waits for its answer
			return fmt.Errorf("%s: %w: injected", op, dcs.ErrUnknown)
		case Hold:
			if err := c.holdLocked(ctx, f.Until); err != nil {
				return fmt.Errorf("%s: %w: %w", op, dcs.ErrUnavailable, err)
			}
		case LoseReply:
		}
	}
	c.expireLocked()
	err := effect()
	if f != nil && f.Kind == LoseReply {
		return fmt.Errorf("%s: %w: injected", op, dcs.ErrUnknown)
	}
	return err
}

// holdLocked waits without holding mu.
func (c *Cluster) holdLocked(ctx context.Context, until <-chan struct{}) error {
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-until:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
