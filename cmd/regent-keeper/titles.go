package main

import "strings"

// servesNoClient reports whether a process title names a kind of PostgreSQL
// process that can't acknowledge a client's commit. Everything that isn't surely
// one of these serves clients: sessions, background workers of extensions,
// parallel workers (they work for a session), walsenders that run SQL or a base
// backup, processes that have no title yet, and whatever a later version adds.
//
// A title is "postgres: KIND", or "postgres: CLUSTER_NAME: KIND", where the name
// may hold anything; therefore KIND is looked for at the end. A session's title
// ends with its client's address or its command tag, which no kind below does, so
// a role called "checkpointer" doesn't pass for one.
//
// The kind is set once even where update_process_title is off; only what follows
// it then never changes (a walsender remains without "streaming", and counts as
// serving a client).
func servesNoClient(title string) bool {
	if !titled(title) {
		return false
	}
	rest := strings.TrimPrefix(title, titlePrefix)
	for {
		if isBackgroundKind(rest) {
			return true
		}
		// Cut off one more piece of what may be the cluster's name.
		_, after, found := strings.Cut(rest, ": ")
		if !found {
			return false
		}
		rest = after
	}
}

// titlePrefix begins every title that PostgreSQL writes; without it, a process still
// shows its postmaster's command line.
const titlePrefix = "postgres: "

func titled(title string) bool { return strings.HasPrefix(title, titlePrefix) }

// isBackgroundKind knows the kinds of PostgreSQL 12 to 18.
func isBackgroundKind(kind string) bool {
	switch kind {
	case "checkpointer", "background writer", "walwriter", "logger", "stats collector", "archiver", "startup",
		"walreceiver", "autovacuum launcher", "logical replication launcher", "walsummarizer", "slotsync worker",
		"dead-end client backend":
		return true
	}
	first, rest, _ := strings.Cut(kind, " ")
	switch first {
	case "checkpointer":
		return rest == "performing shutdown checkpoint" || rest == "performing end-of-recovery checkpoint" ||
			rest == "performing shutdown restartpoint"
	case "archiver":
		for _, doing := range []string{"archiving ", "last was ", "failed on "} {
			if file, ok := strings.CutPrefix(rest, doing); ok && isWALFile(file) {
				return true
			}
		}
	case "startup":
		rest = strings.TrimSuffix(rest, " waiting")
		for _, doing := range []string{"recovering ", "waiting for "} {
			if file, ok := strings.CutPrefix(rest, doing); ok && isWALFile(file) {
				return true
			}
		}
	case "walreceiver":
		at, ok := strings.CutPrefix(rest, "streaming ")
		return ok && isLSN(at)
	case "walsender":
		// "walsender USER HOST streaming 0/3000148". A session of a role called
		// walsender ends with a command tag instead.
		i := strings.LastIndex(rest, " streaming ")
		return i > 0 && isLSN(rest[i+len(" streaming "):])
	case "autovacuum":
		// "autovacuum worker DATABASE": one word, which isn't an address.
		db, ok := strings.CutPrefix(rest, "worker ")
		return ok && db != "" && !strings.ContainsAny(db, " [(")
	case "io":
		n, ok := strings.CutPrefix(rest, "worker ")
		return ok && n != "" && strings.Trim(n, "0123456789") == ""
	}
	return false
}

// isWALFile accepts names of segments, history and backup files.
func isWALFile(s string) bool {
	return len(s) >= 8 && strings.Trim(s[:8], "0123456789ABCDEF") == "" && !strings.Contains(s, " ")
}

func isLSN(s string) bool {
	hi, lo, ok := strings.Cut(s, "/")
	const hex = "0123456789ABCDEF"
	return ok && hi != "" && lo != "" && strings.Trim(hi, hex) == "" && strings.Trim(lo, hex) == ""
}

// isLogger reports whether the title is the logging collector's, which ends after
// the postmaster does, when it has written the last lines.
func isLogger(title string) bool {
	return title == "postgres: logger" || strings.HasPrefix(title, "postgres: ") && strings.HasSuffix(title, ": logger")
}
