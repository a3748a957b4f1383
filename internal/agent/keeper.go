package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pgregent/regent/pgmgr/keeper"
)

// Keeper is a connection to the keeper that outlives the keeper: when it dies, a
// new one is started (S4). It is what package pgmgr calls a Postmaster.
type Keeper struct {
	launch keeper.LaunchConfig
	log    *slog.Logger

	mu       sync.Mutex
	client   *keeper.Client
	watchdog keeper.Watchdog
	ttl      time.Duration // that the watchdog must fit into
	amiss    string        // what was last said of it
	told     keeper.Status // the newest answer to Status, of this client
}

// NewKeeper returns a link that isn't connected yet; the agent's Run keeps it so.
func NewKeeper(launch keeper.LaunchConfig, log *slog.Logger) *Keeper {
	return &Keeper{launch: launch, log: log}
}

// Back sets the kernel's watchdog that backs every grant from now on (S4); the zero
// value: none does. ttl is that of the leases which the grants stand for.
func (k *Keeper) Back(w keeper.Watchdog, ttl time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watchdog, k.ttl = w, ttl
}

// judgeWatchdog replaces what the keeper says of a watchdog that isn't active by whether the
// one that is required could work for the next grant: the keeper tries one only with a grant,
// and what an earlier grant met may have passed.
func (k *Keeper) judgeWatchdog(st *keeper.Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	problem := ""
	if k.watchdog.Mode == keeper.WatchdogRequired && (st.Watchdog == nil || !st.Watchdog.Active) {
		st.Watchdog = nil
		if err := k.watchdog.Unusable(k.ttl); err != nil {
			problem = err.Error()
			st.Watchdog = &keeper.WatchdogState{Mode: k.watchdog.Mode, Device: k.watchdog.Device, Problem: problem}
		}
	}
	switch {
	case problem == k.amiss:
	case problem != "":
		k.log.Warn("this member can't become the primary: the watchdog is required and doesn't work", "err", problem)
	default:
		k.log.Info("the watchdog is there: this member may become the primary")
	}
	k.amiss = problem
}

func (k *Keeper) backed(g keeper.Grant) keeper.Grant {
	k.mu.Lock()
	defer k.mu.Unlock()
	g.Watchdog = k.watchdog
	return g
}

// connect launches or finds the keeper.
func (k *Keeper) connect(ctx context.Context) (*keeper.Client, error) {
	c, err := keeper.Launch(ctx, k.launch)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.client, k.told = c, keeper.Status{}
	k.mu.Unlock()
	return c, nil
}

// adoptForeign takes a postmaster in charge that runs in the data directory without
// the keeper knowing it: one that outlived its own keeper, or was started by hand (S5).
// adopted is false when there is none. Adopting doesn't arm.
func (k *Keeper) adoptForeign(ctx context.Context) (st keeper.Status, adopted bool, err error) {
	c, err := k.get()
	if err != nil {
		return st, false, err
	}
	if st, err = c.Status(ctx); err != nil || guarded(st) {
		return st, false, err
	}
	if _, err := os.Stat(filepath.Join(k.launch.DataDir, "postmaster.pid")); err != nil {
		return st, false, nil
	}
	st, err = c.Adopt(ctx, 0)
	if errors.Is(err, keeper.ErrRefused) {
		return st, false, nil // the file is stale, or the server is on its way out
	}
	return st, err == nil, err
}

// guarded reports whether the server that runs in the data directory is in the keeper's charge.
func guarded(st keeper.Status) bool { return st.Alive && st.Foreign == 0 }

// saidGuarded is guarded by the newest answer to Status, without asking again.
func (k *Keeper) saidGuarded() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return guarded(k.told)
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
	st, err := c.Status(ctx)
	if err == nil {
		k.judgeWatchdog(&st)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client == c {
		k.told = st // nothing, after an error
	}
	return st, err
}

// Start implements pgmgr.Postmaster.
func (k *Keeper) Start(ctx context.Context, r keeper.StartRequest) (keeper.Status, error) {
	c, err := k.get()
	if err != nil {
		return keeper.Status{}, err
	}
	if r.Grant != nil {
		g := k.backed(*r.Grant)
		r.Grant = &g
	}
	return c.Start(ctx, r)
}

// Extend implements pgmgr.Postmaster.
func (k *Keeper) Extend(ctx context.Context, g keeper.Grant) error {
	c, err := k.get()
	if err != nil {
		return err
	}
	return c.Extend(ctx, k.backed(g))
}

// Promote implements pgmgr.Postmaster.
func (k *Keeper) Promote(ctx context.Context, g keeper.Grant) error {
	c, err := k.get()
	if err != nil {
		return err
	}
	return c.Promote(ctx, k.backed(g))
}

// PromoteWaived implements pgmgr.Postmaster.
func (k *Keeper) PromoteWaived(ctx context.Context, w keeper.Waiver) error {
	c, err := k.get()
	if err != nil {
		return err
	}
	return c.PromoteWaived(ctx, w)
}

// Disarm implements pgmgr.Postmaster.
func (k *Keeper) Disarm(ctx context.Context, w keeper.Waiver) error {
	c, err := k.get()
	if err != nil {
		return err
	}
	return c.Disarm(ctx, w)
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
