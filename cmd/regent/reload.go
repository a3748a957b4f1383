package main

import (
	"fmt"
	"strings"

	"github.com/pgregent/regent/internal/agent"
	"github.com/pgregent/regent/internal/api"
	"github.com/pgregent/regent/internal/config"
	"github.com/pgregent/regent/internal/ctl"
	"github.com/pgregent/regent/internal/stores"
)

// reload reads the file again; one that can't be used leaves the settings in force.
func (d *daemon) reload(a *agent.Agent) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	local, err := config.Load(d.path, d.environ)
	if err == nil {
		problems := config.Validate(local, ctl.Support())
		d.warn(problems)
		err = config.Errors(problems)
	}
	file := local
	if err == nil {
		local, err = d.moved.InForce(file)
	}
	if err == nil {
		err = sameMember(d.local, local)
	}
	if err == nil {
		err = stores.Reload(d.store, local)
	}
	if err != nil {
		d.log.Error("the configuration can't be reloaded; the one in force stays", "err", err)
		return
	}
	d.mu.Lock()
	d.local, d.file = local, file
	d.mu.Unlock()
	if err := d.server.Reload(api.SettingsOf(local.REST)); err != nil {
		d.log.Error("the REST API keeps its settings", "err", err)
	}
	a.Reload()
}

// sameMember refuses a file that describes another member: what an agent is, and where
// it works, stays as long as it runs.
func sameMember(now, next *config.Config) error {
	var changed []string
	for _, c := range []struct {
		key  string
		same bool
	}{
		{"scope", now.Scope == next.Scope},
		{"namespace", now.Namespace == next.Namespace},
		{"name", now.Name == next.Name},
		{"postgresql.data_dir", now.Postgres.DataDir == next.Postgres.DataDir},
		{"regent.run_dir", now.Regent.RunDir == next.Regent.RunDir},
		{"regent.journal.dir", now.Regent.JournalDir == next.Regent.JournalDir},
		{now.Store, stores.Same(now, next)},
	} {
		if !c.same {
			changed = append(changed, c.key)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return fmt.Errorf("%s changed, which takes a restart of the agent", strings.Join(changed, ", "))
}
