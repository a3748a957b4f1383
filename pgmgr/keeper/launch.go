package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// BinaryName is the keeper's program.
const BinaryName = "regent-keeper"

// Exit codes of `regent-keeper --detach`, which ends once the keeper serves.
const (
	ExitServing = 0
	// ExitFailed: the keeper could not be started; its error output says why.
	ExitFailed = 1
	// ExitUsage: a flag is wrong.
	ExitUsage = 2
	// ExitOccupied: a keeper has the run directory.
	ExitOccupied = 3
	// ExitElsewhere: a keeper with another run directory guards the data directory.
	ExitElsewhere = 4
)

// LaunchConfig says which keeper to connect to, and how to start it if there is none.
type LaunchConfig struct {
	// Binary is the keeper's program, see FindBinary.
	Binary string
	// RunDir holds the keeper's socket and lock, and must lie outside the data
	// directory. It is made, for its owner only, if it is missing.
	RunDir string
	// DataDir is the data directory that the keeper guards. It needn't exist yet.
	DataDir string
	// LogFile is the keeper's own log, appended. Empty: it writes none.
	LogFile string
}

// launchRetry is how soon a connection is tried again while another process is
// starting the same keeper.
const launchRetry = 5 * time.Millisecond

// Launch connects to the living keeper of c.RunDir, or starts one, detached from
// this process (a session of its own, no shared file but its log), and connects to
// it. A keeper of an older protocol that guards no server is replaced; one that does
// is taken as it is, and Client says what it can't do. ErrRefused: another keeper serves that data directory elsewhere, or the
// run directory's keeper serves another data directory. With no deadline in ctx it
// gives up after ten seconds.
func Launch(ctx context.Context, c LaunchConfig) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	replaced := false
	for {
		client, err := connectChecked(ctx, c)
		if err == nil && !replaced && client.retire(ctx) {
			replaced = true // once: the program on disk may be as old
			continue
		}
		if err == nil || !errors.Is(err, ErrUnavailable) {
			return client, err
		}
		err = spawn(ctx, c)
		if err != nil && !errors.Is(err, errOccupied) {
			return nil, err
		}
		if err == nil {
			continue
		}
		// The run directory is taken and nobody answers there: somebody else is
		// starting this keeper, or ending it. Both pass.
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("launch the keeper: %w: %w", ErrUnavailable, err)
		case <-time.After(launchRetry):
		}
	}
}

// retire ends a keeper of an older protocol that guards nothing, and reports whether it
// did; the client is closed then. It waits for the keeper to hang up: until then it could
// be found again.
func (c *Client) retire(ctx context.Context) bool {
	if c.protocol >= Protocol || c.Shutdown(ctx) != nil { // which is refused beside a server (S4)
		return false
	}
	select {
	case <-c.Done():
	case <-ctx.Done():
	}
	_ = c.Close() // it has ended, or is given up
	return true
}

// errOccupied: a keeper holds the run directory's lock.
var errOccupied = errors.New("run directory occupied")

// connectChecked connects and makes sure that it is this data directory's keeper.
func connectChecked(ctx context.Context, c LaunchConfig) (*Client, error) {
	want, err := Resolve(c.DataDir)
	if err != nil {
		return nil, fmt.Errorf("launch the keeper: %w: %w", ErrUnavailable, err)
	}
	// Look before taking over: another data directory's agent shall not be cut off.
	st, err := Peek(ctx, c.RunDir)
	if err != nil {
		return nil, err
	}
	if st.DataDir != want {
		return nil, fmt.Errorf("launch the keeper: %w: run directory %s belongs to the keeper (pid %d) of data directory %s",
			ErrRefused, c.RunDir, st.KeeperPID, st.DataDir)
	}
	return Connect(ctx, c.RunDir)
}

// spawn starts a keeper and returns when it serves. The process it starts is a
// go-between that ends at once, so that the keeper is nobody's child here and
// leaves no zombie when it ends.
func spawn(ctx context.Context, c LaunchConfig) error {
	args := []string{"--detach", "--run-dir", c.RunDir, "--data-dir", c.DataDir}
	if c.LogFile != "" {
		args = append(args, "--log", c.LogFile)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Binary, args...)
	cmd.Stderr = &stderr
	cmd.Dir = "/"
	// The agent's environment may hold passwords, and the keeper needs none of it.
	cmd.Env = []string{"GOTRACEBACK=all"}
	cmd.WaitDelay = time.Second // should a keeper ever keep the error output open
	err := cmd.Run()
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(stderr.String())
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case !ok:
		return fmt.Errorf("start %s: %w: %w", c.Binary, ErrUnavailable, err)
	case exit.ExitCode() == ExitOccupied:
		return fmt.Errorf("start %s: %w: %s", c.Binary, errOccupied, said)
	case exit.ExitCode() == ExitElsewhere:
		return fmt.Errorf("start %s: %w: %s", c.Binary, ErrRefused, said)
	default:
		return fmt.Errorf("start %s: %w: %w: %s", c.Binary, ErrUnavailable, err, said)
	}
}

// Resolve returns the path by which a data directory is known: absolute, without
// symbolic links as far as it exists (the kernel names working directories so).
func Resolve(dataDir string) (string, error) {
	abs, err := filepath.Abs(dataDir)
	if err != nil {
		return "", fmt.Errorf("resolve data directory %s: %w", dataDir, err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if err == nil {
		return real, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("resolve data directory %s: %w", dataDir, err)
	}
	if abs == filepath.Dir(abs) {
		return abs, nil
	}
	parent, err := Resolve(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(abs)), nil
}

// FindBinary finds the keeper's program: beside the agent's executable, as it was
// called and as its symbolic link resolves, else in PATH.
func FindBinary(agentExecutable string) (string, error) {
	dirs := []string{filepath.Dir(agentExecutable)}
	if real, err := filepath.EvalSymlinks(agentExecutable); err == nil {
		dirs = append(dirs, filepath.Dir(real))
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, BinaryName)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	path, err := exec.LookPath(BinaryName)
	if err != nil {
		return "", fmt.Errorf("find %s: not beside %s and not in PATH: install it beside the agent",
			BinaryName, agentExecutable)
	}
	return path, nil
}
