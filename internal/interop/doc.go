// Package interop runs clusters that Patroni and Regent share: real members of both, in one scope
// on one real store, from the same patroni.yml.
//
//	Start ─▶ store (etcd or Consul) ◀─ n1 patroni n1.yml ─▶ PostgreSQL
//	                                ◀─ n2 regent agent n2.yml ─▶ PostgreSQL
//	                                ◀─ patronictl, regent -c …, REST of either
//	         writer over all members, which counts what was acknowledged
//
// `make interop` plays everything and prints it as a table; go test plays one of each kind.
//
// It is a harness for tests, its own and those of whoever wants to know how Regent lives with a
// Patroni. A server or a Patroni that this machine lacks skips the test with the reason, and fails
// it where CI is set. Whatever was started is ended with the test, however that ends.
package interop
