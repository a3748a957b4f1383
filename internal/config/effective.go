package config

import (
	"strconv"
	"strings"
)

// Settings is what PostgreSQL on this member runs with.
type Settings struct {
	// Postgres is the merged section. Its Parameters are what belongs into
	// postgresql.conf, its RecoveryConf the recovery settings that a member which
	// follows a primary may have.
	Postgres Postgres
	// CommandLine are the settings that go on the postmaster's command line, in the
	// order in which Patroni gives them, so that neither ALTER SYSTEM nor an included
	// file can change them. All members agree on them through /config.
	CommandLine []Param
}

// localOnly are the keys of the postgresql section that /config can't set.
const localOnly = " connect_address proxy_address listen data_dir config_dir config_base_name bin_dir bin_name pgpass " +
	"authentication database krbsrvname use_unix_socket use_unix_socket_repl "

// Effective merges the shared settings with a member's own (interfaces, sections 1.1
// and 1.9): a local key replaces the shared one, parameters merge one by one with the
// local one winning, use_slots and the command-line parameters are the shared ones.
// serverVersion is PostgreSQL's number (150004); 0 stands for 13 or later. The problems
// tell which parameters were dropped or moved.
func Effective(local *Config, d Dynamic, serverVersion int) (Settings, []Problem) {
	shared := d.root.get("postgresql")
	if shared == nil || shared.kind != kindMap {
		shared = newMap(pos{})
	}
	own := local.root.get("postgresql")
	if own == nil || own.kind != kindMap {
		own = newMap(pos{})
	}
	merged := newMap(own.pos)
	for _, e := range shared.keys {
		if !strings.Contains(localOnly, " "+e.key+" ") && e.key != "parameters" {
			merged.set(e.key, e.pos, e.val)
		}
	}
	for _, e := range own.keys {
		if e.key != "use_slots" && e.key != "parameters" {
			merged.set(e.key, e.pos, e.val)
		}
	}
	s := Settings{Postgres: decodePostgres(merged)}
	if s.Postgres.PgPass == "" {
		s.Postgres.PgPass = local.Postgres.PgPass
	}
	m := newParameterMerge("postgresql.parameters", serverVersion)
	m.addRecoveryConf(s.Postgres.RecoveryConf)
	m.add(shared.get("parameters"), true)
	m.add(own.get("parameters"), false)
	s.CommandLine = append([]Param{
		{"listen_addresses", local.Postgres.ListenAddresses},
		{"port", strconv.Itoa(local.Postgres.Port)},
		{"cluster_name", local.Scope},
	}, m.commandLine()...)
	m.keepWAL()
	s.Postgres.Parameters, s.Postgres.RecoveryConf = m.file, m.recovery
	return s, m.problems
}

// checkSharedPostgresql tells what of a shared postgresql section has no effect.
func checkSharedPostgresql(pg *tree, prefix string) []Problem {
	var problems []Problem
	for _, e := range pg.keys {
		if strings.Contains(localOnly, " "+e.key+" ") {
			problems = append(problems, problemAt(e.pos, Notice, prefix+"."+e.key,
				"has no effect here, it counts in the local file only", "remove it"))
		}
	}
	m := newParameterMerge(prefix+".parameters", 0)
	m.add(pg.get("parameters"), true)
	m.commandLine()
	m.keepWAL()
	return append(problems, m.problems...)
}

// checkLocalParameters tells what of a local section's parameters has no effect.
func checkLocalParameters(pg *tree) []Problem {
	m := newParameterMerge("postgresql.parameters", 0)
	m.add(pg.get("parameters"), false)
	return m.problems
}
