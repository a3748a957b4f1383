package config

// The settings of the local file, but for the postgresql section (keys_postgresql.go).

func globalKeys() []key {
	return []key{
		{path: "scope", typ: tString, env: "SCOPE", restart: true, doc: "The cluster's name, the same on every member. Also PostgreSQL's `cluster_name`. Required."},
		{path: "name", typ: tString, env: "NAME", restart: true, doc: "This member's name, unique in its cluster; the `application_name` of its walreceiver. Required."},
		{path: "namespace", typ: tString, def: "/service", env: "NAMESPACE", restart: true, doc: "Where in the store the clusters live. Doubled and outer slashes don't matter."},
		{path: "thread_pool_size", typ: tInt, env: "THREAD_POOL_SIZE", status: moot, doc: "Threads of Patroni's runtime."},
		{path: "thread_stack_size", typ: tSize, env: "THREAD_STACK_SIZE", status: moot, doc: "Threads of Patroni's runtime."},
		{path: "citus", typ: tFree, status: promised, restart: true, doc: "Citus clusters."},
		{path: "log", typ: tSection, doc: "What is logged, and where."},
		{path: "restapi", typ: tSection, doc: "The HTTP server for health checks and operators."},
		{path: "ctl", typ: tSection, doc: "How the operator's tool, and agents among each other, call that server."},
		{path: "bootstrap", typ: tSection, doc: "How a new cluster comes into being. Only a member with this section creates one."},
		{path: "postgresql", typ: tSection, doc: "The PostgreSQL of this member."},
		{path: "watchdog", typ: tSection, doc: "The kernel's watchdog device."},
		{path: "tags", typ: tSection, doc: "Properties of this member, published to the others."},
		{path: "regent", typ: tSection, doc: "Settings that Patroni doesn't have and ignores."},
		{path: "watchdog.mode", typ: tEnum, def: "automatic", enum: []string{"off", "false", "disable", "disabled", "automatic", "auto", "required", "require"}, doc: "`automatic` uses a device that works, `required` lets only a node with one become the primary."},
		{path: "watchdog.device", typ: tPath, def: "/dev/watchdog", doc: "The device; PostgreSQL's user must be able to write to it."},
		{path: "watchdog.safety_margin", typ: tInt, def: "5", limits: atLeast(-1), doc: "Seconds between the device's timeout and ttl; -1 is half of ttl."},
		{path: "watchdog.driver", typ: tEnum, def: "default", enum: []string{"default", "testing"}, doc: "`default` is Linux's interface. `testing` writes what would happen to a named pipe, and resets nothing."},
	}
}

func logKeys() []key {
	levels := []string{"DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL"}
	return []key{
		{path: "log.level", typ: tEnum, def: "INFO", env: "LOG_LEVEL", enum: levels, doc: "The least important level that is logged."},
		{path: "log.type", typ: tEnum, def: "plain", env: "LOG_TYPE", enum: []string{"plain", "json"}, doc: "`plain` text or one JSON object per line."},
		{path: "log.traceback_level", typ: tEnum, env: "LOG_TRACEBACK_LEVEL", enum: levels, status: moot, doc: "Stack traces of Patroni's runtime."},
		{path: "log.format", typ: tFree, env: "LOG_FORMAT", status: notYet, doc: "Template of a line."},
		{path: "log.dateformat", typ: tString, env: "LOG_DATEFORMAT", status: notYet, doc: "Template of a time."},
		{path: "log.static_fields", typ: tSettings, env: "LOG_STATIC_FIELDS", status: notYet, doc: "Fields added to every JSON record."},
		{path: "log.max_queue_size", typ: tInt, env: "LOG_MAX_QUEUE_SIZE", status: moot, doc: "Queue of Patroni's logging thread."},
		{path: "log.dir", typ: tPath, env: "LOG_DIR", status: notYet, doc: "Folder of log files; unset: stderr."},
		{path: "log.mode", typ: tString, env: "LOG_MODE", status: notYet, doc: "Permissions of log files."},
		{path: "log.file_size", typ: tInt, def: "25000000", env: "LOG_FILE_SIZE", limits: atLeast(0), status: notYet, doc: "Bytes after which a log file is rotated."},
		{path: "log.file_num", typ: tInt, def: "4", env: "LOG_FILE_NUM", limits: atLeast(0), status: notYet, doc: "Rotated files that are kept."},
		{path: "log.loggers", typ: tSettings, env: "LOG_LOGGERS", status: notYet, doc: "Levels of single components."},
		{path: "log.deduplicate_heartbeat_logs", typ: tBool, def: "false", env: "LOG_DEDUPLICATE_HEARTBEAT_LOGS", status: notYet, doc: "Suppress a heartbeat line that equals the last one."},
	}
}

func restKeys() []key {
	return []key{
		{path: "restapi.listen", typ: tAddr, env: "RESTAPI_LISTEN", doc: "Where the server listens; the host may be a name, an address, `[v6]`, `*` or empty. Required."},
		{path: "restapi.connect_address", typ: tAddr, def: "= listen", env: "RESTAPI_CONNECT_ADDRESS", doc: "The address published to others."},
		{path: "restapi.authentication", typ: tSection, doc: "Credentials that requests which change something must carry."},
		{path: "restapi.authentication.username", typ: tString, env: "RESTAPI_USERNAME", doc: "Basic authentication: user."},
		{path: "restapi.authentication.password", typ: tSecret, env: "RESTAPI_PASSWORD", doc: "Basic authentication: password."},
		{path: "restapi.auth", typ: tSecret, doc: "Old form of both, `user:password`."},
		{path: "restapi.certfile", typ: tPath, env: "RESTAPI_CERTFILE", doc: "Certificate; setting it makes the server speak HTTPS."},
		{path: "restapi.keyfile", typ: tPath, env: "RESTAPI_KEYFILE", doc: "The certificate's key, when it isn't in the same file."},
		{path: "restapi.keyfile_password", typ: tSecret, env: "RESTAPI_KEYFILE_PASSWORD", status: promised, doc: "Password of the key."},
		{path: "restapi.cafile", typ: tPath, env: "RESTAPI_CAFILE", status: notYet, doc: "CA of client certificates."},
		{path: "restapi.ciphers", typ: tString, env: "RESTAPI_CIPHERS", status: notYet, doc: "OpenSSL cipher list. TLS 1.2 and up with Go's safe defaults is used."},
		{path: "restapi.verify_client", typ: tEnum, def: "none", env: "RESTAPI_VERIFY_CLIENT", enum: []string{"none", "optional", "required"}, status: promised, doc: "Client certificates."},
		{path: "restapi.allowlist", typ: tStrings, env: "RESTAPI_ALLOWLIST", status: promised, doc: "Hosts and networks that may change something."},
		{path: "restapi.allowlist_include_members", typ: tBool, def: "false", env: "RESTAPI_ALLOWLIST_INCLUDE_MEMBERS", status: promised, doc: "Members may change something."},
		{path: "restapi.http_extra_headers", typ: tSettings, env: "RESTAPI_HTTP_EXTRA_HEADERS", status: notYet, doc: "Headers added to every answer."},
		{path: "restapi.https_extra_headers", typ: tSettings, env: "RESTAPI_HTTPS_EXTRA_HEADERS", status: notYet, doc: "The same, over TLS."},
		{path: "restapi.request_queue_size", typ: tInt, def: "5", env: "RESTAPI_REQUEST_QUEUE_SIZE", limits: between(0, 4096), status: moot, restart: true, doc: "Listen backlog of Patroni's server."},
		{path: "restapi.thread_pool_size", typ: tInt, status: moot, doc: "Threads of Patroni's server."},
		{path: "restapi.server_tokens", typ: tString, def: "original", env: "RESTAPI_SERVER_TOKENS", status: notYet, doc: "What the Server header tells."},
	}
}

func ctlKeys() []key {
	return []key{
		{path: "ctl.authentication", typ: tSection, def: "restapi's", doc: "Credentials sent to members."},
		{path: "ctl.authentication.username", typ: tString, env: "CTL_USERNAME", doc: "User."},
		{path: "ctl.authentication.password", typ: tSecret, env: "CTL_PASSWORD", doc: "Password."},
		{path: "ctl.auth", typ: tSecret, doc: "Old form of both, `user:password`."},
		{path: "ctl.insecure", typ: tBool, def: "false", env: "CTL_INSECURE", status: notYet, doc: "Don't verify servers' certificates."},
		{path: "ctl.cacert", typ: tPath, def: "restapi.cafile", env: "CTL_CACERT", status: notYet, doc: "CA of servers' certificates."},
		{path: "ctl.certfile", typ: tPath, env: "CTL_CERTFILE", status: notYet, doc: "Client certificate."},
		{path: "ctl.keyfile", typ: tPath, env: "CTL_KEYFILE", status: notYet, doc: "Its key."},
		{path: "ctl.keyfile_password", typ: tSecret, env: "CTL_KEYFILE_PASSWORD", status: notYet, doc: "The key's password."},
	}
}

func bootstrapKeys() []key {
	return []key{
		{path: "bootstrap.dcs", typ: tFree, doc: "The first contents of `/config`: copied to the store once, by the member that creates the cluster. Later changes here have no effect; use `edit-config`."},
		{path: "bootstrap.method", typ: tString, def: "initdb", status: promised, doc: "Name of a custom bootstrap method."},
		{path: "bootstrap.initdb", typ: tOptions, fatal: true, doc: "Options of initdb. Not allowed: `pgdata nosync no-sync pwfile sync-only username version`."},
		{path: "bootstrap.pg_hba", typ: tLines, doc: "Lines appended to the new cluster's pg_hba.conf, unless `postgresql.pg_hba` replaces it."},
		{path: "bootstrap.users", typ: tFree, status: notYet, doc: "Users to create; Patroni 4 dropped it too."},
		{path: "bootstrap.post_bootstrap", typ: tString, status: notYet, doc: "Script run on a new primary."},
		{path: "bootstrap.post_init", typ: tString, status: notYet, doc: "Old name of post_bootstrap."},
	}
}

func tagKeys() []key {
	return []key{
		{path: "tags.nofailover", typ: tBool, def: "false", doc: "Never becomes the primary. Wins over failover_priority."},
		{path: "tags.failover_priority", typ: tInt, def: "1", doc: "Among equally advanced members the highest is preferred; 0 or less is nofailover."},
		{path: "tags.noloadbalance", typ: tBool, def: "false", doc: "Health checks for replicas answer 503."},
		{path: "tags.clonefrom", typ: tBool, def: "false", doc: "Preferred source of base backups."},
		{path: "tags.nosync", typ: tBool, def: "false", doc: "Never a synchronous standby."},
		{path: "tags.sync_priority", typ: tInt, def: "1", doc: "Order among synchronous candidates; 0 or less is nosync."},
		{path: "tags.replicatefrom", typ: tString, doc: "Member to stream from instead of the primary."},
		{path: "tags.nostream", typ: tBool, def: "false", status: notYet, doc: "Only archive recovery."},
		{path: "tags.*", typ: tScalar, doc: "Shown, and usable as `?tag_KEY=VALUE` in health checks."},
	}
}

func regentKeys() []key {
	return []key{
		{path: "regent.fencing", typ: tEnum, def: "keeper", enum: []string{"keeper", "off"}, restart: true, doc: "`keeper` stops a primary whose lease ends even if the agent is dead. `off` behaves as plain Patroni: two primaries are possible."},
		{path: "regent.run_dir", typ: tPath, def: "DATA_DIR.regent", restart: true, doc: "The keeper's socket, locks, journal. Beside the data directory, never in it."},
		{path: "regent.journal", typ: tSection, doc: "The journal of events and decisions."},
		{path: "regent.journal.dir", typ: tPath, def: "RUN_DIR/journal", restart: true, doc: "Its folder."},
		{path: "regent.journal.max_size", typ: tSize, def: "64MB", limits: atLeast(1 << 20), restart: true, doc: "Bytes on disk, all segments together."},
		{path: "regent.compat", typ: tEnum, def: "4.1", enum: []string{"3.0.4", "4.1"}, doc: "Whose words are published: `3.0.4` says master where 4.1 says primary."},
		{path: "regent.raft", typ: tSection, doc: "What Patroni's raft section lacks for the embedded store."},
		{path: "regent.raft.heartbeat_timeout", typ: tSeconds, def: "0.3", limits: between(0.05, 10), restart: true, doc: "Silence after which a voter asks for an election."},
		{path: "regent.raft.election_timeout", typ: tSeconds, def: "0.3", limits: between(0.05, 10), restart: true, doc: "Time for an election. Not below heartbeat_timeout."},
		{path: "regent.raft.leader_lease_timeout", typ: tSeconds, def: "0.3", limits: between(0.02, 10), restart: true, doc: "Time without a quorum after which a raft leader steps down. Not above heartbeat_timeout."},
		{path: "regent.raft.accept_password", typ: tSecret, doc: "A second cluster secret that is accepted from others, while `raft.password` is being changed."},
		{path: "regent.raft.certfile", typ: tPath, doc: "Certificate of this node for the store's port, instead of `raft.password`. Files are read again for each connection."},
		{path: "regent.raft.keyfile", typ: tPath, doc: "Its key."},
		{path: "regent.raft.cafile", typ: tPath, doc: "The authorities whose certificates are members' or operators'."},
	}
}
