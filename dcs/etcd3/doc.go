// Package etcd3 is the store contract on an etcd cluster, by etcd's version 3 protocol.
//
//	call ─▶ pool: which server first ─▶ one connection per server
//	          │   reads, renewals, revocations: a second server soon after the first
//	          │   transactions, grants: to one server that has just answered, once
//	          ▼
//	      errors: was it sent? did etcd say no? ─▶ one of the four classes
//
//	follow: linearizable read ─▶ watch stream from its revision ─▶ mirror ─▶ watchers
//	          every linearizable read of anybody refreshes the mirror and its age
//
// It speaks the protocol's own stubs and leaves etcd's client library aside, because that
// repeats requests, authenticates and reconnects behind one's back, and the contract wants
// to know of each request whether it may have happened. Nothing here renews a lease by
// itself.
//
// The keys' bytes are Patroni's; what lies under the base path is the caller's business.
package etcd3
