package stores

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgregent/regent/events"
	"github.com/pgregent/regent/internal/config"
)

// Describe names a store in public words, the same on every member.
func Describe(c *config.Config) string {
	where := ""
	switch c.Store {
	case "raft":
		where = strings.Join(voters(c), ",")
	case "etcd3":
		ends := slices.Sorted(slices.Values(c.Etcd3.Endpoints))
		if c.Etcd3.SRV != "" {
			ends = []string{"srv:" + c.Etcd3.SRV}
		}
		where = strings.Join(ends, ",")
	case "consul":
		if where = c.Consul.URL; where == "" {
			where = c.Consul.Host
		}
	}
	return strings.TrimSpace(c.Store + " " + where)
}

func voters(c *config.Config) []string {
	var out []string
	for _, a := range append(slices.Clone(c.Raft.PartnerAddrs), c.Raft.SelfAddr) {
		if a != (config.Address{}) {
			out = append(out, a.String())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Digest tells whether two members mean the same store with the same secrets, without
// telling any: it is keyed by something that is used once.
func Digest(c *config.Config, key string) string {
	h := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(h, "%q %q %q ", Describe(c), c.Namespace, c.Scope)
	switch c.Store {
	case "raft":
		fmt.Fprintf(h, "%q", c.Raft.Password.Reveal())
	case "etcd3":
		fmt.Fprintf(h, "%q %q", c.Etcd3.Username, c.Etcd3.Password.Reveal())
	case "consul":
		fmt.Fprintf(h, "%q", c.Consul.Token.Reveal())
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Moved is what a member remembers of the last move between stores: its file names the
// store that was left until somebody changes it.
type Moved struct {
	// Epoch of the move, as read in the store that was left.
	Epoch string `json:"epoch"`
	// From and To are the file's own section, and its target, as they were then.
	From string `json:"from"`
	To   string `json:"to"`
	// Base is what the stores that were left had reached: the keeper has seen their revisions.
	Base events.Revision `json:"base"`
}

// movedFile is where it is remembered, in regent.run_dir.
const movedFile = "store.json"

// ReadMoved reads what is remembered; the zero value: nothing.
func ReadMoved(runDir string) (Moved, error) {
	b, err := os.ReadFile(filepath.Join(runDir, movedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Moved{}, nil
	}
	if err != nil {
		return Moved{}, fmt.Errorf("read which store the cluster was moved to: %w", err)
	}
	var m Moved
	if err := json.Unmarshal(b, &m); err != nil {
		return Moved{}, fmt.Errorf("read which store the cluster was moved to: %s: %w", movedFile, err)
	}
	return m, nil
}

// Write remembers it.
func (m Moved) Write(runDir string) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("remember which store the cluster was moved to: %w", err)
	}
	path := filepath.Join(runDir, movedFile)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("remember which store the cluster was moved to: %w", err)
	}
	return nil
}

// InForce is the configuration with the store that decides, as far as this member
// remembers: the file's own, unless the cluster was moved away from that one.
func (m Moved) InForce(file *config.Config) (*config.Config, error) {
	if m.Epoch == "" || Describe(file) != m.From {
		return file, nil
	}
	target, ok := file.Target()
	if !ok || Describe(target) != m.To {
		return nil, fmt.Errorf("the file names the store %q, from which the cluster has been moved to %q: put the section of that "+
			"one in its place (docs/operations/move-between-stores.md)", m.From, m.To)
	}
	return target, nil
}
