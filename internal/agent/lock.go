package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Lock says that this process is the agent of a data directory.
type Lock struct{ l *net.UnixListener }

// LockDataDir takes the data directory for this agent, or says who has it. The lock
// is a Unix socket in the abstract namespace, named after the real path: the kernel
// frees it with the process, however that ends, and no file is left behind.
func LockDataDir(dir, name string) (*Lock, error) {
	socket, real, err := lockName(dir)
	if err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("lock data directory %s: another agent runs on it; stop that one, or give member %q "+
			"a data directory of its own (postgresql.data_dir)", real, name)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data directory %s: %w", real, err)
	}
	return &Lock{l: l}, nil
}

// lockName is the socket's name, and the path that it stands for.
func lockName(dir string) (socket, real string, err error) {
	if real, err = realPath(dir); err != nil {
		return "", "", fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	sum := sha256.Sum256([]byte(real))
	return "@regent-agent-" + hex.EncodeToString(sum[:12]), real, nil
}

// realPath resolves what exists of the path: the directory itself may be made later.
func realPath(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, os.ErrNotExist) && filepath.Dir(abs) != abs {
		parent, err := realPath(filepath.Dir(abs))
		if err != nil {
			return "", err
		}
		return filepath.Join(parent, filepath.Base(abs)), nil
	}
	return real, err
}

// Release frees the data directory.
func (l *Lock) Release() error { return l.l.Close() }
