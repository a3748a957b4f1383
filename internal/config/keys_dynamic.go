package config

// dynamicKeys are the settings of /config, and of bootstrap.dcs, its first contents.
// They are the same for every member.
func dynamicKeys() []key {
	return []key{
		{path: "ttl", typ: tSeconds, def: "30", limits: atLeast(0.001), doc: "The leader lease: the longest time without a primary after a node's silent death."},
		{path: "loop_wait", typ: tSeconds, def: "10", limits: atLeast(0.001), doc: "The heartbeat."},
		{path: "retry_timeout", typ: tSeconds, def: "10", limits: atLeast(0.001), doc: "How long calls to the store and to PostgreSQL are tried."},
		{path: "maximum_lag_on_failover", typ: tSize, def: "1048576", limits: atLeast(0), doc: "A replica that is further behind doesn't become the primary."},
		{path: "maximum_lag_on_syncnode", typ: tInt, def: "-1", limits: atLeast(-1), doc: "A synchronous standby that is further behind is replaced."},
		{path: "max_timelines_history", typ: tInt, def: "0", limits: atLeast(0), status: honoured, doc: "Lines kept in `/history`; 0 keeps all."},
		{path: "check_timeline", typ: tBool, def: "false", doc: "A member on an older timeline doesn't become the primary."},
		{path: "primary_start_timeout", typ: tSeconds, def: "300", limits: atLeast(0), doc: "Time for a crashed primary to come back before another takes over; 0 fails over at once."},
		{path: "primary_stop_timeout", typ: tSeconds, def: "0", limits: atLeast(0), doc: "Demotion, switchover and the agent's end: time for a primary's fast stop, then as much for an immediate one, then it is killed; the end of its lease may come first. 0: 5 s, or `regent.stop_wait` where it is handed over. Patroni heeds it in synchronous mode only."},
		{path: "primary_race_backoff", typ: tSeconds, def: "0", limits: atLeast(0), status: notYet, doc: "Standbys wait while WAL of the primary still arrives."},
		{path: "synchronous_mode", typ: tEnum, def: "off", enum: []string{"off", "on", "quorum"}, status: partly, doc: "Commit waits for a standby, and only such a standby takes over."},
		{path: "synchronous_mode_strict", typ: tBool, def: "false", doc: "No commit without a standby."},
		{path: "synchronous_node_count", typ: tInt, def: "1", limits: atLeast(1), status: partly, doc: "Number of synchronous standbys: one."},
		{path: "failsafe_mode", typ: tBool, def: "false", doc: "The primary stays while the store is away and all members answer. Refused with a ttl below 5 s: there is no time to ask them then."},
		{path: "pause", typ: tBool, def: "false", status: honoured, doc: "Maintenance mode: nothing is started, stopped or failed over automatically."},
		{path: "standby_cluster", typ: tFree, status: promised, doc: "The whole cluster follows a primary elsewhere."},
		{path: "slots", typ: tFree, status: promised, doc: "Permanent replication slots, which survive a failover."},
		{path: "ignore_slots", typ: tFree, status: notYet, doc: "Slots left alone. This release touches only members' slots."},
		{path: "member_slots_ttl", typ: tSeconds, def: "1800", limits: atLeast(0), status: honoured, doc: "How long the slot of a vanished member is kept."},
		{path: "postgresql", typ: tSection, doc: "PostgreSQL's settings, shared by all members."},
		{path: "postgresql.use_slots", typ: tBool, def: "true", doc: "Physical slots for members."},
		{path: "regent", typ: tSection, doc: "Settings that Patroni doesn't have and ignores."},
		{path: "regent.fencing", typ: tEnum, def: "", enum: []string{"keeper", "off"}, doc: "As `regent.fencing` of the file, for all members; it wins over theirs."},
		{path: "regent.stop_wait", typ: tSeconds, def: "10", limits: atLeast(0), doc: "Hand-over: time for a candidate to flush the old primary's last WAL."},
		{path: "regent.move", typ: tFree, doc: "What `regent dcs move` notes of a move to another store. An edit of the configuration neither changes nor removes it."},
	}
}
