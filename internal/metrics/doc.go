// Package metrics counts what an agent does, and writes the Prometheus text format.
//
//	agent's loop ── Stepped ──▶ Meter ◀── round trips ── Store (around the agent's dcs.Store)
//	                             │
//	                             ▼
//	GET /metrics ─────────────▶ Page: Patroni's names first (package api), then Regent's
//
// The format is written here rather than by Prometheus's client library: a few dozen values
// don't need a registry, and the library would bring protocol buffers into an agent that is
// to stay small. There are no globals; a Meter belongs to one agent.
package metrics
