// Package mem is the reference model of the store contract, and the store of tests
// and simulations: one cluster in memory, any number of clients, an injected clock,
// and faults of every kind that a real store shows.
//
// It is deterministic: nothing happens but within a call, so two runs with the same
// calls and clock readings end the same. The exceptions are asked for: Watch has a
// goroutine to feed its channel, and Run, which tests on real time use, ends leases
// when their time has come.
//
// The model shares no code with the embedded store's machine beyond the contract's
// own types, so that one can be checked against the other.
package mem
