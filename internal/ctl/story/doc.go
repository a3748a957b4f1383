// Package story reads an agent's journal for people: what happened, what the agent made
// of it, and why.
//
//	journal records ─▶ Read ─▶ Chapter: fact + decision (journaled, and recomputed)
//	                              │
//	                              └─▶ Line, Why: text
//
// What the journal says counts; what this program recomputes from it adds the
// alternatives that were rejected, which a journal doesn't keep. When the two differ,
// because another version wrote the journal, the journal's words are shown. The package
// only reads, also while an agent writes.
package story
