// Package consul keeps a cluster's state in HashiCorp's Consul, in Patroni's bytes.
//
//	View, Watch ──▶ GET kv/BASE?recurse&consistent (blocking, for watches)
//	Commit ───────▶ the same, then one txn that pins what was read and writes
//	Grant ────────▶ session/create: behaviour delete, half of the ttl
//	Renew ────────▶ session/info, session/renew, then the keys: all consistent
//
// What the contract asks for and Consul lacks is made of what it has. A guard on a value is
// a read and a pin on the index of what was read, repeated while others write. The revision
// of a transaction is the raft index under which its writes were stored; one that only
// deletes writes first what it deletes, to learn it. A put whose bytes are there already is
// written all the same, by way of other bytes, because Consul would leave its index alone.
//
// A lease is a session, whose id Consul chooses. It registers half of the ttl and promises
// that much, because a server may wait for twice the registered time, and waits for it in
// full again when a new one leads (safety rule S6).
package consul
