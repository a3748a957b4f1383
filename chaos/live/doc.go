// Package live replays the failure table on real clusters, from scripts that a DBA can read.
//
//	scenarios/*.txt ──Parse──▶ Script ──┐
//	                                    ▼
//	lab: cluster + store + load ──▶ Row: settle ─▶ steps ─▶ whole again ─▶ journals ─▶ judge ─▶ Result
//	                                    │
//	Suite: rows × stores, all of them or one store a row ─▶ report (text, Markdown, JSON)
//
// A script's vocabulary is the table in Verbs, from which its document is written. Cables and
// servers of a store belong to the layer of hosts (see Hosts): a row that needs it where it
// isn't there fails with that sentence. No row is ever left out without a word.
package live
