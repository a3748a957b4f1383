// Command regent-keeper is the parent of one PostgreSQL server, and the last line
// that keeps it from accepting writes without permission.
//
//	   agent ──── Unix socket, lines of JSON ────┐        (comes and goes)
//	                                             ▼
//	┌─ regent-keeper ─────────────────────────────────────────────────────┐
//	│ front   the newest connection commands; others may look             │
//	│   │                                                                 │
//	│ guard   one server's state: down, starting, running, ending         │
//	│   ├── spawner  the one thread that forks, PDEATHSIG=SIGQUIT    (S4) │
//	│   ├── reaper   SIGCHLD: the postmaster, and orphans as subreaper    │
//	│   ├── fence    timerfd on CLOCK_BOOTTIME, armed with D and B   (S2) │
//	│   │            D−B SIGINT · D−B/2 SIGQUIT · D−B/4 kill-tree         │
//	│   ├── killer   ends what lingers; alone says "server down"     (S1) │
//	│   ├── dog      /dev/watchdog, if a grant asks for it           (S4) │
//	│   └── watch    pidfd of an adopted postmaster                  (S5) │
//	└───┬─────────────────────────────────────────────────────────────────┘
//	    ▼
//	postmaster ──▶ backends, workers, archive commands      (in the data directory)
//
// It knows no store, no network and no role. Its guarantees, as long as it runs:
//
//   - A server whose grant is not extended has no client backend left at the
//     grant's deadline; nothing that the agent, the disk or another command does
//     delays that. A shutdown checkpoint and archiving may go on longer.
//   - A server becomes writable through the keeper only when it is armed (S3), and
//     stays armed until it is proven dead or disarmed for pause.
//   - "Server down" is said once, and only when no process of the data directory is
//     left. Backends that outlived an earlier keeper and their postmaster count, and
//     are killed.
//   - It doesn't end while its PostgreSQL lives. If it is killed, a PostgreSQL that
//     it started gets SIGQUIT from the kernel; one that it adopted does not.
//
// It does not guard against its own stopping (SIGSTOP, a frozen machine) unless the
// grant asks for the kernel's watchdog. It does not see a promotion that
// somebody makes behind its back, nor a process that a user of an *adopted* server
// moved to another directory and orphaned.
//
// DESIGN.md gives the reasons.
package main
