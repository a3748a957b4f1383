package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgregent/regent/fsm"
	"github.com/pgregent/regent/internal/agent"
	"github.com/pgregent/regent/internal/config"
)

// An upgrade replaces the agent's program in place: same pid, PostgreSQL and keeper
// untouched, the lease adopted by the new program (S10, "Identities"). Nothing is handed
// over but the files and the keeper's socket; the keeper's deadline stands meanwhile, so
// a new program that never gets there costs the primary, and never makes a second one.
//
//	SIGUSR2 ─▶ check: does the new program run, and take this file? ─no─▶ log, tell, go on
//	             │ yes
//	             ▼
//	           end the loop as a crash would, close journal, store, sockets
//	             ▼
//	           execve(2) ─fails─▶ start again as we are

// errUpgrade is the cause with which the loop is ended for the new program.
var errUpgrade = errors.New("upgrade")

// The patience of an upgrade.
const (
	checkWithin  = 20 * time.Second // for the new program to say that it would start
	takenWithin  = 45 * time.Second // for the agent to obey, the check included
	servedWithin = 30 * time.Second // for the new program to be at work
)

// program is the path at which the agent was started, and at which the new one will be
// looked for. Symbolic links stay: changing one is a way to install.
func program() (string, error) {
	name := os.Args[0]
	if !strings.ContainsRune(name, filepath.Separator) {
		found, err := exec.LookPath(name)
		if err != nil {
			found, err = os.Executable()
		}
		if err != nil {
			return "", fmt.Errorf("find the running program: %w", err)
		}
		name = found
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", fmt.Errorf("find the running program: %w", err)
	}
	return abs, nil
}

// checkProgram asks the program at the path whether it would start with this
// configuration, and which version it is.
func checkProgram(ctx context.Context, path, file string) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	say := func(args ...string) (string, error) {
		// Under the name regent: the program is another thing when it is called patroni.
		cmd := exec.CommandContext(ctx, path)
		cmd.Args = append([]string{"regent"}, args...)
		cmd.WaitDelay = time.Second
		out, err := cmd.CombinedOutput()
		said := string(bytes.TrimSpace(out))
		if err != nil {
			_, last, found := strings.Cut(said, "Error: ") // warnings come before it
			if !found {
				last = said
			}
			err = fmt.Errorf("%s %s: %w", path, strings.Join(args, " "), err)
			switch {
			case errors.Is(ctx.Err(), context.DeadlineExceeded):
				err = fmt.Errorf("%w: no answer within %s", err, checkWithin)
			case last != "":
				err = fmt.Errorf("%w: %s", err, last)
			}
			return "", err
		}
		return said, nil
	}
	said, err := say("version")
	if err != nil {
		return "", err
	}
	version, ok := strings.CutPrefix(said, "regent version ")
	if !ok {
		return "", fmt.Errorf("%s is not regent: asked for its version it says %q", path, said)
	}
	args := []string{"agent", "--check"}
	if file != "" {
		args = append(args, file)
	}
	if _, err := say(args...); err != nil {
		return "", err
	}
	return version, nil
}

// upgradable says why this is not the moment, empty if it is.
func upgradable(s *fsm.State) string {
	steady := []fsm.Phase{fsm.Init, fsm.Joining, fsm.Following, fsm.Leading, fsm.Rejoining, fsm.Reviving}
	switch {
	case s.Shutdown != "":
		return "the agent is stopping"
	case s.Op != nil:
		return fmt.Sprintf("an operation is under way (%s)", s.Op.Kind)
	case !slices.Contains(steady, s.Phase):
		return fmt.Sprintf("the member is %s", s.Phase)
	case s.Phase == fsm.Leading && (s.Store.DownSince != 0 || s.Lease.Failures > 0):
		return "the store doesn't answer, and a new agent could not renew the lease"
	}
	return ""
}

// ask leaves a request, unless one is waiting already.
func ask(upgrade chan<- struct{}) {
	select {
	case upgrade <- struct{}{}:
	default:
	}
}

// upgrades carries out the requests for one. It ends the agent's loop, by stop, when the
// new program has passed its check.
func (d *daemon) upgrades(ctx context.Context, a *agent.Agent, stop context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.upgrade:
		}
		waiting := d.lock.Waiting()
		next, err := checkProgram(ctx, d.program, d.path)
		if err == nil {
			if why := upgradable(a.Snapshot()); why != "" {
				err = fmt.Errorf("not now: %s: try again", why)
			}
		}
		if err == nil {
			d.waiting = waiting
			d.log.Info("upgrading: another program takes over, PostgreSQL runs on", "version", next, "program", d.program)
			stop(errUpgrade)
			return
		}
		if ctx.Err() == nil {
			d.log.Error("the agent is not upgraded and goes on as it is", "err", err)
			agent.Tell(waiting, err.Error())
		}
	}
}

// replace becomes the new program, which those who wait see by their connections' end. It
// returns only on failure.
func (d *daemon) replace() {
	err := syscall.Exec(d.program, os.Args, d.environ)
	d.log.Error("the new program can't be executed; this one starts again", "program", d.program, "err", err)
	agent.Tell(d.waiting, fmt.Sprintf("execute %s: %v", d.program, err))
}

func upgradeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "upgrade CONFIG",
		Short: "Put the installed program in the running agent's place, PostgreSQL untouched",
		Long: "Put the installed program in the place of the agent that runs on this machine with CONFIG: same process id, keeper\n" +
			"and PostgreSQL untouched, the leader lease adopted. The new program must run and accept CONFIG; otherwise the old\n" +
			"agent goes on and the reason is printed. It is what SIGUSR2 does. To be run as the agent's user, or as root.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := named(cmd, args)
			c, err := config.Load(path, os.Environ())
			if err != nil {
				return err
			}
			return requestUpgrade(cmd.Context(), c, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringP(fileFlag, "c", "", "the same as CONFIG, as with the other operator's commands")
	return cmd
}

const fileFlag = "config-file"

// named is the file that a command was given: as its argument, or by -c behind the
// command or before it, where the program itself has that option.
func named(cmd *cobra.Command, args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	for _, at := range []*cobra.Command{cmd, cmd.Root()} {
		if f := at.Flags().Lookup(fileFlag); f != nil && f.Changed {
			return f.Value.String()
		}
	}
	return ""
}

// requestUpgrade signals the agent that works with the configuration, and waits for what
// comes of it.
func requestUpgrade(ctx context.Context, c *config.Config, out io.Writer) error {
	holder, err := agent.FindHolder(ctx, c.Postgres.DataDir)
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	defer func() { _ = holder.Close() }()
	if err := syscall.Kill(holder.PID, syscall.SIGUSR2); err != nil {
		return fmt.Errorf("upgrade: signal the agent (pid %d): %w: run this as the agent's user", holder.PID, err)
	}
	refusal, err := holder.Wait(ctx, takenWithin)
	switch {
	case err != nil:
		return fmt.Errorf("upgrade: the agent (pid %d) doesn't answer: look at its log: %w", holder.PID, err)
	case refusal != "":
		return fmt.Errorf("upgrade: the agent (pid %d) goes on as it is: %s", holder.PID, refusal)
	}
	if err := awaitService(ctx, holder.PID, c.REST.ConnectAddress.String()); err != nil {
		return err
	}
	// The program that the kernel runs, not whatever is at the path by now.
	running := exec.CommandContext(ctx, fmt.Sprintf("/proc/%d/exe", holder.PID))
	running.Args = []string{"regent", "version"}
	said, err := running.Output()
	if err != nil {
		return fmt.Errorf("upgrade: ask the agent's program (pid %d) for its version: %w", holder.PID, err)
	}
	_, err = fmt.Fprintf(out, "The agent (pid %d) is now %s.\n", holder.PID, bytes.TrimSpace(said))
	return err
}

// awaitService returns when the process listens for REST requests, the last thing that an
// agent does before its work begins.
func awaitService(ctx context.Context, pid int, address string) error {
	ctx, cancel := context.WithTimeout(ctx, servedWithin)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		if gone := syscall.Kill(pid, 0); errors.Is(gone, syscall.ESRCH) {
			return errors.New("upgrade: the new program has ended: look at its log, and start the agent before its lease ends")
		}
		retry := time.NewTimer(20 * time.Millisecond)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return fmt.Errorf("upgrade: the new program (pid %d) has not begun to work: look at its log: %w", pid, err)
		}
	}
}
