// Package config reads the settings of one member: a patroni.yml, unchanged, with
// the PATRONI_* environment over it, and the dynamic configuration that all members
// share in the store.
//
//	FILE or DIRECTORY ─ YAML 1.1 ─┐
//	PATRONI_* environment ────────┴▶ tree ─▶ key table ─▶ Problems   (Validate)
//	                                  │
//	                                  └────▶ Config ──┐
//	/config in the store ── JSON ───▶ Dynamic ────────┴▶ Effective ─▶ PostgreSQL's settings
//
// One table of keys (keys_*.go) says for each setting its type, its default, its
// variable, whether this release honours it, and what it does. The checks, the list of
// unhonoured settings, "did you mean" and the reference manual all come from it. A
// second table (promises.go) names the settings that promise safety and that this
// release can't keep: they stop the agent at start, because a promise that is silently
// not kept is worse than none (architecture, section 9).
//
// The package is pure but for Load, which reads the files it is told to, and CheckHost,
// which looks at the machine. It never reads the process's own environment, changes no
// global and starts no goroutine, so a reload is a second Load and a Diff.
package config
