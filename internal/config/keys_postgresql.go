package config

import "strings"

// postgresqlKeys are the keys of the postgresql section that may stand in the local
// file and in /config alike; the local one replaces the shared one (interfaces, 1.1).
func postgresqlKeys() []key {
	rows := []key{
		{path: "postgresql.parameters", typ: tSettings, doc: "PostgreSQL's settings. Shared and local ones merge, local wins; those that must agree in the cluster (`max_connections`, `wal_level`, …) count in `/config` only."},
		{path: "postgresql.pg_hba", typ: tLines, doc: "The complete pg_hba.conf."},
		{path: "postgresql.pg_ident", typ: tLines, doc: "The complete pg_ident.conf."},
		{path: "postgresql.custom_conf", typ: tPath, doc: "Included instead of postgresql.base.conf."},
		{path: "postgresql.recovery_conf", typ: tSettings, doc: "`restore_command` and other recovery settings. Recovery targets are ignored: a member follows the primary."},
		{path: "postgresql.use_pg_rewind", typ: tBool, def: "false", doc: "Repair a diverged data directory with pg_rewind."},
		{path: "postgresql.remove_data_directory_on_rewind_failure", typ: tBool, def: "false", doc: "Clone anew when pg_rewind fails."},
		{path: "postgresql.remove_data_directory_on_diverged_timelines", typ: tBool, def: "false", doc: "Clone anew when the data directory diverged and pg_rewind can't help."},
		{path: "postgresql.pg_ctl_timeout", typ: tSeconds, def: "60", limits: atLeast(0), doc: "Time to start or stop."},
		{path: "postgresql.create_replica_methods", typ: tStrings, def: "basebackup", status: notYet, doc: "Ways to make a replica, in order. This release clones by base backup."},
		{path: "postgresql.create_replica_method", typ: tStrings, status: notYet, doc: "Old name of create_replica_methods."},
		{path: "postgresql.basebackup", typ: tOptions, doc: "Options of pg_basebackup."},
		{path: "postgresql.rewind", typ: tOptions, status: notYet, doc: "Options of pg_rewind."},
		{path: "postgresql.callbacks", typ: tSection, doc: "Scripts run when PostgreSQL changes its state."},
		{path: "postgresql.pre_promote", typ: tString, status: promised, doc: "Script that may veto a promotion."},
		{path: "postgresql.before_stop", typ: tString, status: notYet, doc: "Script run before PostgreSQL is stopped."},
		{path: "postgresql.parameters_primary", typ: tSettings, status: notYet, doc: "Settings of the primary only."},
		{path: "postgresql.parameters_replica", typ: tSettings, status: notYet, doc: "Settings of replicas only."},
		{path: "postgresql.parameters_standby_leader", typ: tSettings, status: notYet, doc: "Settings of a standby cluster's leader only."},
	}
	for _, file := range []string{"pg_hba", "pg_ident"} {
		for _, role := range []string{"primary", "replica", "standby_leader"} {
			rows = append(rows, key{
				path: "postgresql." + file + "_" + role, typ: tLines, status: notYet,
				doc: "Replaces " + file + " for that role.",
			})
		}
	}
	for _, cb := range []string{"on_start", "on_stop", "on_restart", "on_reload", "on_role_change"} {
		rows = append(rows, key{path: "postgresql.callbacks." + cb, typ: tString, status: notYet, doc: "Script with arguments ACTION ROLE SCOPE."})
	}
	return rows
}

// localPostgresqlKeys count in the local file only.
func localPostgresqlKeys() []key {
	rows := []key{
		{path: "postgresql.listen", typ: tListen, env: "POSTGRESQL_LISTEN", doc: "Becomes listen_addresses and port. The first address is used for local connections. Required."},
		{path: "postgresql.connect_address", typ: tAddr, def: "= listen", env: "POSTGRESQL_CONNECT_ADDRESS", doc: "The address published to others."},
		{path: "postgresql.proxy_address", typ: tAddr, env: "POSTGRESQL_PROXY_ADDRESS", status: notYet, doc: "Address of a pooler, published as proxy_url."},
		{path: "postgresql.data_dir", typ: tPath, env: "POSTGRESQL_DATA_DIR", restart: true, doc: "The data directory. Required."},
		{path: "postgresql.config_dir", typ: tPath, def: "= data_dir", env: "POSTGRESQL_CONFIG_DIR", status: promised, restart: true, doc: "Where postgresql.conf and pg_hba.conf live."},
		{path: "postgresql.config_base_name", typ: tString, def: "postgresql", status: promised, restart: true, doc: "Name of the configuration file, without .conf."},
		{path: "postgresql.bin_dir", typ: tPath, def: "$PATH", env: "POSTGRESQL_BIN_DIR", doc: "PostgreSQL's programs."},
		{path: "postgresql.bin_name", typ: tSection, doc: "Other names of these programs."},
		{path: "postgresql.pgpass", typ: tPath, def: "RUN_DIR/pgpass", env: "POSTGRESQL_PGPASS", restart: true, doc: "Password file of the member's own connections. (Patroni's default is ~/pgpass, which two members of one user would share.)"},
		{path: "postgresql.database", typ: tString, def: "postgres", doc: "Database of the agent's connections."},
		{path: "postgresql.krbsrvname", typ: tString, status: notYet, doc: "Kerberos service name."},
		{path: "postgresql.authentication", typ: tSection, doc: "The roles that the agents use. superuser and replication are required."},
		{path: "postgresql.use_unix_socket", typ: tBool, def: "false", doc: "Connect locally through the first unix_socket_directories."},
		{path: "postgresql.use_unix_socket_repl", typ: tBool, def: "false", status: notYet, doc: "The same for local replication connections."},
		{path: "postgresql.use_slots", typ: tBool, status: moot, doc: "Counts in `/config` only."},
	}
	for _, bin := range []string{"pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready", "pg_rewind"} {
		rows = append(rows, key{
			path: "postgresql.bin_name." + bin, typ: tString, def: bin,
			env: "POSTGRESQL_BIN_" + strings.ToUpper(bin), status: notYet, doc: "Name of " + bin + ".",
		})
	}
	return rows
}

// authenticationKeys are the same three times (interfaces, 1.10).
func authenticationKeys() []key {
	var rows []key
	for _, role := range []struct{ name, doc string }{
		{"superuser", "Used for everything local. Made by initdb."},
		{"replication", "Used by replicas."},
		{"rewind", "Used by pg_rewind; without it the superuser is."},
	} {
		section := "postgresql.authentication." + role.name
		rows = append(rows, key{path: section, typ: tSection, doc: role.doc})
		for _, name := range credentialKeys() {
			k := key{path: section + "." + name, typ: tString, env: strings.ToUpper(role.name + "_" + name)}
			switch name {
			case "username":
				k.doc = "User."
			case "password", "sslpassword":
				k.typ, k.doc = tSecret, "Secret."
			default:
				k.doc = "libpq's parameter of that name."
			}
			rows = append(rows, k)
		}
	}
	return rows
}

func credentialKeys() []string {
	return strings.Fields("username password sslmode sslcert sslkey sslpassword sslrootcert sslcrl sslcrldir " +
		"gssencmode channel_binding sslnegotiation")
}
