package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// HostOptions choose what CheckHost looks at.
type HostOptions struct {
	// IgnorePorts leaves out whether the ports are free, as for a node that runs.
	IgnorePorts bool
	// Path is searched for programs when bin_dir isn't set, as in $PATH.
	Path string
	// Unfinished: the data directory was left half-made by an agent, which knows what to
	// do with it.
	Unfinished bool
}

// CheckHost looks whether this machine has what the configuration counts on: programs,
// folders, certificates, names, free ports. It is for an agent that is about to start a
// PostgreSQL: one that comes back to a running server must take charge of that, whatever
// else is amiss.
func CheckHost(c *Config, o HostOptions) []Problem {
	v := validator{c: c, root: c.root}
	v.programs(o.Path)
	v.dataDirectory(o.Unfinished)
	v.resolvable()
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
// that looks like a cluster's, if PostgreSQL will take it.
func (v *validator) dataDirectory(unfinished bool) {
	const key = "postgresql.data_dir"
	dir := v.c.Postgres.DataDir
	if dir == "" {
		return
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.creatable(key, dir)
		return
	case err != nil:
		v.add(Error, key, "can't be read: "+reason(err), "give it to the agent's user, who is PostgreSQL's: chown -R USER "+dir)
		return
	case unfinished:
		return
	case len(entries) == 0:
		v.writable(key, dir)
		return
	}
	if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); err != nil {
		v.add(Error, key, fmt.Sprintf("holds files (%s) but is no data directory: it has no PG_VERSION", entries[0].Name()),
			"name an empty folder or a data directory; the agent never empties a folder that it didn't fill")
		return
	}
	info, err := os.Stat(dir)
	if err != nil {
		v.add(Error, key, "can't be looked at: "+reason(err), "")
		return
	}
	// PostgreSQL's own conditions (manual, section 19.2), which it tells only in its log.
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		v.add(Error, key, fmt.Sprintf("belongs to user %d, and the agent is user %d", st.Uid, os.Geteuid()),
			fmt.Sprintf("run the agent as the data directory's owner, or give it away: chown -R %d %s", os.Geteuid(), dir))
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		v.add(Error, key, fmt.Sprintf("has mode %04o, with which PostgreSQL doesn't start", mode), "chmod 0700 "+dir)
	}
}

// creatable looks at the deepest folder above that exists.
func (v *validator) creatable(key, path string) {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		_, err := os.Stat(dir)
		if err == nil {
			v.writable(key, dir)
			return
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			v.add(Error, key, "can't be made: "+dir+": "+reason(err), "make it for the agent's user, or name another")
			return
		}
	}
}

func (v *validator) writable(key, dir string) {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		v.add(Error, key, "can't be made or filled: "+dir+": "+err.Error(), "make it for the agent's user, or name another")
	}
}

// resolveWithin bounds all look-ups of names together.
const resolveWithin = 3 * time.Second

// resolvable warns of names that don't resolve: they may do so later, and others may see
// them where this machine doesn't.
func (v *validator) resolvable() {
	ctx, cancel := context.WithTimeout(context.Background(), resolveWithin)
	defer cancel()
	names := []struct {
		path string
		addr Address
	}{
		{"restapi.connect_address", v.c.REST.ConnectAddress},
		{"postgresql.connect_address", v.c.Postgres.ConnectAddress},
		{"raft.self_addr", v.c.Raft.SelfAddr},
	}
	for _, a := range v.c.Raft.PartnerAddrs {
		names = append(names, struct {
			path string
			addr Address
		}{"raft.partner_addrs", a})
	}
	for _, n := range names {
		if host := n.addr.Host; host == "" || host == "*" || net.ParseIP(host) != nil {
			continue
		}
		if _, err := net.DefaultResolver.LookupHost(ctx, n.addr.Host); err != nil {
			v.add(Warning, n.path, fmt.Sprintf("names a host that doesn't resolve here: %s: %s", n.addr.Host, lookupReason(err)),
				"correct the name, or make it known to the resolver (/etc/hosts, DNS)")
		}
	}
}

func lookupReason(err error) string {
	var d *net.DNSError
	if errors.As(err, &d) {
		return d.Err
	}
	return err.Error()
}

func (v *validator) ports() {
	raftKey := "raft.bind_addr"
	if v.root.at(raftKey) == nil {
		raftKey = "raft.self_addr"
	}
	for _, p := range []struct {
		path string
		addr Address
	}{
		{"restapi.listen", v.c.REST.Listen},
		{"postgresql.listen", Address{firstHost(v.c.Postgres.ListenAddresses), v.c.Postgres.Port}},
		{raftKey, v.raftListen()},
	} {
		if p.addr.Port == 0 {
			continue
		}
		if p.addr.Host == "*" {
			p.addr.Host = ""
		}
		l, err := net.Listen("tcp", net.JoinHostPort(p.addr.Host, fmt.Sprint(p.addr.Port)))
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			v.add(Error, p.path, fmt.Sprintf("is taken: another program listens on %s (another agent, or a PostgreSQL?)", p.addr),
				"stop it, or change "+p.path)
		case err != nil:
			v.add(Error, p.path, "can't be listened on: "+opReason(err), "name an address of this machine")
		default:
			if err := l.Close(); err != nil {
				v.add(Warning, p.path, "can't be closed: "+opReason(err), "")
			}
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
