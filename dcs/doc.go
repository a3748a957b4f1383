// Package dcs defines what Regent needs of a distributed configuration store
// (DCS): the Store contract, the layout of its keys, which is Patroni's byte for
// byte, and the decoding of a View into the ClusterView that the machine reads.
//
// The package is pure; backends live in its sub-packages. Every sentence of the
// Store contract is a test in dcs/dcstest, which runs against every backend.
package dcs
