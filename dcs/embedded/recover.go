package embedded

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/mono"
)

// The way out of a lost quorum: one node's copy becomes the whole cluster. Nothing in
// raft makes that safe. What the lost majority decided and this node never heard is
// forgotten, and if the majority isn't lost after all there are two stores, so two
// primaries. Only an operator can know, so nothing here happens by itself.

// Copy is what a raft folder holds.
type Copy struct {
	ID   string
	Name string
	// Term and Index of the last entry. Of several nodes' copies, the one with the highest
	// term has the most; in the same term, the one with the highest index.
	Term  uint64
	Index uint64
	// Revision of the content after that entry, whose end may never have been committed.
	Revision events.Revision
	// Holder is the value of the leader key; empty if there was none.
	Holder string
	Keys   int
	// Servers of the newest configuration.
	Servers []Server
}

// Inspect reads a raft folder that no agent uses. ErrFolderInUse: one does. ErrRefused:
// the folder holds nothing.
func Inspect(dir string, name events.NodeName) (Copy, error) {
	folder, err := openCopy(dir, name)
	if err != nil {
		return Copy{}, err
	}
	out, err := folder.read()
	return out, errors.Join(err, folder.close())
}

// Recover makes the copy in a raft folder, which no agent uses, a cluster of one server,
// which is reached at selfAddr. The server gets a new id: voters of the old cluster that
// come back are refused by it, and it by them. It returns what the folder holds then.
// When it fails or is interrupted, repeat it.
func Recover(dir string, name events.NodeName, selfAddr string) (Copy, error) {
	folder, err := openCopy(dir, name)
	if err != nil {
		return Copy{}, err
	}
	out, err := folder.recover(dir, name, selfAddr)
	return out, errors.Join(err, folder.close())
}

func openCopy(dir string, name events.NodeName) (*folder, error) {
	if !exists(filepath.Join(dir, logFile)) {
		return nil, fmt.Errorf("raft folder %s: %w: there is no copy of the store in it", dir, dcs.ErrRefused)
	}
	f, err := openFolder(dir, name, hclog.NewNullLogger())
	if err != nil {
		return nil, err
	}
	if f.fresh {
		return nil, errors.Join(fmt.Errorf("raft folder %s: %w: there is no copy of the store in it", dir, dcs.ErrRefused), f.close())
	}
	return f, nil
}

func (f *folder) recover(dir string, name events.NodeName, selfAddr string) (Copy, error) {
	id, err := newID(name)
	if err != nil {
		return Copy{}, err
	}
	held, err := f.read()
	if err == nil {
		err = replace(dir, held.Servers)
	}
	if err != nil {
		return Copy{}, fmt.Errorf("recover %s: %w: %w", dir, dcs.ErrBroken, err)
	}
	alone := raft.Configuration{Servers: []raft.Server{{ID: id, Address: raft.ServerAddress(selfAddr)}}}
	_, transport := raft.NewInmemTransport("")
	err = raft.RecoverCluster(offlineConfig(id), newReplica(mono.Now), f.logs, f.logs, f.snaps, transport, alone)
	err = errors.Join(err, transport.Close())
	if err != nil {
		return Copy{}, fmt.Errorf("recover %s: %w: %w", dir, dcs.ErrBroken, err)
	}
	// If this is not reached, the folder's server isn't one of its cluster: a start of
	// the agent finds itself outside, and another call goes on.
	if err := writeDurably(filepath.Join(dir, idFile), string(id)+"\n"); err != nil {
		return Copy{}, fmt.Errorf("recover %s: %w: %w", dir, dcs.ErrBroken, err)
	}
	f.id = id
	return f.read()
}

// read replays the folder into a machine of its own, and changes nothing.
func (f *folder) read() (Copy, error) {
	replica := newReplica(mono.Now)
	out := Copy{ID: string(f.id), Name: nameOf(f.id)}
	_, transport := raft.NewInmemTransport("")
	servers, err := raft.GetConfiguration(offlineConfig(f.id), replica, f.logs, f.logs, f.snaps, transport)
	err = errors.Join(err, transport.Close())
	if err != nil {
		return out, fmt.Errorf("read the copy: %w: %w", dcs.ErrBroken, err)
	}
	for _, server := range servers.Servers {
		out.Servers = append(out.Servers, serverOf(server))
	}
	// The snapshot is restored by now; what follows it is in the log.
	snaps, err := f.snaps.List()
	if err != nil {
		return out, fmt.Errorf("read the copy: %w: %w", dcs.ErrBroken, err)
	}
	if len(snaps) > 0 {
		out.Term, out.Index = snaps[0].Term, snaps[0].Index
	}
	last, err := f.logs.LastIndex()
	if err != nil {
		return out, fmt.Errorf("read the copy: %w: %w", dcs.ErrBroken, err)
	}
	for index := out.Index + 1; index <= last; index++ {
		var entry raft.Log
		if err := f.logs.GetLog(index, &entry); err != nil {
			return out, fmt.Errorf("read entry %d: %w: %w", index, dcs.ErrBroken, err)
		}
		if entry.Type == raft.LogCommand {
			replica.Apply(&entry)
		}
		out.Term, out.Index = entry.Term, entry.Index
	}
	v := replica.content()
	out.Revision, out.Keys, out.Holder = v.Revision, len(v.KVs), string(replica.holder())
	return out, nil
}

func offlineConfig(id raft.ServerID) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = id
	conf.NoLegacyTelemetry = true
	conf.Logger = hclog.NewNullLogger()
	return conf
}
