package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// maxSocketPath is what fits into a Unix socket address.
const maxSocketPath = 107

// longestSocket is the longest name of a socket that may lie in the run folder:
// PostgreSQL's own. The keeper's is shorter.
const longestSocket = ".s.PGSQL.65535"

// folders checks where things lie: base backup and rewind copy or delete what is in the
// data directory, so nothing of the agent's may be there (architecture, section 7).
func (v *validator) folders() {
	data := v.c.Postgres.DataDir
	if data == "" {
		return
	}
	if !filepath.IsAbs(data) {
		v.add(Warning, "postgresql.data_dir", "is a relative path, which depends on where the agent is started", "write an absolute path")
	}
	if data == "/" {
		v.add(Error, "postgresql.data_dir", "is the root folder", "write the data directory's path")
		return
	}
	for _, f := range []struct{ path, dir string }{
		{"regent.run_dir", v.c.Regent.RunDir},
		{"regent.journal.dir", v.c.Regent.JournalDir},
		{"raft.data_dir", v.c.Raft.DataDir},
	} {
		if f.path != "regent.run_dir" && v.root.at(f.path) == nil {
			continue // it follows the run folder
		}
		if f.dir != "" && within(f.dir, data) && (f.path != "raft.data_dir" || v.c.Store == "raft") {
			v.add(Error, f.path, "lies in the data directory, where base backup and pg_rewind copy or delete it",
				"choose a folder beside it, for example "+data+".regent")
		}
		if f.dir != "" && f.dir != data && within(data, f.dir) && f.path != "regent.run_dir" {
			v.add(Error, f.path, "contains the data directory", "choose a folder of its own")
		}
	}
	if v.c.Postgres.ConfigDir != data {
		v.add(Error, "postgresql.config_dir",
			"is not implemented in this release: PostgreSQL would run with the files in data_dir instead", "move them there, and remove the key")
	}
	if n := len(filepath.Join(v.c.Regent.RunDir, longestSocket)); n > maxSocketPath {
		v.add(Error, "regent.run_dir",
			fmt.Sprintf("is %d bytes too long: a socket's path has at most %d", n-maxSocketPath, maxSocketPath), "set regent.run_dir to a short path, for example /run/regent/"+v.c.Scope)
	}
}

// within reports whether dir is parent or below it, by their names alone.
func within(dir, parent string) bool {
	rel, err := filepath.Rel(parent, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
