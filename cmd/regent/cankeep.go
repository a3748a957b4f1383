package main

import (
	"fmt"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/agent"
)

// canKeep refuses to start in a cluster whose shared configuration asks for a protection that
// this release lacks. Patroni members may keep it, and rely on the others to do so as well: one that
// doesn't know of synchronous standbys would take over without what was acknowledged.
func (d *daemon) canKeep(v events.ClusterView) error {
	if v.Config.Version == 0 {
		return nil
	}
	if _, _, _, err := agent.Translate(d.local, v.Config.Raw, false); err != nil {
		return fmt.Errorf("the cluster's shared configuration (regent show-config): %w", err)
	}
	return nil
}
