// Package kv is the replicated machine inside the embedded store: keys, leases and
// the clock by which leases end. It is pure: every node that applies the same
// entries gets the same state and the same results, on any machine, at any time.
//
// # The term clock
//
// No wall clock decides when a lease ends, and no node's own clock does either
// (safety rule S13). The raft leader stamps each command with the monotonic time
// since it took office in its term; applying a command moves the clock forward to
// its stamp, and every lease whose deadline was reached ends there, in the log, for
// everyone at the same entry. With a new term the clock starts at zero and
// deadlines carry over what remained of them.
//
// Two things make that safe. A leader reads its time origin only after everything
// of earlier terms is applied, so a new term's clock never runs ahead of real time
// as the holders know it. And a stamp says which term it belongs to: one that was
// taken in an earlier term of the same leader is worth nothing and is ignored.
//
// The time without a leader counts all the same. The new leader knows how long before
// its origin it last applied an entry, and its ticks say so; that is taken off the leases
// which are as old. A lease renewed in the new term is not: its
// renewal may carry a stamp that was ignored, and counts from the origin.
//
// What the package doesn't do: it grants no time to anybody. How long a holder may
// believe its lease is the holder's own arithmetic (S6), with a margin for clocks
// that run at different rates.
package kv
