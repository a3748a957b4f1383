package embedded

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
)

// folder is the raft folder, locked for this process: the log, the votes, the
// snapshots, and the server's identity.
type folder struct {
	// logs also keeps raft's votes; the choice of log store is made here alone.
	logs  *raftboltdb.BoltStore
	snaps *raft.FileSnapshotStore
	id    raft.ServerID
	// fresh: there was no state when it was opened.
	fresh bool
	// replaced are the servers of the store whose place this one took; see Recover.
	replaced []raft.ServerID
}

const (
	logFile = "raft.db"
	idFile  = "server-id"
	// lockPatience is how long to wait for the folder's lock: a predecessor that was
	// just killed may take a moment to go.
	lockPatience = time.Second
)

// ErrFolderInUse is wrapped by Open's error when another process has the raft folder
// open, also when that process is stopped or hangs: the kernel keeps its lock.
var ErrFolderInUse = errors.New("another process, probably another agent of this member, is using the raft folder: " +
	"stop it (fuser RAFT-FOLDER/raft.db names it), or give this member a folder of its own in raft.data_dir")

func openFolder(dir string, name events.NodeName, logger hclog.Logger) (*folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("raft folder: %w: %w", dcs.ErrBroken, err)
	}
	// The database's lock is the folder's lock.
	logs, err := raftboltdb.New(raftboltdb.Options{
		Path:        filepath.Join(dir, logFile),
		BoltOptions: &bbolt.Options{Timeout: lockPatience, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true},
	})
	if errors.Is(err, bbolt.ErrTimeout) {
		return nil, fmt.Errorf("raft folder %s: %w: %w", dir, dcs.ErrBroken, ErrFolderInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("raft folder %s: %w: %w", dir, dcs.ErrBroken, err)
	}
	f := &folder{logs: logs}
	if err := f.fill(dir, name, logger); err != nil {
		return nil, errors.Join(fmt.Errorf("raft folder %s: %w: %w", dir, dcs.ErrBroken, err), logs.Close())
	}
	return f, nil
}

func (f *folder) fill(dir string, name events.NodeName, logger hclog.Logger) error {
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, logger)
	if err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	f.snaps = snaps
	state, err := raft.HasExistingState(f.logs, f.logs, snaps)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	f.fresh = !state
	if f.id, err = identity(filepath.Join(dir, idFile), name, f.fresh); err != nil {
		return err
	}
	f.replaced, err = replacedIDs(dir, f.id)
	return err
}

// identity reads the server's id, or makes one for a fresh folder. It is the name
// and a random part, so that a folder that was lost is another server, which can't
// vote in the old one's place (it forgot what the old one promised).
func identity(path string, name events.NodeName, fresh bool) (raft.ServerID, error) {
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		id := raft.ServerID(strings.TrimSpace(string(b)))
		if got := nameOf(id); got != string(name) {
			return "", fmt.Errorf("server id: the folder belongs to node %q, this is node %q", got, name)
		}
		return id, nil
	case !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("server id: %w", err)
	case !fresh:
		return "", fmt.Errorf("server id: %s is missing, but there is a raft log: the folder is damaged", idFile)
	}
	id, err := newID(name)
	if err != nil {
		return "", err
	}
	return id, writeDurably(path, string(id)+"\n")
}

// idTail is the length of what follows the name in a server id: a dash and a uuid.
const idTail = 37

func newID(name events.NodeName) (raft.ServerID, error) {
	var b [16]byte
	if _, err := io.ReadFull(rand.Reader, b[:]); err != nil {
		return "", fmt.Errorf("server id: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // version 4, variant 1
	return raft.ServerID(fmt.Sprintf("%s-%x-%x-%x-%x-%x", name, b[:4], b[4:6], b[6:8], b[8:10], b[10:])), nil
}

// nameOf is the node name in a server id.
func nameOf(id raft.ServerID) string {
	if len(id) <= idTail {
		return string(id)
	}
	return string(id[:len(id)-idTail])
}

// writeDurably makes the file appear whole or not at all, also after a power cut.
func writeDurably(path, content string) error {
	tmp := path + ".new"
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = file.WriteString(content)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (f *folder) close() error {
	if err := f.logs.Close(); err != nil {
		return fmt.Errorf("close raft folder: %w", err)
	}
	return nil
}
