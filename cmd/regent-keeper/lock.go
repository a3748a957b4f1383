package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pgregent/regent/pgmgr/keeper"
)

var (
	errOccupied  = errors.New("run directory occupied")
	errElsewhere = errors.New("guarded from another run directory")
)

// lockRunDir makes the run directory if it is missing, judges it, and takes its
// lock, which is held as long as the returned file is open.
func lockRunDir(runDir, dataDir string) (*os.File, error) {
	real, err := keeper.Resolve(runDir)
	if err != nil {
		return nil, err
	}
	if inside(real, dataDir) {
		return nil, fmt.Errorf("run directory %s lies in data directory %s, whose content base backup and rewind replace: choose another",
			runDir, dataDir)
	}
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	info, err := os.Stat(runDir)
	if err != nil {
		return nil, fmt.Errorf("look at run directory: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != uint32(os.Geteuid()) || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("run directory %s must belong to the keeper's user and be writable by nobody else: %s",
			runDir, info.Mode())
	}
	path := filepath.Join(runDir, "keeper.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		said, _ := os.ReadFile(path) // for the sentence only
		_ = f.Close()                // nothing was written
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("%w: a keeper serves run directory %s already (%s)",
				errOccupied, runDir, strings.ReplaceAll(strings.TrimSpace(string(said)), "\n", ", data directory "))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(f, "pid %d\n%s\n", os.Getpid(), dataDir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	return f, nil
}

// inside reports whether dir is parent or lies below it.
func inside(dir, parent string) bool {
	return dir == parent || strings.HasPrefix(dir, strings.TrimSuffix(parent, "/")+"/")
}

// lockExisting locks the data directory from the keeper's start on, if there is
// one; it needn't be there before PostgreSQL is started.
func lockExisting(g *guard) error {
	if _, err := os.Stat(g.dataDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := g.lockDataDir(); err != nil {
		return fmt.Errorf("%w: %w", errElsewhere, err)
	}
	return nil
}

// listen opens the socket for its owner only. The lock on the run directory is
// held, so a socket that is there is a dead keeper's.
func listen(runDir string) (*net.UnixListener, error) {
	path, err := keeper.SocketPath(runDir)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the dead socket: %w", err)
	}
	old := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on the keeper's socket: %w", err)
	}
	return l, nil
}
