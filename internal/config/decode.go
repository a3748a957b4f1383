package config

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/pgregent/regent/events"
)

// The decoders read a normalized tree into the structs. They are tolerant: a value of
// the wrong form leaves the default, and the checker reports it from the same tables.

func str(t *tree, def string) string {
	if s, ok := readText(t); ok {
		return s
	}
	return def
}

func boolean(t *tree, def bool) bool {
	if b, ok := readBool(t); ok {
		return b
	}
	return def
}

func seconds(t *tree, def time.Duration, l *limits) time.Duration {
	if d, ok := readSeconds(t); ok && (l == nil || d.Seconds() >= l.lo && d.Seconds() <= l.hi) {
		return d
	}
	return def
}

func size(t *tree, def int64, l *limits) int64 {
	if n, ok := readSize(t); ok && (l == nil || float64(n) >= l.lo && float64(n) <= l.hi) {
		return n
	}
	return def
}

func secret(t *tree) Secret {
	if s, ok := readText(t); ok {
		return NewSecret(s)
	}
	return Secret{}
}

func address(t *tree, def Address) Address {
	if s, ok := readText(t); ok {
		if a, ok := readAddress(s, 0); ok {
			return a
		}
	}
	return def
}

func stringsOf(t *tree) []string {
	s, _ := readStrings(t)
	return s
}

func linesOf(t *tree) []string {
	s, _ := readLines(t)
	return s
}

// word reads an enumeration by its row in a table.
func word(x *keyIndex, path string, t *tree) string {
	row, _ := x.row(path)
	if v := t.at(path); v != nil {
		if w, ok := readEnum(row, v); ok {
			return w
		}
	}
	return row.def
}

func decodeConfig(source string, root *tree) *Config {
	c := &Config{Source: source, root: root}
	c.Scope = str(root.get("scope"), "")
	c.Name = events.NodeName(str(root.get("name"), ""))
	c.Namespace = normalizeNamespace(str(root.get("namespace"), "service"))
	c.Log = decodeLog(root)
	c.Postgres = decodePostgres(root.get("postgresql"))
	c.Regent = decodeRegent(root, c.Postgres.DataDir)
	if c.Postgres.PgPass == "" && c.Regent.RunDir != "" {
		c.Postgres.PgPass = filepath.Join(c.Regent.RunDir, "pgpass")
	}
	c.REST = decodeREST(root.get("restapi"))
	c.Ctl = decodeCtl(root.get("ctl"), c.REST)
	c.Raft = decodeRaft(root, c.Regent.RunDir)
	c.Etcd3 = decodeEtcd3(root.get("etcd3"))
	c.Consul = decodeConsul(root.get("consul"))
	c.Bootstrap = decodeBootstrap(root.get("bootstrap"))
	c.Watchdog = decodeWatchdog(root)
	c.Tags = decodeTags(root.get("tags"))
	for _, name := range storeNames() {
		if root.get(name) != nil {
			c.Stores = append(c.Stores, name)
		}
	}
	if len(c.Stores) > 0 {
		c.Store = c.Stores[0]
	}
	return c
}

func normalizeNamespace(s string) string {
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == '/' })
	return "/" + strings.Join(parts, "/")
}

func decodeLog(root *tree) Log {
	level := word(localIndex, "log.level", root)
	switch level {
	case "WARN":
		level = "WARNING"
	case "FATAL":
		level = "CRITICAL"
	}
	return Log{Level: level, JSON: word(localIndex, "log.type", root) == "json"}
}

func decodeREST(t *tree) REST {
	r := REST{
		Listen:   address(t.get("listen"), Address{}),
		Auth:     decodeAuth(t.get("authentication")),
		CertFile: str(t.get("certfile"), ""),
		KeyFile:  str(t.get("keyfile"), ""),
		CAFile:   str(t.get("cafile"), ""),
	}
	r.ConnectAddress = address(t.get("connect_address"), r.Listen)
	return r
}

func decodeAuth(t *tree) BasicAuth {
	return BasicAuth{Username: str(t.get("username"), ""), Password: secret(t.get("password"))}
}

func decodeCtl(t *tree, rest REST) Ctl {
	c := Ctl{
		Auth:            decodeAuth(t.get("authentication")),
		Insecure:        boolean(t.get("insecure"), false),
		CACert:          str(t.get("cacert"), rest.CAFile),
		CertFile:        str(t.get("certfile"), ""),
		KeyFile:         str(t.get("keyfile"), ""),
		KeyFilePassword: secret(t.get("keyfile_password")),
	}
	if c.Auth.Username == "" {
		c.Auth = rest.Auth
	}
	return c
}

func decodeRaft(root *tree, runDir string) Raft {
	t, own := root.get("raft"), root.at("regent.raft")
	r := Raft{
		SelfAddr: address(t.get("self_addr"), Address{}),
		Password: secret(t.get("password")),
		DataDir:  str(t.get("data_dir"), ""),

		AcceptPassword: secret(own.get("accept_password")),
		CertFile:       str(own.get("certfile"), ""), KeyFile: str(own.get("keyfile"), ""), CAFile: str(own.get("cafile"), ""),
	}
	timing := func(name string, def time.Duration) time.Duration {
		row, _ := localIndex.row("regent.raft." + name)
		return seconds(own.get(name), def, row.limits)
	}
	r.HeartbeatTimeout = timing("heartbeat_timeout", 300*time.Millisecond)
	r.ElectionTimeout = max(timing("election_timeout", 300*time.Millisecond), r.HeartbeatTimeout)
	r.LeaderLeaseTimeout = min(timing("leader_lease_timeout", 300*time.Millisecond), r.HeartbeatTimeout)
	r.BindAddr = address(t.get("bind_addr"), r.SelfAddr)
	if r.DataDir == "" && runDir != "" {
		r.DataDir = filepath.Join(runDir, "raft")
	}
	for _, s := range stringsOf(t.get("partner_addrs")) {
		if a, ok := readAddress(s, 0); ok {
			r.PartnerAddrs = append(r.PartnerAddrs, a)
		}
	}
	return r
}

func decodeBootstrap(t *tree) Bootstrap {
	b := Bootstrap{
		Present:       t != nil,
		DCS:           []byte("{}"),
		Method:        str(t.get("method"), "initdb"),
		PgHBA:         linesOf(t.get("pg_hba")),
		PostBootstrap: str(t.get("post_bootstrap"), ""),
	}
	if dcs := t.get("dcs"); dcs != nil && dcs.kind == kindMap {
		b.DCS = appendJSON(nil, dcs)
	}
	options, _ := readOptions(t.get("initdb"))
	b.InitDB, _ = splitOptions(options, refusedInitDB)
	return b
}

func decodeWatchdog(root *tree) Watchdog {
	t := root.get("watchdog")
	w := Watchdog{Mode: "automatic", Device: str(t.get("device"), "/dev/watchdog"), SafetyMargin: 5 * time.Second}
	switch word(localIndex, "watchdog.mode", root) {
	case "off", "false", "disable", "disabled":
		w.Mode = "off"
	case "required", "require":
		w.Mode = "required"
	}
	if driver := str(t.get("driver"), "default"); driver != "default" {
		w.Driver = driver
	}
	if n, ok := readInt(t.get("safety_margin")); ok && n >= -1 && n < maxSeconds {
		w.SafetyMargin = time.Duration(n) * time.Second
	}
	return w
}

func decodeRegent(root *tree, dataDir string) Regent {
	t := root.get("regent")
	r := Regent{
		Fencing: Fencing(word(localIndex, "regent.fencing", root)),
		RunDir:  str(t.get("run_dir"), ""),
		Compat:  word(localIndex, "regent.compat", root),
	}
	if r.RunDir == "" && dataDir != "" {
		r.RunDir = dataDir + ".regent"
	}
	row, _ := localIndex.row("regent.journal.max_size")
	r.JournalMaxSize = size(t.at("journal.max_size"), 64<<20, row.limits)
	r.JournalDir = str(t.at("journal.dir"), "")
	if r.JournalDir == "" && r.RunDir != "" {
		r.JournalDir = filepath.Join(r.RunDir, "journal")
	}
	return r
}
