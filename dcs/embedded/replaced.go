package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/pgregent/regent/dcs"
)

// A copy that was made the whole store (Recover) takes the place of a store whose other
// voters were given up for lost. If a majority of those comes back with its folders, it is
// a store as good as ever, by raft's rules: two stores, and two primaries. So the recovered
// folder keeps the ids of the servers that it took the place of, and whoever starts asks the
// others first: a replaced voter doesn't start, nor does the one that replaced a store which
// is alive. What a node can't reach, or meets only after its start, it doesn't see.

const replacedFile = "replaced-ids"

var errReplaced = errors.New("the store was recovered from another node's copy, and the voter of this folder counts as lost: with " +
	"it the old store could rise again beside the new one. Move the folder away, start, and add the node " +
	"(regent raft member add)")

var errNotLost = errors.New("the store that this folder was recovered to replace is alive: move the folder away to go on with that one " +
	"(then regent raft member remove, regent raft member add), or stop its voters and move their folders away to go on with this one")

// replacedIDs reads the servers that the folder's server took the place of. A recovery that
// was interrupted has replaced nothing: the folder's own id stands among them then.
func replacedIDs(dir string, self raft.ServerID) ([]raft.ServerID, error) {
	b, err := os.ReadFile(filepath.Join(dir, replacedFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("replaced servers: %w", err)
	}
	var ids []raft.ServerID
	for _, id := range strings.Fields(string(b)) {
		ids = append(ids, raft.ServerID(id))
	}
	if slices.Contains(ids, self) {
		return nil, nil
	}
	return ids, nil
}

// replace notes whose place is about to be taken, beside those of recoveries before.
func replace(dir string, servers []Server) error {
	ids, err := replacedIDs(dir, "")
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, server := range servers {
		if id := raft.ServerID(server.ID); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		fmt.Fprintln(&text, id)
	}
	return writeDurably(filepath.Join(dir, replacedFile), text.String())
}

// contradicted says why a server of this folder must not start, after what a partner told.
func (f *folder) contradicted(h *hello) error {
	switch {
	case slices.Contains(h.Replaced, f.id):
		return fmt.Errorf("%w: %w (%s has taken its place)", dcs.ErrBroken, errReplaced, h.Addr)
	case h.Leader != "" && slices.Contains(f.replaced, h.Leader):
		return fmt.Errorf("%w: %w (%s follows %s)", dcs.ErrBroken, errNotLost, h.Addr, h.Leader)
	default:
		return nil
	}
}
