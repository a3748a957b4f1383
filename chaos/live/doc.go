// Package live replays the failure table on real clusters, from scripts that a DBA can read.
//
//	scenarios/*.txt ──Parse──▶ Script ──┐
//	                                    ▼
//	lab: cluster + store + load ──▶ Row: settle ─▶ steps ─▶ whole again ─▶ journals ─▶ judge ─▶ Result
//	                                    │
//	Suite: rows × stores, all of them or one store a row ─▶ report (text, Markdown, JSON)
//
// A script's vocabulary is the table in Verbs, from which its document is written. Members are
// hosts with cables of their own where this user may have namespaces; a row that needs them
// elsewhere fails with that sentence. No row is ever left out without a word.
package live
