// Package livetest tries the operator's verbs on a real cluster: three agents, keepers and
// PostgreSQLs, driven by the real program. It holds tests only.
package livetest
