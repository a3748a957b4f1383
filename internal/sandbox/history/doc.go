// Package history holds what a workload and a role watcher saw of a cluster, and the
// arithmetic on it: the longest outage, the lost rows, the moments with two primaries.
//
//	writer ──▶ Ack ────┐                  ┌──▶ LongestGap, Missing
//	                   ├──▶ one time line ┤
//	watcher ─▶ Span ───┘                  └──▶ Overlaps
//
// It is pure: times are durations since one origin on one monotonic clock, and nothing
// here reads a clock, a network or a file. Every observation has two times, since what it
// shows was true at some unknown moment between question and answer; the arithmetic keeps
// that uncertainty and calls proven only what holds whatever the moment was.
package history
