// Package workload is what a sandbox's cluster is put under: a Writer that inserts a row
// every few milliseconds and remembers which ones were acknowledged, and a Watcher that
// asks every member what it is, at least a hundred times a second. What they saw is a
// history (package history); what it means is the judge's business.
//
// Both are clients like any other: they know connection strings and nothing of agents,
// stores or files, so that they can't be told what to see.
package workload
