package live

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pgregent/regent/internal/sandbox"
)

// operatorVerbs are what an operator types. All of them run the command line.
func operatorVerbs() []Verb {
	on := []Kind{Do}
	return []Verb{
		{Kinds: on, Form: "switchover from NODE to NODE", Doc: "`regent switchover`; done when the command has ended well.",
			do: func(ctx context.Context, r *run, a []string) error { return r.switchover(ctx, a[0], a[1]) }},
		{Kinds: on, Form: "ask for a switchover from NODE to NODE", Doc: "The same, whatever the command's end: it may be part of the story that it fails.",
			do: func(ctx context.Context, r *run, a []string) error {
				err := r.switchover(ctx, a[0], a[1])
				if _, refused := errors.AsType[*refusal](err); refused {
					return nil
				}
				return err
			}},
		{Kinds: on, Form: "failover to NODE", Doc: "`regent failover`, for which the primary needn't live.",
			do: func(ctx context.Context, r *run, a []string) error {
				return r.at(a[0], func(n *sandbox.Node) error {
					return r.regent(ctx, "failover", "--candidate", n.Name(), "--force", scope)
				})
			}},
		{Kinds: []Kind{Expect}, Form: "switchover from NODE to NODE is refused", Doc: "`regent switchover` ends with an error, and with a sentence.",
			holds: func(ctx context.Context, r *run, a []string) error {
				err := r.switchover(ctx, a[0], a[1])
				if refused, ok := errors.AsType[*refusal](err); ok && strings.TrimSpace(refused.said) != "" {
					return nil
				}
				return fmt.Errorf("it wasn't refused: %w", errors.Join(errors.New("the command's end"), err))
			}},
		{Kinds: on, Form: "restart postgres of NODE", Doc: "`regent restart` of that member.",
			do: func(ctx context.Context, r *run, a []string) error {
				return r.at(a[0], func(n *sandbox.Node) error { return r.regent(ctx, "restart", "--force", scope, n.Name()) })
			}},
		{Kinds: on, Form: "reinit NODE", Doc: "`regent reinit` of that member, without waiting for the copy.",
			do: func(ctx context.Context, r *run, a []string) error {
				return r.at(a[0], func(n *sandbox.Node) error { return r.regent(ctx, "reinit", "--force", scope, n.Name()) })
			}},
		{Kinds: on, Form: "pause the cluster", Doc: "`regent pause --wait`: maintenance mode, and all members know.",
			do: func(ctx context.Context, r *run, _ []string) error { return r.regent(ctx, "pause", "--wait", scope) }},
		{Kinds: on, Form: "resume the cluster", Doc: "`regent resume`; with `--wait` only where all members live, so it doesn't wait.",
			do: func(ctx context.Context, r *run, _ []string) error { return r.regent(ctx, "resume", scope) }},
		{Kinds: on, Form: "set NAME=VALUE", Doc: "`regent edit-config`: one dynamic setting.",
			do: func(ctx context.Context, r *run, a []string) error { return r.set(ctx, a[0]) }},
	}
}

// scope is the cluster's name.
const scope = "demo"

// refusal is a command that ended with an error.
type refusal struct {
	command, said string
	cause         error
}

func (e *refusal) Error() string {
	return fmt.Sprintf("regent %s: %v: %s", e.command, e.cause, strings.TrimSpace(e.said))
}

func (r *run) switchover(ctx context.Context, from, to string) error {
	old, heir, err := r.two(from, to)
	if err != nil {
		return err
	}
	return r.regent(ctx, "switchover", "--leader", old.Name(), "--candidate", heir.Name(), "--force", scope)
}

func (r *run) set(ctx context.Context, setting string) error {
	return r.regent(ctx, "edit-config", "--force", "-s", setting, scope)
}

// regent runs the command line with the file of a node whose agent runs.
func (r *run) regent(ctx context.Context, args ...string) error {
	for _, n := range r.lab.cluster.Nodes() {
		if _, running := n.AgentPID(); !running || r.isFrozen(n) {
			continue
		}
		return r.lab.regent(ctx, n, args...)
	}
	return errors.New("no agent runs that could be asked")
}

func (l *lab) regent(ctx context.Context, n *sandbox.Node, args ...string) error {
	args = append([]string{args[0], "-c", n.ConfigFile()}, args[1:]...)
	cmd := exec.CommandContext(ctx, filepath.Join(l.opt.Bin, "regent"), args...)
	cmd.Dir = l.opt.Dir
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("regent %s: %w: %s", args[0], context.Cause(ctx), out)
	}
	if err != nil {
		return &refusal{command: args[0], said: string(out), cause: err}
	}
	return nil
}
