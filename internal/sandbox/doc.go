// Package sandbox runs throwaway clusters: real agents, keepers and PostgreSQL servers, each
// node with a folder and ports of its own, all on this machine.
//
//	program ──▶ Supervise ── as root: another user ─▶ the program again, inside a Base
//	  sweeps when it ends, however it ends               │
//	                                                     └─▶ Cluster
//	                                                          ├─ Node n1: agent, keeper, PostgreSQL
//	                                                          ├─ Node n2
//	                                                          └─ Node n3
//
// Guarantees:
//   - Nothing stays behind: Close ends every process of its cluster, orphans included, frees
//     shared memory and removes the folder; the supervisor does the same after a panic, a
//     signal or SIGKILL of the program.
//   - Only processes are ended that were started here. They are known by their pid or by
//     working in the cluster's folder, never by their name.
//   - Two sandboxes never meet: their ports are reserved as long as they live.
//
// Everything runs on the loopback interface unless Options.Hosts gives each node a Machine of its
// own; package hosts has some, whose cables can be cut.
//
// Bare are two servers without any agent, for whoever wants to know what an agent costs.
//
// A node is treated as a machine would be: its agent is restarted when it ends, as by an init
// system, until its power is off. The package breaks things when it is told to; what to break
// when, and what to think of the result, is not decided here.
package sandbox
