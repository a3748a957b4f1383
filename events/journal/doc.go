// Package journal is the append-only file in which an agent writes every fact it was
// told and every decision it derived, so that both can be explained and replayed.
//
//	Append ─▶ queue (memory, bounded) ─▶ writer in Run ─▶ 0000000000000007.journal
//	   │                                                  header │ snapshot │ record │ …
//	   └─▶ recent (memory) ─▶ Recent                      segments, oldest deleted by size
//
// Guarantees:
//   - Append never blocks on the disk and calls no fsync (safety rule S19). What is not
//     yet on disk when the machine dies is lost, and nothing of an agent's safety rests
//     on it: authority is in the store and in PostgreSQL.
//   - Sync returns nil only after everything appended before it survives a power loss.
//   - What is read back is what was appended, in order: each record carries a CRC. A
//     reader never sees a record that is torn or changed.
//   - Every segment begins with a snapshot of the state before its first fact, so a
//     replay may begin at any segment.
//   - A full, stalled or broken disk costs records, never the agent: it is visible in
//     Degraded, the hole is marked by a gap record, and a new epoch with a fresh snapshot
//     begins as soon as the disk takes writes again.
//   - Open takes any folder, empty or corrupt, as a legal start.
//
// The package doesn't know the events: payloads are opaque JSON. It doesn't decide what
// to do about a degraded journal, and it isn't a database: one process writes, by one
// goroutine; any number read. DESIGN.md has the reasons.
package journal
