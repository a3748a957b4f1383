package agent

import (
	"context"
	"encoding/json"
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
			a.mail.put(events.ClusterObserved{View: dcs.Decode(v)})
		}
		wait(ctx, pause)
	}
}

// configWatch remembers which configuration was last acted on.
type configWatch struct {
	// Owned by the loop.
	version events.Revision
	patroni bool
	known   bool

	mu     sync.Mutex // guards status, the key's last value
	status []byte
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
func (c *configWatch) news(v events.ClusterView) bool {
	patroni := false
	for _, m := range v.Members {
		patroni = patroni || m.Regent == ""
	}
	changed := !c.known || c.version != v.Config.Version || c.patroni != patroni
	c.known, c.version, c.patroni = true, v.Config.Version, patroni
	return changed
}

// noticeConfig applies a changed dynamic configuration. It belongs to the loop, so
// that no older one can be applied last.
func (a *Agent) noticeConfig(ctx context.Context, v events.ClusterView) {
	if v.Config.Version != 0 && a.config.news(v) { // else the file's bootstrap.dcs counts
		a.applyConfig(ctx, v.Config)
	}
}

// Reload applies the local configuration anew, with the dynamic one in force. It
// returns at once.
func (a *Agent) Reload() {
	a.reload.Store(true)
	a.mail.signal()
}

// applyConfig takes a configuration into force; one that can't be kept leaves the
// settings as they are, and the member aside. It belongs to the loop.
func (a *Agent) applyConfig(ctx context.Context, shared events.DynamicConfig) {
	set, pg, err := a.opt.Settings(shared.Raw, a.config.patroni)
	if err != nil {
		a.log.Error("the configuration can't be applied; the one in force stays, and this member takes no leadership over", "err", err)
		set := a.state.Settings
		set.Tags = standsAside(set.Tags)
		a.step(ctx, events.ConfigChanged{Settings: set})
		return
	}
	before := a.state.Settings
	set.ConfigVersion = shared.Version
	if shared.Version == 0 {
		set.Pause = before.Pause // only the config key tells
	}
	a.step(ctx, events.ConfigChanged{Settings: set})
	if before.Pause != set.Pause {
		a.step(ctx, events.PauseChanged{Paused: set.Pause, Revision: shared.Version})
	}
	a.queueConfig(pg)
}

// standsAside are the tags of a member that can't keep what the cluster promises, with the
// configuration that it can't apply: it doesn't take over, and no commit waits for it, since nobody
// else may be there to take over then. Members of both programs see that.
func standsAside(tags events.Tags) events.Tags {
	all := map[string]json.RawMessage{}
	_ = json.Unmarshal(tags.Raw, &all) // no tags: none are lost
	all["nofailover"], all["nosync"] = json.RawMessage("true"), json.RawMessage("true")
	raw, err := json.Marshal(all)
	if err != nil {
		raw = json.RawMessage(`{"nofailover":true,"nosync":true}`)
	}
	tags.NoFailover, tags.NoSync, tags.Raw = true, true, raw
	return tags
}

func (a *Agent) queueConfig(cfg pgmgr.Config) {
	a.lane.enqueue(operation{yields: true, run: func(ctx context.Context) { a.reconfigure(ctx, cfg) }})
}

// retryConfig tries a configuration again that PostgreSQL could not take.
func (a *Agent) retryConfig() {
	if cfg := a.unapplied.Swap(nil); cfg != nil {
		a.queueConfig(*cfg)
	}
}

// reconfigureLimit bounds how long a configuration may keep operations waiting.
const reconfigureLimit = 5 * time.Second

// reconfigure brings a changed configuration to the server, between operations. One
// that the server can't take now is tried again with the heartbeat.
func (a *Agent) reconfigure(ctx context.Context, cfg pgmgr.Config) {
	ctx, cancel := context.WithTimeout(ctx, reconfigureLimit)
	defer cancel()
	a.unapplied.Store(nil) // an older one is past
	if err := a.opt.Postgres.Reconfigure(cfg); err != nil {
		a.log.Error("PostgreSQL's configuration can't be applied; the one in force stays", "err", err)
		return
	}
	p := a.Snapshot().Postgres
	switch {
	case !p.Known || !p.State.Running:
		// The next start writes it; one that has just ended isn't seen here yet, and may
		// have written the configuration before.
		a.unapplied.Store(&cfg)
		return
	case !p.State.Ready:
		a.unapplied.Store(&cfg)
		return
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
		a.log.Warn("PostgreSQL's configuration could not be reloaded; trying again", "err", err)
		a.unapplied.Store(&cfg)
	}
	a.observe.kick()
}
