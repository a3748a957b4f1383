package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// HostOptions choose what CheckHost looks at.
type HostOptions struct {
	// IgnorePorts leaves out whether the ports are free, as for a node that runs.
	IgnorePorts bool
	// Path is searched for programs when bin_dir isn't set, as in $PATH.
	Path string
}

// CheckHost looks whether this machine has what the configuration counts on: programs,
// folders, certificates, free ports. `regent agent --check` adds it to Validate; a start
// doesn't, because an agent that comes back to a running PostgreSQL must take charge of it
// whatever else is amiss, and each verb says better what it misses when it misses it.
func CheckHost(c *Config, o HostOptions) []Problem {
	v := validator{c: c, root: c.root}
	v.programs(o.Path)
	v.dataDirectory()
	for _, f := range []struct{ path, file string }{
		{"restapi.certfile", c.REST.CertFile},
		{"restapi.keyfile", c.REST.KeyFile},
		{"restapi.cafile", c.REST.CAFile},
		{"ctl.cacert", str(c.root.at("ctl.cacert"), "")},
		{"ctl.certfile", c.Ctl.CertFile},
		{"ctl.keyfile", c.Ctl.KeyFile},
		{"postgresql.custom_conf", absolute(c.Postgres.CustomConf)},
	} {
		if f.file == "" {
			continue
		}
		if file, err := os.Open(f.file); err != nil {
			v.add(Error, f.path, "can't be opened: "+reason(err), "name a file that the agent's user may read")
		} else if err := file.Close(); err != nil {
			v.add(Warning, f.path, "can't be closed: "+reason(err), "")
		}
	}
	if !o.IgnorePorts {
		v.ports()
	}
	return ordered(v.problems)
}

// absolute leaves out what PostgreSQL reads relative to its own folder.
func absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return ""
}

// reason is the system's word for an error, without the path that the message has.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

func (v *validator) programs(searchPath string) {
	pg := v.c.Postgres
	folders := filepath.SplitList(searchPath)
	where := "in $PATH"
	if pg.BinDir != "" {
		info, err := os.Stat(pg.BinDir)
		switch {
		case err != nil:
			v.add(Error, "postgresql.bin_dir", "can't be read: "+reason(err), "name the folder with postgres in it")
			return
		case !info.IsDir():
			v.add(Error, "postgresql.bin_dir", "is not a folder", "name the folder with postgres in it")
			return
		}
		folders, where = []string{pg.BinDir}, "in it"
	}
	var missing []string
	for _, program := range []string{"postgres", "initdb", "pg_ctl", "pg_controldata", "pg_basebackup", "pg_rewind", "pg_isready"} {
		name := program
		if other, ok := pg.BinName[program]; ok {
			name = other
		}
		if !executableIn(folders, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		v.add(Error, "postgresql.bin_dir", "lacks "+strings.Join(missing, ", ")+": not found "+where,
			"install PostgreSQL's server package, or set bin_dir to its programs")
	}
}

func executableIn(folders []string, name string) bool {
	for _, dir := range folders {
		info, err := os.Stat(filepath.Join(dir, name))
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

// dataDirectory accepts one that is absent or empty, for the agent to fill, and one
// that looks like a cluster's.
func (v *validator) dataDirectory() {
	dir := v.c.Postgres.DataDir
	if dir == "" {
		return
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		v.add(Error, "postgresql.data_dir", "can't be read: "+reason(err), "name a folder that belongs to the agent's user")
	case len(entries) == 0:
	default:
		for _, name := range []string{"PG_VERSION", "global/pg_control", "pg_wal"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				v.add(Error, "postgresql.data_dir", "holds files but doesn't look like a data directory: no "+name,
					"name an empty folder or a data directory; the agent never empties a folder it didn't fill")
				return
			}
		}
	}
}

func (v *validator) ports() {
	for _, p := range []struct {
		path string
		addr Address
	}{
		{"restapi.listen", v.c.REST.Listen},
		{"postgresql.listen", Address{firstHost(v.c.Postgres.ListenAddresses), v.c.Postgres.Port}},
		{"raft.bind_addr", v.raftListen()},
	} {
		if p.addr.Port == 0 {
			continue
		}
		if p.addr.Host == "*" {
			p.addr.Host = ""
		}
		l, err := net.Listen("tcp", net.JoinHostPort(p.addr.Host, fmt.Sprint(p.addr.Port)))
		if err != nil {
			v.add(Error, p.path, "can't be listened on: "+opReason(err), "stop what uses it, or choose another address")
			continue
		}
		if err := l.Close(); err != nil {
			v.add(Warning, p.path, "can't be closed: "+opReason(err), "")
		}
	}
}

func (v *validator) raftListen() Address {
	if v.c.Store != "raft" {
		return Address{}
	}
	return v.c.Raft.BindAddr
}

func firstHost(hosts string) string {
	first, _, _ := strings.Cut(hosts, ",")
	return strings.TrimSpace(first)
}

func opReason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}
