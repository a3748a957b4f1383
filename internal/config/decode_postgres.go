package config

import (
	"path/filepath"
	"strings"
	"time"
)

func decodePostgres(t *tree) Postgres {
	p := Postgres{
		ConfigBaseName:                     str(t.get("config_base_name"), "postgresql"),
		BinDir:                             str(t.get("bin_dir"), ""),
		PgPass:                             str(t.get("pgpass"), ""),
		Database:                           str(t.get("database"), "postgres"),
		UseUnixSocket:                      boolean(t.get("use_unix_socket"), false),
		UseUnixSocketRepl:                  boolean(t.get("use_unix_socket_repl"), false),
		Parameters:                         settingsOf(t.get("parameters")),
		PgHBA:                              linesOf(t.get("pg_hba")),
		PgIdent:                            linesOf(t.get("pg_ident")),
		CustomConf:                         str(t.get("custom_conf"), ""),
		RecoveryConf:                       settingsOf(t.get("recovery_conf")),
		UsePgRewind:                        boolean(t.get("use_pg_rewind"), false),
		UseSlots:                           boolean(t.get("use_slots"), true),
		RemoveDataDirectoryOnRewindFailure: boolean(t.get("remove_data_directory_on_rewind_failure"), false),
		RemoveDataDirectoryOnDiverged:      boolean(t.get("remove_data_directory_on_diverged_timelines"), false),
		PgCtlTimeout:                       seconds(t.get("pg_ctl_timeout"), 60*time.Second, atLeast(0)),
		CreateReplicaMethods:               stringsOf(t.get("create_replica_methods")),
		Callbacks:                          settingsOf(t.get("callbacks")),
		PrePromote:                         str(t.get("pre_promote"), ""),
		BeforeStop:                         str(t.get("before_stop"), ""),
	}
	if dir := str(t.get("data_dir"), ""); dir != "" {
		p.DataDir = filepath.Clean(dir)
	}
	p.ConfigDir = p.DataDir
	if dir := str(t.get("config_dir"), ""); dir != "" {
		p.ConfigDir = filepath.Clean(dir)
	}
	if len(p.CreateReplicaMethods) == 0 {
		p.CreateReplicaMethods = []string{"basebackup"}
	}
	if listen := address(t.get("listen"), Address{}); listen != (Address{}) {
		p.ListenAddresses, p.Port = listen.Host, listen.Port
		p.LocalHost = localHost(listen.Host)
		p.ConnectAddress = listen
	}
	p.ConnectAddress = address(t.get("connect_address"), p.ConnectAddress)
	p.ProxyAddress = address(t.get("proxy_address"), Address{})
	options, _ := readOptions(t.get("basebackup"))
	p.Basebackup, _ = splitOptions(options, refusedBasebackup)
	for _, program := range localIndex.children("postgresql.bin_name") {
		if name := str(t.at("bin_name."+program), program); name != program {
			if p.BinName == nil {
				p.BinName = map[string]string{}
			}
			p.BinName[program] = name
		}
	}
	auth := t.get("authentication")
	p.Superuser = decodeCredentials(auth.get("superuser"))
	p.Replication = decodeCredentials(auth.get("replication"))
	p.Rewind, p.HasRewind = p.Superuser, false
	if rewind := auth.get("rewind"); rewind != nil && rewind.kind == kindMap {
		p.Rewind, p.HasRewind = decodeCredentials(rewind), true
	}
	return p
}

// localHost chooses where the agent connects to when PostgreSQL listens on hosts.
func localHost(hosts string) string {
	first := ""
	for i, h := range strings.Split(hosts, ",") {
		h = strings.Trim(strings.TrimSpace(h), "[]")
		switch strings.ToLower(h) {
		case "*", "localhost":
			return "localhost"
		case "0.0.0.0":
			h = "127.0.0.1"
		case "::":
			h = "::1"
		}
		if i == 0 {
			first = h
		}
	}
	if first == "" {
		return "localhost"
	}
	return first
}

func decodeCredentials(t *tree) Credentials {
	get := func(name string) string { return str(t.get(name), "") }
	return Credentials{
		Username: get("username"), Password: secret(t.get("password")),
		SSLMode: get("sslmode"), SSLCert: get("sslcert"), SSLKey: get("sslkey"),
		SSLRootCert: get("sslrootcert"), SSLCRL: get("sslcrl"), SSLCRLDir: get("sslcrldir"),
		SSLPassword: secret(t.get("sslpassword")),
		GSSEncMode:  get("gssencmode"), ChannelBinding: get("channel_binding"), SSLNegotiation: get("sslnegotiation"),
	}
}

// settingsOf reads a mapping of scalars; nulls and nested values are left out, and so is
// primary_conninfo, which is always the agent's own and may hold a password.
func settingsOf(t *tree) map[string]string {
	if t == nil || t.kind != kindMap {
		return nil
	}
	m := make(map[string]string, len(t.keys))
	for _, e := range t.keys {
		if e.val.isScalar() && !strings.EqualFold(e.key, "primary_conninfo") {
			m[e.key] = settingText(e.val)
		}
	}
	return m
}

// settingText is a scalar as PostgreSQL wants it. YAML has already made a boolean of
// `on`, so a boolean becomes on or off again, which every GUC of type bool or enum knows.
func settingText(t *tree) string {
	switch t.kind {
	case kindBool:
		if t.b {
			return "on"
		}
		return "off"
	case kindInt, kindFloat:
		if t.num != "" {
			return t.num
		}
	}
	return t.text
}
