// Package embedded is the store that lives inside the agents: hashicorp/raft over
// one TCP port per node, with the replicated machine of package kv on top. It needs
// no server of its own.
//
//	agent ── Store ─┬─ leader here ──▶ stamp, raft.Apply ──▶ log ──▶ kv.Machine (every node)
//	                ├─ leader elsewhere ──▶ RPC to it              │
//	                └─ no voter ──▶ RPC to any voter               └──▶ views, watches (local)
//
// Open is for agents and witnesses, Dial for the command line. What writes and
// linearizable reads promise comes from the log; what local views promise is their
// age. DESIGN.md says why it is built this way.
package embedded
