// Package demo is `regent demo`: a cluster of three nodes on this machine, and a script that
// breaks it before the reader's eyes.
//
//	bootstrap ─▶ a client writes ─▶ 1 the primary's node is killed ─▶ 2 its agent alone is killed
//	                                     ─▶ 3 switchover ─▶ stays up, or ends
//
// Each step is printed with its time, as it happens, for somebody who has never seen the
// program. What is claimed is measured: the outage and the lost rows by a client that counts,
// the roles by somebody who asks every member's PostgreSQL 200 times a second, the reasons
// from the agents' own journals. A broken promise makes the demo fail.
//
// The package runs inside a sandbox.Base, which leaves nothing behind.
package demo
