package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pgregent/regent/internal/sandbox"
	"github.com/pgregent/regent/internal/sandbox/history"
)

const (
	// liveEvery is how often the scene is looked at while it is told live.
	liveEvery = 5 * time.Millisecond
	// silence is how long nothing is acknowledged before that is worth a line.
	silence = 150 * time.Millisecond
	// sceneLimit bounds every wait of the script.
	sceneLimit = 40 * time.Second
)

// live tells what changes, as it does.
type live struct {
	*demo
	roles  map[string]history.Role
	silent bool
	from   time.Duration
}

// watchFrom begins a scene: what is told are the changes from now on.
func (d *demo) watchFrom(from time.Time) *live {
	return &live{demo: d, roles: d.watcher.Roles(), from: d.since(from)}
}

// tell tells role changes and the client's fortune until done returns true and the client
// writes.
func (l *live) tell(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, sceneLimit, fmt.Errorf("%s: not within %s", what, sceneLimit))
	defer cancel()
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for {
		l.look()
		if done() && !l.silent {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (l *live) look() {
	now := l.watcher.Roles()
	var names []string
	for name := range now {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if was := l.roles[name]; was != "" && was != now[name] {
			l.step("%s: %s → %s", name, roleWord(was), l.paintRole(now[name]))
		}
		l.roles[name] = now[name]
	}
	last := l.writer.Last()
	quiet := l.since(time.Now()) - last.Acked
	switch {
	case !l.silent && quiet > silence:
		l.silent = true
		l.step("the client's inserts fail")
	case l.silent && quiet < silence && last.Sent > l.from:
		l.silent = false
		l.step("%s", l.paint(green, "the client's inserts succeed again, at "+last.Node))
	}
}

func roleWord(r history.Role) string {
	if r == history.Down {
		return "not reachable"
	}
	return string(r)
}

func (l *live) paintRole(r history.Role) string {
	switch r {
	case history.Primary:
		return l.paint(green, string(r))
	case history.Down:
		return l.paint(red, roleWord(r))
	default:
		return string(r)
	}
}

// awaitWhole waits until all members stream and have a healthy agent.
func (d *demo) awaitWhole(ctx context.Context) (*sandbox.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, sceneLimit)
	defer cancel()
	primary, err := d.cluster.AwaitStreaming(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range d.cluster.Nodes() {
		if err := n.AwaitHealthy(ctx); err != nil {
			return nil, err
		}
	}
	return primary, nil
}

// primaryOtherThan returns a done for tellLive: another member than n is primary.
func (d *demo) primaryOtherThan(n *sandbox.Node) func() bool {
	return func() bool {
		for name, role := range d.watcher.Roles() {
			if role == history.Primary && name != n.Name() {
				return true
			}
		}
		return false
	}
}

// primaryNow returns the member that was last seen as primary, by its own word.
func (d *demo) primaryNow() *sandbox.Node {
	for name, role := range d.watcher.Roles() {
		if role == history.Primary {
			return d.cluster.Node(name)
		}
	}
	return nil
}
