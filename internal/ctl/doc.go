// Package ctl is the operator's part of the command line: what looks at a cluster
// (list, topology, history, show-config, dsn, version), what changes it (switchover,
// failover), and what explains an agent (journal, why, fsm, config).
//
//	arguments ─▶ App ─┬─ configuration file, environment ─▶ settings
//	                  ├─ Env.Open  ─▶ dcs.Store            what the cluster is
//	                  ├─ Env.Dial  ─▶ Caller               the members' REST API
//	                  └─ the journal's folder              why it is so
//
// Names, prompts, tables, channels and exit codes are those of Patroni's patronictl,
// because scripts answer its prompts and read its tables. Prompts, tables and results
// go to stdout, errors and warnings to stderr; 0 is success (a refused request too),
// 1 an error, 2 wrong usage.
//
// The package owns no stream, no clock and no signal: it takes them in an Env, so that
// every command can be tested without a process.
package ctl
