// Package pgmgr drives the PostgreSQL on this host: a file per verb.
//
//	agent ──▶ Manager ──┬─▶ keeper (start, stop, promote)         the postmaster's parent
//	                    ├─▶ SQL over libpq's protocol             monitoring, roles, slots, reload
//	                    ├─▶ PostgreSQL's own tools, as children   initdb, pg_basebackup, pg_rewind, …
//	                    └─▶ files of the data directory           configuration, signal files
//
// # Guarantees
//
//   - A verb is idempotent: it looks at the world before it acts, so calling it
//     again after any interruption (of the caller, the machine or itself) is right.
//   - A verb obeys its context, and kills the tools it started, and their children,
//     when the context ends. Tools left over by a killed agent are killed by the
//     next verb that needs the data directory.
//   - A data directory that a verb left half-made is never started: a marker in the
//     run directory says so until it is finished or made anew.
//   - "Stopped" means that no process of the data directory is left (safety rule S1).
//   - A directory with a valid cluster is wiped only by a verb that was told to.
//   - Errors are of four classes (ErrRefused, ErrUnavailable, ErrUnknown, ErrBroken).
//   - Passwords reach no command line, no log and no error.
//
// # What it does not do
//
// It takes no decision: who may be primary, whom to follow and when to give up a
// rung of the ladder follow → rewind → clone is the agent's business. It keeps no
// goroutine between calls. The caller runs at most one mutating verb at a time;
// Observe may run beside it.
package pgmgr
