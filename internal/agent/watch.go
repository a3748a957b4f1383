package agent

import (
	"context"
	"sync"
	"time"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/pgmgr"
)

// watchStore turns the store's views into events. A watch that ends is begun again.
func (a *Agent) watchStore(ctx context.Context) {
	pause := 20 * time.Millisecond
	for ctx.Err() == nil {
		views, err := a.opt.Store.Watch(ctx)
		if err != nil {
			a.health.note(err)
			wait(ctx, pause)
			pause = min(2*pause, time.Second)
			continue
		}
		for v := range views {
			pause = 20 * time.Millisecond
			if kv, ok := v.Get(dcs.KeyStatus); ok {
				a.config.keepStatus(kv.Value)
			}
			view := dcs.Decode(v)
			a.mail.put(events.ClusterObserved{View: view})
			a.noticeConfig(view)
		}
		wait(ctx, pause)
	}
}

// configWatch remembers which configuration was last acted on.
type configWatch struct {
	mu      sync.Mutex
	version events.Revision
	patroni bool
	known   bool
	status  []byte
}

func (c *configWatch) lastStatus() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *configWatch) keepStatus(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = b
}

// news reports whether the view brings another configuration, or the first or last
// Patroni member, whose rules bind the timings (S7).
func (c *configWatch) news(v events.ClusterView) (patroni, changed bool) {
	for _, m := range v.Members {
		patroni = patroni || m.Regent == ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed = !c.known || c.version != v.Config.Version || c.patroni != patroni
	c.known, c.version, c.patroni = true, v.Config.Version, patroni
	return patroni, changed
}

// noticeConfig applies a changed dynamic configuration. One that can't be read
// leaves the settings in force.
func (a *Agent) noticeConfig(v events.ClusterView) {
	if v.Config.Version == 0 {
		return // nothing is shared yet: the file's bootstrap.dcs counts
	}
	patroni, changed := a.config.news(v)
	if changed {
		a.applyConfig(v.Config.Raw, patroni)
	}
}

// Reload applies the local configuration anew, with the dynamic one in force.
func (a *Agent) Reload() {
	v := a.Snapshot().Store.View
	patroni, _ := a.config.news(v)
	a.applyConfig(v.Config.Raw, patroni)
}

func (a *Agent) applyConfig(dynamic []byte, patroni bool) {
	set, pg, err := a.opt.Settings(dynamic, patroni)
	if err != nil {
		a.log.Error("the configuration can't be applied; the one in force stays", "err", err)
		return
	}
	before := a.Snapshot().Settings
	a.mail.put(events.ConfigChanged{Settings: set})
	if before.Pause != set.Pause {
		a.mail.put(events.PauseChanged{Paused: set.Pause})
	}
	a.lane.enqueue(events.ActionID{}, func(ctx context.Context) { a.reconfigure(ctx, pg) })
}

// reconfigure brings a changed configuration to the server, between operations.
func (a *Agent) reconfigure(ctx context.Context, cfg pgmgr.Config) {
	if err := a.opt.Postgres.Reconfigure(cfg); err != nil {
		a.log.Error("PostgreSQL's configuration can't be applied; the one in force stays", "err", err)
		return
	}
	p := a.Snapshot().Postgres
	if !p.Known || !p.State.Running || !p.State.Ready {
		return // the next start writes it
	}
	role, up := pgmgr.RolePrimary, (*events.Upstream)(nil)
	if p.State.InRecovery {
		role, up = pgmgr.RoleReplica, a.Snapshot().Upstream()
	}
	changed, err := a.opt.Postgres.WriteConfig(ctx, role, up)
	if err == nil && changed {
		a.log.Info("Reloading PostgreSQL configuration.")
		err = a.opt.Postgres.Reload(ctx)
	}
	if err != nil {
		a.log.Warn("PostgreSQL's configuration could not be reloaded", "err", err)
	}
	a.observe.kick()
}
