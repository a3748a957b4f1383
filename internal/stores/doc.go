// Package stores makes the store that a configuration names: the one place that knows all
// backends. The agent takes part in its cluster's embedded store, and is a client of the
// others; operators' commands are clients of any.
package stores
