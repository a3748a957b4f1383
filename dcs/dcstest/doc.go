// Package dcstest is the conformance suite of the store contract: each sentence in
// the comments of dcs.Store is a test here, and every backend runs all of them. A
// backend that passes can be put under the same machine without a second thought.
//
// Beside the sentences it offers a random workload whose history is checked for
// linearizability (Workload, Check), for backends to run while they suffer.
package dcstest
