package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr/keeper"
)

// Keeper is a connection to the keeper that outlives the keeper: when it dies, a
// new one is started (S4). It is what package pgmgr calls a Postmaster.
type Keeper struct {
	launch keeper.LaunchConfig
	log    *slog.Logger

	mu     sync.Mutex
	client *keeper.Client
}

// NewKeeper returns a link that isn't connected yet; the agent's Run keeps it so.
func NewKeeper(launch keeper.LaunchConfig, log *slog.Logger) *Keeper {
	return &Keeper{launch: launch, log: log}
}

// connect launches or finds the keeper.
func (k *Keeper) connect(ctx context.Context) (*keeper.Client, error) {
	c, err := keeper.Launch(ctx, k.launch)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.client = c
	k.mu.Unlock()
	return c, nil
}

func (k *Keeper) get() (*keeper.Client, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client == nil {
		return nil, fmt.Errorf("call the keeper: %w: it is being started", keeper.ErrUnavailable)
	}
	return k.client, nil
}

// Status implements pgmgr.Postmaster.
func (k *Keeper) Status(ctx context.Context) (keeper.Status, error) {
	c, err := k.get()
	if err != nil {
		return keeper.Status{}, err
	}
	return c.Status(ctx)
}

// Start implements pgmgr.Postmaster.
func (k *Keeper) Start(ctx context.Context, r keeper.StartRequest) (keeper.Status, error) {
	c, err := k.get()
	if err != nil {
		return keeper.Status{}, err
	}
	return c.Start(ctx, r)
}

// Extend implements pgmgr.Postmaster.
func (k *Keeper) Extend(ctx context.Context, g keeper.Grant) error {
	c, err := k.get()
	if err != nil {
		return err
	}
	return c.Extend(ctx, g)
}

// Promote implements pgmgr.Postmaster.
func (k *Keeper) Promote(ctx context.Context, g keeper.Grant) error {
	c, err := k.get()
	if err != nil {
		return err
	}
	return c.Promote(ctx, g)
}

// Stop implements pgmgr.Postmaster.
func (k *Keeper) Stop(ctx context.Context, m keeper.StopMode) error {
	c, err := k.get()
	if err != nil {
		return err
	}
	return c.Stop(ctx, m)
}

// WaitDown implements pgmgr.Postmaster.
func (k *Keeper) WaitDown(ctx context.Context) error {
	c, err := k.get()
	if err != nil {
		return err
	}
	return c.WaitDown(ctx)
}

// Shutdown ends the keeper, which refuses while its PostgreSQL lives.
func (k *Keeper) Shutdown(ctx context.Context) error {
	c, err := k.get()
	if err != nil {
		return err
	}
	return c.Shutdown(ctx)
}

// Close closes the connection and leaves the keeper alone.
func (k *Keeper) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client == nil {
		return nil
	}
	err := k.client.Close()
	k.client = nil
	return err
}

// watchKeeper keeps a keeper, and turns what it reports into events.
func (a *Agent) watchKeeper(ctx context.Context) {
	pause := 10 * time.Millisecond
	for ctx.Err() == nil {
		c, err := a.opt.Keeper.connect(ctx)
		if err != nil {
			a.log.Error("no keeper, so PostgreSQL can't be started", "err", err)
			a.mail.put(events.KeeperLost{Why: err.Error()})
			wait(ctx, pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 10 * time.Millisecond
		a.serveKeeper(ctx, c)
	}
}

func (a *Agent) serveKeeper(ctx context.Context, c *keeper.Client) {
	st, err := c.Status(ctx)
	if err == nil {
		found := events.KeeperFound{PID: st.PID, Adopted: st.Adopted}
		if st.Armed != nil {
			found.Armed, found.Deadline = true, st.Armed.Deadline
		}
		a.mail.put(found)
		a.observe.kick()
	}
	for {
		select {
		case ev, ok := <-c.Events():
			if !ok {
				a.keeperLost(ctx, c)
				return
			}
			a.keeperEvent(ev)
		case <-ctx.Done():
			return
		}
	}
}

func (a *Agent) keeperLost(ctx context.Context, c *keeper.Client) {
	if ctx.Err() == nil {
		a.log.Warn("the keeper is gone; starting another", "err", c.Err())
		a.mail.put(events.KeeperLost{Why: fmt.Sprint(c.Err())})
	}
}

func (a *Agent) keeperEvent(ev keeper.Event) {
	switch ev.Kind {
	case keeper.ServerDown:
		if ev.Repeated {
			a.observe.kick()
			return
		}
		down := events.PostgresDown{}
		if x := ev.Exit; x != nil {
			down = events.PostgresDown{PID: x.PID, Code: x.Code, Signal: x.Signal, Ours: x.Ours, Fenced: x.Fenced}
		}
		a.mail.put(down)
	case keeper.FenceBegun:
		a.mail.put(events.FenceBegun{Why: ev.Note})
	case keeper.PostmasterExited:
		a.observe.kick()
	}
}

// wait pauses for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
