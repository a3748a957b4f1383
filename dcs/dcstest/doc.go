// Package dcstest is the conformance suite of the store contract: each sentence in
// the comments of dcs.Store is a property here, and every backend runs all of them. A
// backend that passes can be put under the same machine without a second thought.
//
//	Env ──▶ sentences, side by side ──▶ faults, one after another ──▶ table
//	         each on keys of its own     kill, stand still, cut off,
//	                                     lost replies, compaction
//
// A backend brings an Env: a few clients of one store, the Bounds it promises, and
// Faults, what its harness can do to its servers. What a harness can't do is said in the
// table with the reason, and isn't a test that passes by doing nothing.
//
// Two things watch all the time. Every call of every property goes through a judge,
// which wants exactly one error class and an end within the deadline. And the histories
// of random workloads, leases included, must have a linear order (porcupine).
//
// The suite is tested itself: on the model (dcs/mem) with a planted lie for each property
// (TestEveryLieIsCaught).
//
// With REGENT_CONFORMANCE set to a folder each run leaves its results there, and
// `make conformance` prints them as one table, backends × properties.
// REGENT_CONFORMANCE_STORM, a duration, lengthens the random workload under faults.
package dcstest
