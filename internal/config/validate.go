package config

import (
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Support says what a build of the agent has.
type Support struct {
	// Stores are the names of the built-in stores' sections, e.g. raft.
	Stores []string
}

// Validate returns everything that is wrong with a configuration, ordered by place.
// It looks at nothing but its arguments; CheckHost looks at the machine.
//
// An agent refuses to start when Errors of the result isn't nil, and logs StartLines of
// it; `regent config validate` prints each problem and fails when the worst is a
// Warning or an Error. Notices are no reason to fail: the document that works with
// Patroni is allowed to hold what this release ignores.
func Validate(c *Config, s Support) []Problem {
	v := validator{c: c, root: c.root, problems: slices.Clone(c.problems)}
	local := checker{index: localIndex, skip: func(path string) bool {
		return slices.Contains(storeNames(), path) && (path != c.Store || !slices.Contains(s.Stores, path))
	}}
	local.section("", c.root)
	v.append(local.problems...)
	v.append(checkPromises(c.root, "", false)...)
	if dcs := c.root.at("bootstrap.dcs"); dcs != nil && dcs.kind == kindMap {
		v.append(checkDynamic(normalizeDynamic(dcs), "bootstrap.dcs.")...)
		v.timings()
	} else if !dcs.isNull() {
		v.add(Warning, "bootstrap.dcs", "is "+dcs.kind.String()+", not a mapping; it is ignored", "write `key: value` lines below it")
	}
	if pg := c.root.get("postgresql"); pg != nil && pg.kind == kindMap {
		v.append(checkLocalParameters(pg)...)
	}
	v.append(checkTags(c.root.get("tags"))...)
	v.required()
	v.names()
	v.addresses()
	v.store(s)
	v.target(s)
	v.options()
	v.folders()
	v.security()
	return ordered(v.problems)
}

// ordered sorts by place, findings without one last, and drops repetitions.
func ordered(ps []Problem) []Problem {
	sort.SliceStable(ps, func(i, j int) bool {
		a, b := ps[i], ps[j]
		switch {
		case (a.Line == 0) != (b.Line == 0):
			return a.Line != 0
		case a.Source != b.Source:
			return a.Source < b.Source
		case a.Line != b.Line:
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
	return slices.Compact(ps)
}

// StartLines turns problems into the lines that an agent logs when it starts: one for
// all known keys without effect, one for all unknown keys, then every Warning and every
// other Notice.
func StartLines(ps []Problem) []string {
	var ignored, unknown, lines []string
	for _, p := range ps {
		switch {
		case p.Severity == Error:
		case p.kind == notHonoured:
			ignored = append(ignored, p.Path)
		case p.kind == unknownKey:
			name := p.Path
			if p.Hint != "" {
				name += " (" + p.Hint + ")"
			}
			unknown = append(unknown, name)
		default:
			lines = append(lines, p.String())
		}
	}
	var out []string
	if len(ignored) > 0 {
		out = append(out, "settings without effect in this release: "+strings.Join(ignored, ", "))
	}
	if len(unknown) > 0 {
		out = append(out, "unknown settings, ignored: "+strings.Join(unknown, ", "))
	}
	return append(out, lines...)
}

// validator collects the rules that one row of the table can't express.
type validator struct {
	c        *Config
	root     *tree
	problems []Problem
}

func (v *validator) append(ps ...Problem) { v.problems = append(v.problems, ps...) }

// add notes a problem at the place of a path: its value, else the nearest section.
func (v *validator) add(sev Severity, path, message, hint string) {
	t, at := v.root, pos{Source: v.c.Source}
	for _, name := range strings.Split(path, ".") {
		if t = t.get(name); t == nil {
			at.Line, at.Column = 0, 0
			break
		}
		at = t.pos
	}
	p := problemAt(at, sev, path, message, hint)
	if row, ok := localIndex.row(path); ok && t.isScalar() && row.typ != tSecret {
		p.Value = t.display()
	}
	v.problems = append(v.problems, p)
}

func (v *validator) required() {
	for _, r := range []struct{ path, hint string }{
		{"scope", "name the cluster, for example `scope: pgsql`"},
		{"name", "name this member, for example `name: pg01`"},
		{"restapi.listen", "for example 0.0.0.0:8008"},
		{"postgresql.listen", "for example 0.0.0.0:5432"},
		{"postgresql.data_dir", "the data directory's absolute path"},
		{"postgresql.authentication.superuser", "give username and password"},
		{"postgresql.authentication.replication", "give username and password"},
	} {
		t := v.root.at(r.path)
		row, _ := localIndex.row(r.path)
		switch {
		case t.isNull() || t.isScalar() && t.text == "":
			v.add(Error, r.path, "is not defined", r.hint)
		case row.typ != tSection:
			if message, hint := conform(row, t); message != "" {
				v.drop(r.path)
				v.add(Error, r.path, message, hint)
			}
		}
	}
}

// drop removes the findings about a path that a stronger one replaces.
func (v *validator) drop(path string) {
	v.problems = slices.DeleteFunc(v.problems, func(p Problem) bool { return p.Path == path })
}

func (v *validator) names() {
	for _, n := range []struct{ path, value string }{{"scope", v.c.Scope}, {"name", string(v.c.Name)}} {
		if strings.Contains(n.value, "/") {
			v.add(Error, n.path, "contains a slash, which separates keys in the store", "use letters, digits, - and _")
		}
	}
	if v.c.Name == "__patroni_strict_sync_replica_placeholder__" {
		v.add(Error, "name", "is a reserved word", "choose another name")
	}
}

func (v *validator) addresses() {
	for _, a := range []struct {
		path, fallback string
		addr           Address
	}{
		{"restapi.connect_address", "restapi.listen", v.c.REST.ConnectAddress},
		{"postgresql.connect_address", "postgresql.listen", v.c.Postgres.ConnectAddress},
		{"postgresql.proxy_address", "", v.c.Postgres.ProxyAddress},
		{"raft.self_addr", "", v.c.Raft.SelfAddr},
	} {
		if a.addr == (Address{}) {
			continue
		}
		given := v.root.at(a.path)
		hint := "write the address under which the other members reach this one"
		switch host := strings.ToLower(a.addr.Host); {
		case host == "" || host == "*" || host == "0.0.0.0" || host == "::" || strings.Contains(host, ","):
			if given == nil {
				v.add(Warning, a.path, "is not defined, and "+a.fallback+" is no single address that others could use", hint)
				continue
			}
			v.add(severityOfAny(a.path), a.path, "is no address that others could use", hint)
		case given != nil && (host == "localhost" || strings.HasPrefix(host, "127.") || host == "::1"):
			v.add(Notice, a.path, "is reachable from this machine only", hint+", unless all members run here")
		}
	}
}

// severityOfAny: a voter without an address can't work, a member without one can.
func severityOfAny(path string) Severity {
	if path == "raft.self_addr" {
		return Error
	}
	return Warning
}

func (v *validator) store(s Support) {
	supported := strings.Join(s.Stores, ", ")
	if v.c.Store == "" {
		v.add(Error, "raft", "is not defined, nor is another store's section", "this build has: "+supported)
		return
	}
	for _, other := range v.c.Stores[1:] {
		v.add(Notice, other, "is ignored, the store of `"+v.c.Store+":` is used", "remove one of the two sections")
	}
	if !slices.Contains(s.Stores, v.c.Store) {
		v.add(Error, v.c.Store, "is a store that isn't built in", "this build has: "+supported)
		return
	}
	switch v.c.Store {
	case "raft":
		v.raft()
	case "etcd3":
		v.etcd3()
	case "consul":
		v.consul()
	}
}

func (v *validator) raft() {
	raft := v.root.get("raft")
	for _, path := range []string{"raft.self_addr", "raft.bind_addr"} {
		row, _ := localIndex.row(path)
		if t := v.root.at(path); !t.isNull() {
			if message, hint := conform(row, t); message != "" {
				v.drop(path)
				v.add(Error, path, message, hint)
			}
		}
	}
	seen, complete := map[Address]bool{}, true
	for _, s := range stringsOf(raft.get("partner_addrs")) {
		a, ok := readAddress(s, 0)
		complete = complete && ok
		if !ok {
			v.add(Error, "raft.partner_addrs", "holds "+strconv.Quote(s)+", which is not of the form host:port", "for example 10.0.0.2:2222")
			continue
		}
		if a != v.c.Raft.SelfAddr {
			seen[a] = true
		}
	}
	switch {
	case raft.get("self_addr").isNull() && len(seen) == 0:
		v.add(Error, "raft.self_addr", "is not defined, and there are no partners", "give self_addr on a node that votes, partner_addrs on one that doesn't")
	case complete && len(seen) == 1 && !raft.get("self_addr").isNull():
		v.add(Notice, "raft.partner_addrs", "makes two voters, which survive the loss of neither", "add a third node, for example a witness")
	}
	files := 0
	for _, f := range []string{v.c.Raft.CertFile, v.c.Raft.KeyFile, v.c.Raft.CAFile} {
		if f != "" {
			files++
		}
	}
	if files > 0 && files < 3 {
		v.add(Error, "regent.raft.certfile", "needs keyfile and cafile, and they it", "give all three, or none and raft.password")
	}
	if v.c.Raft.AcceptPassword.Reveal() != "" && v.c.Raft.Password.Reveal() == "" {
		v.add(Error, "regent.raft.accept_password", "is set without raft.password", "set raft.password to the secret that this node uses")
	}
	if v.c.Raft.Password.Reveal() == "" && files == 0 {
		v.add(Notice, "raft.password", "is not defined: the store's port speaks plain text and trusts everyone", "give all nodes the same long random word")
	}
	if lease := v.root.at("regent.raft.leader_lease_timeout"); lease != nil {
		if d, ok := readSeconds(lease); ok && d > v.c.Raft.HeartbeatTimeout {
			v.add(Warning, "regent.raft.leader_lease_timeout", "is longer than heartbeat_timeout, whose value is used", "set it no longer than heartbeat_timeout")
		}
	}
}

// timings checks bootstrap.dcs against the rules of its store.
func (v *validator) timings() {
	d := decodeDynamic(normalizeDynamic(v.root.at("bootstrap.dcs")))
	_, problems := d.Timings(TimingRule{Store: v.c.Store})
	for _, p := range problems {
		p.Path = "bootstrap.dcs." + p.Path
		v.problems = append(v.problems, p)
	}
}

func (v *validator) options() {
	for _, o := range []struct {
		path, refused string
		sev           Severity
	}{{"bootstrap.initdb", refusedInitDB, Error}, {"postgresql.basebackup", refusedBasebackup, Warning}} {
		all, _ := readOptions(v.root.at(o.path))
		if _, bad := splitOptions(all, o.refused); len(bad) > 0 {
			v.add(o.sev, o.path, "holds options that the agent sets itself: "+strings.Join(bad, ", "), "remove them")
		}
	}
}

func (v *validator) security() {
	rest := v.c.REST
	if (rest.Auth.Username == "") != (rest.Auth.Password.Reveal() == "") {
		v.add(Warning, "restapi.authentication", "needs both username and password; without one of them nothing is protected", "give both")
	}
	if rest.KeyFile != "" && rest.CertFile == "" {
		v.add(Warning, "restapi.keyfile", "has no effect without certfile: the server speaks plain HTTP", "give certfile too")
	}
	if v.c.Regent.Fencing == FencingOff {
		v.add(Notice, "regent.fencing", "lets a second primary appear when an agent dies or hangs", "use keeper")
	}
}
