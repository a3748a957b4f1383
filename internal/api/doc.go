// Package api is the member's REST API: what load balancers, operators' tools and
// the other members ask, in the words and bytes of Patroni's.
//
//	client ──▶ listener ─ TLS ─▶ request ─▶ route ─▶ handler ─▶ reply, close
//	           (bounded)        (deadline)     │        │
//	                                     access check   ├─ snapshot of the machine's state
//	                                     (what changes  ├─ one live look at PostgreSQL,
//	                                      something)    │  shared by who waits for it
//	                                                    ├─ the store, read linearizably
//	                                                    └─ requests to the machine
//
// It answers HTTP/1.0 and closes, because that is what the clients of this API
// know; package net/http's server can't be brought to these bytes, so the few lines
// that write them are here. Reading requests is left to net/http.
//
// Guarantees: a PostgreSQL that hangs delays an answer by a quarter of a second at
// most; a client that is slow, or many of them, can't keep others out for long;
// what depends on the lease is computed when the answer is written, from the
// holder's own arithmetic (safety rule S6), so it turns by itself when the lease
// runs out; nothing that changes the cluster is reported as done, or as not done,
// unless that is known.
//
// It decides nothing: switchovers and restarts are events for the machine, and the
// only keys written here are the configuration and the removal of a schedule.
package api
